"""Every answer of the chat service is exactly one class of error, and a fatal one is never retried."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import time
from itertools import pairwise
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.errors import (
    CatchupError,
    ItemPermanent,
    Misconfigured,
    OutOfMoney,
    RateLimits,
    RunFatal,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
    UpstreamError,
)
from queries.openai_answers import read_answer
from queries.openai_bodies import WORDS_AT_MOST
from queries.openai_errors import classify
from queries.openai_limits import parse_duration_s, parse_limits
from queries.redact import redact
from tests.recorded_openai import ANSWERS, NO_ANSWERS, Recorded, err

KEY = "sk-proj-s3ntinel/Key+0123456789"


def raw(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def told_by(error: CatchupError) -> list[object]:
    return [getattr(error, name, None) for name in ("retry_after_s", "reason", "code")]


@pytest.mark.parametrize("seen", ANSWERS, ids=lambda seen: seen.name)
def test_an_answer_is_one_class_of_error(seen: Recorded) -> None:
    """The table of recorded answers, as text and as bytes, gives exactly the class it names."""
    error = classify(seen.status, raw(seen.body), seen.headers)
    assert type(error) is seen.becomes, (type(error), error.what)
    if isinstance(seen.told, float):
        assert isinstance(error, Throttle)
        assert error.retry_after_s == pytest.approx(seen.told)
    elif seen.told is not None:
        assert seen.told in told_by(error)
    elif isinstance(error, Throttle):
        assert error.retry_after_s is None
    again = classify(seen.status, raw(seen.body).decode("utf-8", "replace"), seen.headers)
    assert (type(again), again.what) == (type(error), error.what)


def test_the_table_is_large_and_its_names_are_unique() -> None:
    """At least 120 recorded bodies stand behind the classifier."""
    assert len(ANSWERS) >= 120
    assert len({seen.name for seen in ANSWERS}) == len(ANSWERS)


@pytest.mark.parametrize("seen", ANSWERS, ids=lambda seen: seen.name)
def test_a_message_is_one_clean_line(seen: Recorded) -> None:
    """Words of the service: bounded, printable, and a fatal one says what to do."""
    error = classify(seen.status, raw(seen.body), seen.headers)
    words = getattr(error, "words", "")
    assert len(words) <= WORDS_AT_MOST
    assert words.isprintable()
    assert "wxyz" not in words
    assert not isinstance(error, RunFatal) or error.fix


@pytest.mark.parametrize(("name", "body"), NO_ANSWERS, ids=[name for name, _ in NO_ANSWERS])
def test_a_200_that_is_no_answer_is_malformed(name: str, body: bytes) -> None:
    """Nothing of the wrong shape gets as far as a job."""
    with pytest.raises(Transient) as failed:
        read_answer(body, {"x-ratelimit-limit-requests": "5"})
    assert failed.value.code in ("malformed", "server_error"), name
    assert "hi" not in failed.value.what.split()


@given(
    status=st.one_of(st.integers(100, 599), st.just(200)),
    body=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["error", "message", "code", "type", "param", "detail", "choices", "innererror"]),
                    inner,
                )
            ),
            max_leaves=12,
        ).map(json.dumps),
    ),
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "Retry-After-Ms", "date", "location", "x-ratelimit-reset-tokens"]), st.text()
    ),
)
def test_junk_never_raises(status: int, body: bytes | str, headers: dict[str, str]) -> None:
    """Whatever comes is one of ours, and twice the same."""
    error = classify(status, body, headers, secrets=(KEY,))
    assert isinstance(error, (UpstreamError, RunFatal))
    assert told_by(error) == told_by(classify(status, body, headers, secrets=(KEY,)))


LONG = 100_000
HOSTILE = {
    "numbers": "Limit " + "9" * 5000 + ", Requested " + "9" * 5000,
    "limits": "limit: 1 " * LONG,
    "hints": "try again in " + "1s " * LONG,
    "endless-wait": "Please try again in " + "9" * 400 + "s",
    "tokens": "eyJ" * LONG,
    "dashes": "sk-" * LONG,
    "urls": "://a:" * LONG,
    "tags": "<title" * LONG,
    "nesting": '{"error":' * LONG,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("status", [400, 429, 500])
def test_hostile_lengths_neither_raise_nor_stall(text: str, status: int) -> None:
    """A body made to break numbers, recursion or regular expressions is judged in a moment."""
    began = time.process_time()
    for body in (text, raw(err(text, text, text, text)), raw({"detail": [{"msg": text}]})):
        error = classify(
            status, body, {"retry-after": text[:1000], "x-ratelimit-reset-tokens": text[:1000]}, secrets=(KEY,)
        )
        assert getattr(error, "retry_after_s", None) != float("inf")
    assert time.process_time() - began < 1.0


FATAL = [seen for seen in ANSWERS if seen.becomes in (OutOfMoney, Misconfigured, ItemPermanent) and seen.status == 429]
FATAL += [seen for seen in ANSWERS if seen.becomes in (OutOfMoney, Misconfigured) and isinstance(seen.body, dict)]


@given(
    seen=st.sampled_from(FATAL),
    noise=st.dictionaries(st.text(max_size=8).filter(lambda k: k not in ("error", "message")), st.text(max_size=20)),
    headers=st.dictionaries(st.sampled_from(["retry-after", "x-should-retry", "retry-after-ms"]), st.text(max_size=10)),
)
def test_a_fatal_body_is_never_worth_a_retry(seen: Recorded, noise: dict[str, str], headers: dict[str, str]) -> None:
    """Extra fields and headers that invite to retry do not turn an empty account into a slow one."""
    body = {**noise, **seen.body} if isinstance(seen.body, dict) and "error" in seen.body else seen.body
    assert not isinstance(classify(seen.status, raw(body), headers), Throttle | Transient)


@given(body=st.binary(max_size=300))
def test_junk_in_a_200_is_malformed_or_an_answer(body: bytes) -> None:
    """read_answer raises nothing but errors of ours."""
    with pytest.raises(UpstreamError):
        read_answer(body, {})


def test_nobody_s_key_is_in_any_field() -> None:
    """The 401 that echoes the key, in the message, the code, the type and the location."""
    body = err(f"Incorrect API key provided: {KEY}. Bearer {KEY}", KEY, KEY, KEY)
    for status in (400, 401, 403, 404, 429, 500, 302):
        error = classify(status, raw(body), {"location": f"https://{KEY}@evil.example/{KEY}"}, secrets=(KEY,))
        said = repr([str(error), error.fix, *vars(error).values()])
        assert "s3ntinel" not in said, said


def test_the_prompt_is_not_repeated() -> None:
    """A server that echoes the item's text has its words left out."""
    transcript = "So today we are talking about the quiet joys of compiler construction, my friends."
    error = classify(400, raw(err(f"could not parse: '{transcript}'")), private=transcript)
    assert isinstance(error, ItemPermanent)
    assert "quiet joys" not in repr(vars(error))


def test_complaints_of_fastapi_keep_the_input_out() -> None:
    """`input` in a 422 is the transcript itself."""
    body = {"detail": [{"loc": ["body"], "msg": "value is not a valid dict", "input": "the whole transcript"}]}
    error = classify(422, raw(body))
    assert isinstance(error, ItemPermanent)
    assert error.words == "value is not a valid dict"


def test_throttle_carries_the_limits_of_its_headers() -> None:
    """The limiter learns from refusals too."""
    error = classify(429, b"", {"X-RateLimit-Limit-Requests": "500", "x-ratelimit-remaining-requests": "0"})
    assert isinstance(error, Throttle)
    assert error.limits == RateLimits(requests_per_min=500, remaining_requests=0)


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ({}, RateLimits()),
        ({"content-type": "x"}, RateLimits()),
        (
            {
                "x-ratelimit-limit-requests": "500",
                "x-ratelimit-limit-tokens": "200000",
                "x-ratelimit-remaining-requests": "499",
                "x-ratelimit-remaining-tokens": "199000",
                "x-ratelimit-reset-requests": "120ms",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            RateLimits(500, 200_000, 499, 199_000, 0.12, 360.0),
        ),
        ({"x-ratelimit-limit-requests": "many", "x-ratelimit-reset-tokens": "-1s"}, RateLimits()),
        ({"x-ratelimit-remaining-tokens": "-5", "x-ratelimit-limit-tokens": "1e999"}, RateLimits()),
    ],
    ids=["none", "others", "all", "garbage", "negative"],
)
def test_limits_are_read_from_headers(headers: dict[str, str], limits: RateLimits) -> None:
    """What is missing or unreadable is None, never a guess."""
    assert parse_limits(headers) == limits


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("6m0s", 360), ("12ms", 0.012), ("1h2m", 3720), ("1m30.951s", 90.951), ("0s", 0), ("2d", 172_800),
     ("0.5", 0.5), ("", None), ("s", None), ("1x", None), ("-1s", None), ("1s and more", None), ("\u0661s", None)],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float | None) -> None:
    """The forms of the reset headers."""
    assert parse_duration_s(text) == (None if seconds is None else pytest.approx(seconds))


def chain(*links: BaseException) -> BaseException:
    """Exceptions as the SDK nests them: each caused by the next."""
    for outer, inner in pairwise(links):
        outer.__cause__ = inner
    return links[0]


REQUEST = httpx2.Request("POST", "http://127.0.0.1/")
ROAD = aiohttp.client_reqrep.ConnectionKey("h", 443, True, True, None, None, None)


def lost(*links: BaseException) -> BaseException:
    """What the SDK makes of any broken connection: a timeout on top of a ConnectTimeout."""
    return chain(openai.APITimeoutError(REQUEST), httpx2.ConnectTimeout(""), *links)


def broken(*links: BaseException) -> BaseException:
    return chain(openai.APIConnectionError(request=REQUEST), *links)


FAILURES: list[tuple[str, BaseException | None, type[CatchupError]]] = [
    ("refused", lost(aiohttp.ClientConnectorError(ROAD, OSError(111, "no"))), Unreachable),
    ("dns", lost(aiohttp.ClientConnectorDNSError(ROAD, OSError(-2, "name"))), Unreachable),
    ("gaierror", broken(socket.gaierror(-2, "name")), Unreachable),
    ("connect-timeout", lost(aiohttp.ConnectionTimeoutError()), Unreachable),
    ("httpx-connect", broken(httpx2.ConnectError("")), Unreachable),
    ("httpx-pool", chain(openai.APITimeoutError(REQUEST), httpx2.PoolTimeout("")), Unreachable),
    ("certificate", broken(httpx2.ConnectError(""), ssl.SSLCertVerificationError("self-signed")), Unreachable),
    ("proxy", broken(httpx2.ProxyError("407")), Unreachable),
    ("disconnected", lost(aiohttp.ServerDisconnectedError()), UnknownOutcome),
    ("reset", lost(aiohttp.ClientOSError(104, "reset"), ConnectionResetError(104, "reset")), UnknownOutcome),
    (
        "read-timeout",
        chain(openai.APITimeoutError(REQUEST), httpx2.ReadTimeout(""), aiohttp.SocketTimeoutError()),
        UnknownOutcome,
    ),
    ("half-body", broken(httpx2.ReadError(""), aiohttp.ClientPayloadError("cut")), UnknownOutcome),
    ("our-deadline", TimeoutError(), UnknownOutcome),
    ("our-deadline-cancelled", chain(TimeoutError(), asyncio.CancelledError()), UnknownOutcome),
    ("bare-sdk", openai.APIConnectionError(request=REQUEST), UnknownOutcome),
    ("a-bug", KeyError("x"), UnknownOutcome),
    ("nothing", None, UnknownOutcome),
    ("bad-url", broken(httpx2.UnsupportedProtocol("ftp")), Misconfigured),
]


@pytest.mark.parametrize(("failure", "becomes"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
def test_no_answer_is_an_outage_only_if_nothing_was_sent(
    failure: BaseException | None, becomes: type[CatchupError]
) -> None:
    """aiohttp's transport reports every broken connection as ConnectTimeout: the cause below it decides."""
    error = classify(None, exception=failure)
    assert type(error) is becomes
    assert error.code  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        "sk-proj-s3ntinel%2FKey%2B0123456789",
        "sk-proj-s3ntinel%2fKey%2b0123456789",
        f"Authorization: Bearer {KEY}",
        f"https://user:{KEY}@host/path",
        f"?api_key={KEY}&x=1",
    ],
)
def test_a_configured_secret_is_gone_in_any_writing(text: str) -> None:
    """As it is, and URL-encoded in either case."""
    assert "s3ntinel" not in redact(f"before {text} after", (KEY,))


@given(before=st.binary(max_size=5), after=st.binary(max_size=5))
def test_a_secret_in_base64_is_gone(before: bytes, after: bytes) -> None:
    """At each of the three alignments, among anything."""
    text = base64.b64encode(before + KEY.encode() + after).decode()
    left = redact(text, (KEY,)).replace("[redacted]", "")
    assert len(left) < 20


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("sk-abcdef123456", "abcdef"),
        ("sb_secret_abcdef123", "abcdef"),
        ("Bearer abc.def.ghi", "abc.def"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZSJ9.abc-def", "eyJyb2xl"),
        ("postgresql://me:hunter2@db.example/x", "hunter2"),
        ("https://x.example/?key=AIzaSyA1234567890abcdefghij", "AIza"),
        ("pcsk_abcdefgh1234", "abcdefgh"),
        ("Incorrect API key provided: whatever***x.", "whatever"),
    ],
)
def test_what_looks_like_a_key_is_gone(text: str, gone: str) -> None:
    """Somebody else's key in a body is as secret as ours."""
    assert gone not in redact(text)


@pytest.mark.parametrize(
    "text", ["a task-force of risk-takers", "key=value pairs", "the bearer of news", "talk about sk", ""]
)
def test_plain_words_are_left_alone(text: str) -> None:
    """Redaction that eats sentences hides the reason too."""
    assert redact(text, ("", "abc")) == text
