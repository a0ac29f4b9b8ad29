"""Every refusal of YouTube is one class of error, in either of its two forms, and a fatal one is never retried."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.errors import (
    CatchupError,
    ItemPermanent,
    Misconfigured,
    OutOfMoney,
    RunFatal,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.youtube_errors import CONFIG, DAY, classify, malformed
from queries.youtube_http import NotSent
from tests.servers.fake_youtube import HTML
from tests.servers.fake_youtube_script import OVER_QUOTA, PER_DAY, PER_MINUTE, REFUSALS, legacy, rpc

KEY = "AIzaSy-s3ntinel_0123456789abcdefghijklm"


class Case(NamedTuple):
    name: str
    told: tuple[int, Any]
    becomes: type[CatchupError]
    code: str = ""


NAMED = {
    "quota": OutOfMoney,
    "daily": OutOfMoney,
    "quota_rpc": OutOfMoney,
    "rate": Throttle,
    "user_rate": Throttle,
    "rate_rpc": Throttle,
    "key_invalid": Misconfigured,
    "key_invalid_legacy": Misconfigured,
    "no_key": Misconfigured,
    "not_configured": Misconfigured,
    "ip_blocked": Misconfigured,
    "ip_blocked_rpc": Misconfigured,
    "service_blocked": Misconfigured,
    "forbidden": Misconfigured,
    "login": Misconfigured,
    "no_filter": Misconfigured,
    "bad_id": ItemPermanent,
    "too_many": ItemPermanent,
    "bad_part": Misconfigured,
    "not_found": ItemPermanent,
    "no_method": Misconfigured,
    "backend": Transient,
    "unavailable": Transient,
}
CASES = (
    *(Case(f"the service's {name}", REFUSALS[name], kind) for name, kind in NAMED.items()),
    Case("quota by its words alone", (403, {"error": {"code": 403, "message": OVER_QUOTA}}), OutOfMoney),
    Case("quota behind a 500", (500, REFUSALS["quota"][1]), OutOfMoney, "quotaExceeded"),
    Case("quota behind a 429", (429, REFUSALS["quota"][1]), OutOfMoney, "quotaExceeded"),
    Case("quota in a list", (403, [REFUSALS["quota"][1]]), OutOfMoney, "quotaExceeded"),
    Case("a limit a day sent as rate limit", legacy(403, "rateLimitExceeded", PER_DAY), OutOfMoney),
    Case("a limit a day by its name only", rpc(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", "Quota exceeded", "",
         quota_limit="defaultSearchListPerDayPerProject"), OutOfMoney),
    Case("a limit a minute", rpc(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", PER_MINUTE), Throttle),
    Case("a 429 without words", (429, ""), Throttle),
    Case("a 429 as a page", (429, "<html><title>Too Many Requests</title></html>"), Throttle),
    Case("daily limit without a key", legacy(403, "dailyLimitExceededUnreg",
         "Daily Limit for Unauthenticated Use Exceeded. Continued use requires signup."), Misconfigured),
    Case("a wrong key behind a 500", (500, REFUSALS["key_invalid"][1]), Misconfigured, "badRequest"),
    Case("a wrong key by its words alone", (400, {"error": {"message": "API key not valid."}}), Misconfigured),
    Case("an expired key", rpc(400, "INVALID_ARGUMENT", "API_KEY_EXPIRED", "API key expired."), Misconfigured),
    Case("a suspended project", rpc(403, "PERMISSION_DENIED", "CONSUMER_SUSPENDED", "suspended"), Misconfigured),
    Case("a bare 401", (401, ""), Misconfigured, "http_401"),
    Case("a bare 403", (403, ""), Misconfigured, "http_403"),
    Case("a bare 404", (404, ""), Misconfigured, "http_404"),
    Case("a proxy's 407", (407, "proxy"), Misconfigured, "http_407"),
    Case("a 400 that blames no id", (400, {"error": {"message": "Request is malformed"}}), Misconfigured),
    Case("a URL too long", (414, "URI too long"), ItemPermanent, "http_414"),
    Case("a redirect", (302, ""), Misconfigured, "http_302"),
    Case("a redirect for good", (308, "moved"), Misconfigured, "http_308"),
    Case("a not-modified nobody asked for", (304, ""), Misconfigured, "http_304"),
    Case("a gateway's page", (502, HTML.decode()), Transient, "http_502"),
    Case("Cloudflare's 520", (520, HTML.decode()), Transient, "http_520"),
    Case("a gateway that gave up", (504, HTML.decode()), UnknownOutcome, "http_504"),
    Case("Cloudflare's 524", (524, ""), UnknownOutcome, "http_524"),
    Case("a 408", (408, ""), Transient, "http_408"),
    Case("a 409", legacy(409, "aborted", "Conflict"), Transient, "aborted"),
    Case("cut JSON behind a 503", (503, '{"error": {"code": 5'), Transient, "http_503"),
    Case("an error inside a success", (200, {"error": {"message": "?"}}), Transient, "malformed"),
    Case("quota inside a success", (200, REFUSALS["quota"][1]), OutOfMoney),
    Case("an error that is a text", (403, {"error": "forbidden"}), Misconfigured),
    Case("reasons of odd types", (503, {"error": {"errors": [{"reason": 5}, 7], "details": {"a": 1}}}), Transient),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_answer_is_one_class_of_error(case: Case) -> None:
    """Status, reason, words and both forms of the body decide it; the code names what the service said."""
    status, told = case.told
    body = told if isinstance(told, str) else json.dumps(told)
    error = classify(status, body.encode(), {})
    assert type(error) is case.becomes
    if case.code:
        assert error.code == case.code  # type: ignore[attr-defined]


def test_every_named_refusal_of_the_fake_is_in_the_table() -> None:
    """A new one there cannot be forgotten here."""
    assert set(NAMED) == set(REFUSALS)


@pytest.mark.parametrize("status", [200, 400, 403, 429, 500, 503])
@pytest.mark.parametrize("reason", sorted(DAY | CONFIG))
def test_a_fatal_reason_is_fatal_in_both_forms_whatever_the_status(status: int, reason: str) -> None:
    """No fatal body is ever called passing, wherever Google writes the reason."""
    for _, body in (legacy(status, reason, "no"), rpc(status, "UNKNOWN", reason, "no", "backendError")):
        if reason in ("forbidden", "permission_denied") and status == 429:
            continue  # the vaguest of all: beside a plain 429 it is the pace
        assert isinstance(classify(status, json.dumps(body).encode()), RunFatal)


@pytest.mark.parametrize(
    ("exception", "becomes"),
    [
        pytest.param(NotSent("gaierror"), Unreachable, id="no name"),
        pytest.param(ConnectionRefusedError(), Unreachable, id="refused"),
        pytest.param(socket.gaierror(), Unreachable, id="lookup failed"),
        pytest.param(TimeoutError(), UnknownOutcome, id="silence"),
        pytest.param(ConnectionResetError(), UnknownOutcome, id="reset"),
        pytest.param(http.client.RemoteDisconnected("x"), UnknownOutcome, id="closed without an answer"),
        pytest.param(http.client.IncompleteRead(b""), UnknownOutcome, id="cut"),
        pytest.param(BrokenPipeError(), UnknownOutcome, id="closed while sending"),
        pytest.param(ssl.SSLError(), UnknownOutcome, id="broken TLS"),
        pytest.param(RuntimeError("?"), UnknownOutcome, id="anything else"),
        pytest.param(http.client.InvalidURL(), Misconfigured, id="no URL"),
        pytest.param(None, UnknownOutcome, id="nothing at all"),
    ],
)
def test_without_an_answer_only_what_was_never_sent_is_an_outage(
    exception: BaseException | None, becomes: type[CatchupError]
) -> None:
    """After sending, the unit is spent and the outcome unknown."""
    assert type(classify(None, exception=exception)) is becomes


@pytest.mark.parametrize(
    ("headers", "body", "wait_s"),
    [
        pytest.param({"Retry-After": "30"}, "", 30.0, id="a header"),
        pytest.param({}, rpc(429, "X", "RATE_LIMIT_EXCEEDED", "slow")[1], None, id="none"),
        pytest.param(
            {}, {"error": {"details": [{"@type": "google.rpc.RetryInfo", "retryDelay": "37s"}]}}, 37.0, id="RetryInfo"
        ),
        pytest.param({"retry-after": "soon"}, {"error": {"details": [{"retryDelay": "x"}]}}, None, id="garbage"),
    ],
)
def test_a_wait_is_the_servers(headers: dict[str, str], body: Any, wait_s: float | None) -> None:
    """A server's wait is never shortened, wherever it says it."""
    error = classify(429, json.dumps(body), headers)
    assert isinstance(error, Throttle)
    assert error.retry_after_s == wait_s


def test_the_key_is_in_no_word_of_an_error() -> None:
    """A body that repeats the key is told without it."""
    body = json.dumps(rpc(400, "X", f"API_KEY_INVALID {KEY}", f"API key {KEY} not valid", KEY)[1])
    error = classify(400, body, secrets=(KEY,))
    assert KEY not in f"{error} {vars(error)}"


def test_markup_is_left_out_of_the_words() -> None:
    """The service's own message holds a link."""
    error = classify(403, json.dumps(REFUSALS["quota"][1]))
    assert isinstance(error, OutOfMoney)
    assert error.words == "The request cannot be completed because you have exceeded your quota."


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["quotaExceeded", "keyInvalid"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "errors", "details", "reason", "status", "metadata", "message"]), inner
        )
    ),
    max_leaves=12,
)


@given(status=st.integers(100, 599), body=junk | st.binary(max_size=60))
def test_no_body_makes_it_raise(status: int, body: Any) -> None:
    """Whatever comes is some error of ours, with words that can be shown."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = classify(status, raw, {"Retry-After": "x"})
    assert isinstance(error, CatchupError)
    assert error.what


@given(
    status=st.sampled_from([400, 403, 429, 500, 503]),
    rest=junk,
    reason=st.sampled_from(["quotaExceeded", "keyInvalid"]),
)
def test_a_fatal_reason_beside_any_junk_is_never_passing(status: int, rest: Any, reason: str) -> None:
    """What else the body holds cannot talk it into a retry."""
    body = {"error": {"message": "no", "details": rest, "errors": [{"reason": reason}]}}
    assert isinstance(classify(status, json.dumps(body).encode()), RunFatal)


def test_a_malformed_success_is_passing_and_may_have_been_booked() -> None:
    """The engine books an answer with this code as one that was perhaps paid."""
    assert malformed("x").code == "malformed"
