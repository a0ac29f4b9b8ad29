"""One ask is one request, whatever the service does, and the key goes nowhere but home."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest

from queries.chat import Chat, ChatAnswer, ChatRequest
from queries.errors import (
    CatchupError,
    ItemPermanent,
    Misconfigured,
    OutOfMoney,
    RateLimits,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.openai_chat import OpenAIChat
from queries.openai_client import check_base_url
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.fake_script import rule

KEY = "sk-proj-s3ntinel-0123456789abcdef"
PROMPT = "Tr4nscript-sentinel: today we talk about compilers, parsers and the joy of small languages."


def request(item: str = "a", *, model: str = "gpt-4o-mini") -> ChatRequest:
    return ChatRequest(model, "Summarise in one sentence.", f"[[item:{item}]] {PROMPT}", 120)


@pytest.fixture
async def chat(fake_openai: FakeOpenAI) -> AsyncIterator[OpenAIChat]:
    provider = OpenAIChat(KEY, fake_openai.url, timeout_s=0.4)
    yield provider
    await provider.close()


async def test_an_answer_comes_with_its_counts_and_limits(chat: Chat, fake_openai: FakeOpenAI) -> None:
    """Text, model, tokens as billed and what the headers say, from one request."""
    fake_openai.configure(rpm=600, tpm=60_000)
    answer = await chat.ask(request())
    assert (answer.text or "").startswith("The speaker explains")
    assert (answer.finish_reason, answer.refusal, answer.model) == ("stop", None, "gpt-4o-mini")
    assert answer.tokens_in == fake_openai.world.tokens_in > 0
    assert answer.tokens_out == fake_openai.world.tokens_out > 0
    assert answer.limits is not None
    assert (answer.limits.requests_per_min, answer.limits.tokens_per_min) == (600, 60_000)
    assert answer.limits.remaining_requests == 9


async def test_the_request_asks_for_no_more_than_allowed(chat: Chat, fake_openai: FakeOpenAI) -> None:
    """max_completion_tokens is always set; nothing but model, messages and that is sent."""
    await chat.ask(request())
    (body,) = fake_openai.bodies
    assert set(body) == {"model", "messages", "max_completion_tokens"}
    assert body["max_completion_tokens"] == 120
    assert [m["role"] for m in body["messages"]] == ["system", "user"]


async def test_missing_usage_and_limits_are_zero_and_none(chat: Chat, fake_openai: FakeOpenAI) -> None:
    """Compatible servers leave both out: the caller sees that it must count itself."""
    fake_openai.configure(no_usage=True)
    answer = await chat.ask(request())
    assert (answer.tokens_in, answer.tokens_out, answer.limits) == (0, 0, None)


FAULTS: list[tuple[str, dict[str, Any], type[CatchupError], int]] = [
    ("throttle", rule("status", status=429, body="slow", headers={"retry-after": "3"}), Throttle, 0),
    ("quota", rule("quota"), OutOfMoney, 0),
    ("wrong-key", rule("auth"), Misconfigured, 0),
    ("wrong-model", rule("model_404"), Misconfigured, 0),
    ("too-long", rule("too_long"), ItemPermanent, 0),
    ("filtered", rule("filtered"), ItemPermanent, 0),
    ("500", rule("status", status=500), Transient, 0),
    ("500-asks-for-retry", rule("status", status=500, headers={"x-should-retry": "true"}), Transient, 0),
    ("503-html", rule("status", status=503, body="<html><title>busy</title>"), Transient, 0),
    ("408", rule("status", status=408), Transient, 0),
    ("409", rule("status", status=409), Transient, 0),
    ("504", rule("status", status=504), UnknownOutcome, 0),
    ("hang", rule("hang"), UnknownOutcome, 1),
    ("reset-after-work", rule("reset"), UnknownOutcome, 1),
    ("reset-before-work", rule("reset_before"), UnknownOutcome, 0),
    ("half-body", rule("half_body"), UnknownOutcome, 1),
    ("html-200", rule("html200"), Transient, 1),
    ("cut-json", rule("malformed"), Transient, 1),
    ("no-choices", rule("no_choices"), Transient, 1),
    ("wrong-types", rule("wrong_types"), Transient, 1),
    ("error-200", rule("error200"), Transient, 1),
]


@pytest.mark.parametrize(("line", "becomes", "billed"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
async def test_one_ask_is_one_request(
    chat: Chat, fake_openai: FakeOpenAI, line: dict[str, Any], becomes: type[CatchupError], billed: int
) -> None:
    """The SDK would send three for most of these; each attempt here is one, booked by the caller."""
    fake_openai.script(line)
    with pytest.raises(becomes) as failed:
        await chat.ask(request())
    assert type(failed.value) is becomes
    assert fake_openai.world.requests == 1
    assert fake_openai.world.paid.total() == billed


async def test_a_reused_connection_that_dies_is_not_sent_again(chat: Chat, fake_openai: FakeOpenAI) -> None:
    """Transports like to repeat a request when a kept connection turns out dead; a paid call must not be."""
    await chat.ask(request("first"))
    fake_openai.script(rule("reset"))
    with pytest.raises(UnknownOutcome):
        await chat.ask(request("second"))
    assert fake_openai.world.requests == 2
    assert fake_openai.world.paid["second"] == 1


async def test_a_server_that_dribbles_is_given_up(chat: Chat) -> None:
    """A byte now and then satisfies every read timeout; the whole attempt has a deadline too."""

    async def dribble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.02)

    async with await asyncio.start_server(dribble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        slow = OpenAIChat(KEY, f"http://127.0.0.1:{port}/v1", timeout_s=0.2)
        began = time.monotonic()
        with pytest.raises(UnknownOutcome):
            await slow.ask(request())
        assert time.monotonic() - began < 2
        await slow.close()


async def test_an_answer_without_end_is_refused(chat: Chat) -> None:
    """A gigabyte announced is not read into memory."""

    async def boast(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n{")
        await writer.drain()

    async with await asyncio.start_server(boast, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        provider = OpenAIChat(KEY, f"http://127.0.0.1:{port}/v1", timeout_s=5)
        with pytest.raises(Transient, match="malformed"):
            await provider.ask(request())
        await provider.close()


async def test_nobody_listening_is_an_outage(fake_openai: FakeOpenAI) -> None:
    """No connection means nothing was sent and nothing billed."""
    provider = OpenAIChat(KEY, "http://127.0.0.1:9/v1", timeout_s=1)
    with pytest.raises(Unreachable):
        await provider.ask(request())
    await provider.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error_and_never_followed(chat: Chat, fake_openai: FakeOpenAI, status: int) -> None:
    """The text would be sent to whoever the answer names: 0 requests there."""
    async with FakeOpenAI() as elsewhere:
        fake_openai.script(rule("redirect", status=status, location=f"{elsewhere.url}/chat/completions"))
        with pytest.raises(Misconfigured):
            await chat.ask(request())
        assert (fake_openai.world.requests, elsewhere.world.requests) == (1, 0)


WAITS = [
    ({"retry-after": "3"}, 3.0),
    ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after": "121"}, 121.0),
    ({"retry-after": "-3"}, None),
    ({"retry-after": "soon"}, None),
]


@pytest.mark.parametrize(("headers", "wait_s"), WAITS, ids=[next(iter(h.values())) for h, _ in WAITS])
async def test_the_wait_a_server_names_arrives_unshortened(
    chat: Chat, fake_openai: FakeOpenAI, headers: dict[str, str], wait_s: float | None
) -> None:
    """121 s makes the SDK give up at once; here the engine hears of it."""
    fake_openai.script(rule("status", status=429, headers=headers))
    with pytest.raises(Throttle) as slowed:
        await chat.ask(request())
    assert slowed.value.retry_after_s == wait_s


async def test_the_fakes_own_refusal_carries_wait_and_limits(chat: Chat, fake_openai: FakeOpenAI) -> None:
    """End to end: the limit, nothing remaining, and the text's and the header's wait agree."""
    fake_openai.configure(rpm=60)
    await chat.ask(request())
    with pytest.raises(Throttle) as slowed:
        await chat.ask(request())
    assert 0 < (slowed.value.retry_after_s or 0) <= 1
    assert isinstance(slowed.value.limits, RateLimits)
    assert slowed.value.limits.remaining_requests == 0


@pytest.mark.parametrize("kind", ["finish", "refusal", "null_content", "empty", "echo", "same", "hostile", "obedient"])
async def test_a_bad_answer_is_still_an_answer(chat: Chat, fake_openai: FakeOpenAI, kind: str) -> None:
    """Whether it may be stored is the job's judgement; here it only has to arrive whole, and encodable."""
    fake_openai.script(rule(kind))
    answer = await chat.ask(request())
    assert isinstance(answer, ChatAnswer)
    (answer.text or "").encode()
    found = {
        "finish": answer.finish_reason == "length",
        "refusal": bool(answer.refusal) and answer.text is None,
        "null_content": answer.text is None and answer.refusal is None,
        "empty": not (answer.text or "").strip(),
        "echo": PROMPT in (answer.text or ""),
        "hostile": "\x1b" in (answer.text or "") and "\ufffd" in (answer.text or ""),
    }
    assert found.get(kind, bool(answer.text))


async def test_an_older_server_is_asked_with_max_tokens(fake_openai: FakeOpenAI, chat: Chat) -> None:
    """The refusal is learnt from once; the same item is asked again by the caller, and every later one that way."""
    fake_openai.script(rule("unsupported", on={"times": 1}))
    with pytest.raises(Transient):
        await chat.ask(request())
    await chat.ask(request())
    await chat.ask(request())
    fields = [set(body) - {"model", "messages"} for body in fake_openai.bodies]
    assert fields == [{"max_completion_tokens"}, {"max_tokens"}, {"max_tokens"}]


async def test_text_that_is_no_unicode_is_the_items_fault(chat: Chat, fake_openai: FakeOpenAI) -> None:
    """A lone surrogate cannot be sent; no request is made for it."""
    with pytest.raises(ItemPermanent) as named:
        await chat.ask(ChatRequest("gpt-4o-mini", "s", "bad \ud800 text", 10))
    assert named.value.reason == "not_unicode"
    assert fake_openai.world.requests == 0


@pytest.mark.parametrize("line", [f[1] for f in FAULTS], ids=[f[0] for f in FAULTS])
async def test_neither_key_nor_text_is_in_any_log_or_traceback(
    fake_openai: FakeOpenAI, line: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every logger at DEBUG and the whole chain of exceptions printed, for each fault."""
    monkeypatch.setenv("OPENAI_LOG", "debug")
    caplog.set_level(logging.DEBUG)
    provider = OpenAIChat(KEY, fake_openai.url, timeout_s=0.2)
    fake_openai.script(line)
    with pytest.raises(CatchupError) as failed:
        await provider.ask(request())
    await provider.close()
    said = "".join(traceback.format_exception(failed.value, chain=True)) + caplog.text
    said += repr([failed.value, failed.value.__cause__, failed.value.__context__, vars(failed.value)]) + repr(provider)
    assert "s3ntinel" not in said
    assert "sentinel:" not in said


async def test_a_server_that_echoes_the_text_is_not_quoted(chat: Chat, fake_openai: FakeOpenAI) -> None:
    """A 400 that repeats the transcript must not carry it into the log."""
    fake_openai.script(rule("status", status=400, body={"error": {"message": f"bad input: {PROMPT}"}}))
    with pytest.raises(ItemPermanent) as named:
        await chat.ask(request())
    assert "sentinel" not in repr(vars(named.value))


async def test_an_environment_cannot_replace_the_key(fake_openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_CUSTOM_HEADERS and OPENAI_BASE_URL are read by the SDK; what the operator configured stands above them."""
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer other")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    provider = OpenAIChat(KEY, fake_openai.url)
    await provider.ask(request())
    await provider.close()
    assert [headers["authorization"] for _, headers in fake_openai.seen] == [f"Bearer {KEY}"]


async def test_a_proxy_of_the_environment_never_sees_a_plain_request(
    fake_openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over http to loopback a proxy would read the key; it is not asked."""
    async with FakeOpenAI() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        provider = OpenAIChat(KEY, fake_openai.url)
        await provider.ask(request())
        await provider.close()
        assert (fake_openai.world.requests, proxy.world.requests, proxy.seen) == (1, 0, [])


ALLOWED: list[tuple[str, str, tuple[str, ...]]] = [
    ("https://api.openai.com/v1", KEY, ()),
    ("https://API.openai.com/v1/", KEY, ()),
    ("http://127.0.0.1:11434/v1", KEY, ()),
    ("http://localhost:8000/v1", "none", ()),
    ("http://[::1]:8000/v1", "none", ()),
    ("https://llm.example/v1", KEY, ("llm.example",)),
    ("http://llm.lan:8000/v1", "local", ("LLM.lan",)),
]


@pytest.mark.parametrize(("url", "key", "hosts"), ALLOWED, ids=[a[0] for a in ALLOWED])
def test_where_a_key_may_go(url: str, key: str, hosts: tuple[str, ...]) -> None:
    """The provider's own host, loopback, and hosts allowed by name."""
    assert check_base_url(url, key, hosts) == url.rstrip("/")


REFUSED: list[tuple[str, str, tuple[str, ...]]] = [
    ("http://api.openai.com/v1", KEY, ()),
    ("http://api.openai.com/v1", "x", ("api.openai.com",)),
    ("https://evil.example/v1", KEY, ()),
    ("https://api.openai.com.evil.example/v1", KEY, ()),
    ("https://api.openai.com@evil.example/v1", KEY, ()),
    ("https://user:pw@api.openai.com/v1", KEY, ()),
    ("http://169.254.169.254/latest", KEY, ()),
    ("http://llm.lan:8000/v1", "local", ()),
    ("http://llm.lan:8000/v1", KEY, ("llm.lan",)),
    ("http://127.0.0.1.evil.example/v1", KEY, ()),
    ("http://2130706433/v1", KEY, ()),
    ("ftp://api.openai.com/v1", KEY, ()),
    ("file:///etc/passwd", KEY, ()),
    ("api.openai.com/v1", KEY, ()),
    ("https://api.openai.com/v1?x=1", KEY, ()),
    ("https://api.openai.com/v1#x", KEY, ()),
    ("https://api.openai.com:99999/v1", KEY, ()),
    ("https://[::1/v1", KEY, ()),
    ("https:///v1", KEY, ()),
    ("https://", KEY, ()),
]


@pytest.mark.parametrize(("url", "key", "hosts"), REFUSED, ids=[f"{r[0]}-{r[1][:2]}" for r in REFUSED])
def test_where_a_key_may_not_go(url: str, key: str, hosts: tuple[str, ...]) -> None:
    """Refused before a client exists, so not a byte is sent."""
    with pytest.raises(Misconfigured) as refused:
        OpenAIChat(key, url, allow_hosts=hosts)
    assert refused.value.fix
    assert key not in refused.value.what or key in ("x", "local")


async def test_many_asks_at_once_are_all_open_at_once(fake_openai: FakeOpenAI) -> None:
    """No hidden pool: the engine alone decides how many requests are in flight."""
    fake_openai.configure(latency=1.0)
    chat = OpenAIChat(KEY, fake_openai.url, timeout_s=30.0)
    await asyncio.gather(*(chat.ask(request(str(n))) for n in range(150)))
    await chat.close()
    assert fake_openai.world.max_open == 150
    assert fake_openai.world.paid.total() == 150


async def test_an_ask_that_is_cancelled_leaves_nothing_behind(fake_openai: FakeOpenAI, chat: Chat) -> None:
    """A run that stops abandons its calls: cancellation passes through unchanged and the client stays usable."""
    fake_openai.script(rule("hang", on={"times": 1}))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(chat.ask(request("cancelled")), 0.1)
    assert fake_openai.world.paid == {"cancelled": 1}
    assert (await chat.ask(request("next"))).text
