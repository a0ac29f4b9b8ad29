"""The fake upstream enforces what it says, or every test on top of it proves nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from tests.servers.fake_limits import Meter, say_duration
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.fake_process import FakeProcess
from tests.servers.fake_script import REFUSALS, Meeting, Rule, rule
from tests.servers.fake_sentences import write_sentence


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def send(
    web: aiohttp.ClientSession, fake: FakeOpenAI | FakeProcess, item: str, **more: Any
) -> tuple[int, Any, Any]:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"[[item:{item}]] talk about compilers"}]}
    async with web.post(f"{fake.url}/chat/completions", json=body | {"max_completion_tokens": 100} | more) as answer:
        text = await answer.text()
        is_json = answer.content_type == "application/json"
        return answer.status, json.loads(text) if is_json else text, answer.headers


@pytest.mark.parametrize("fixed", [False, True], ids=["bucket", "fixed-windows"])
def test_a_meter_admits_its_rate_and_no_more(fixed: bool) -> None:
    """Over a minute of greedy asking exactly the limit (and one window's burst) gets through."""
    clock = Clock()
    meter = Meter(600, 1.0, fixed=fixed, clock=clock)
    admitted = 0
    for _ in range(60_000):
        clock.now += 0.001
        if meter.wait_s(1) == 0:
            meter.take(1)
            admitted += 1
    assert 600 <= admitted <= 610


@pytest.mark.parametrize("fixed", [False, True], ids=["bucket", "fixed-windows"])
def test_a_wait_it_names_is_enough(fixed: bool) -> None:
    """Waiting as long as told is admitted; a hair less is not."""
    clock = Clock()
    meter = Meter(600, 1.0, fixed=fixed, clock=clock)
    meter.take(10)
    wait_s = meter.wait_s(3)
    clock.now += wait_s * 0.99
    assert meter.wait_s(3) > 0
    clock.now += wait_s * 0.011
    assert meter.wait_s(3) == 0


def test_more_than_a_window_goes_into_debt() -> None:
    """A request larger than a second's share is admitted and paid off by the seconds after it."""
    clock = Clock()
    meter = Meter(600, 1.0, clock=clock)
    assert meter.wait_s(50) == 0
    meter.take(50)
    assert meter.wait_s(1) == pytest.approx(4.1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.012, "12ms"), (1.5, "1.5s"), (1, "1s"), (360, "6m0s"), (3720, "1h2m0s"), (0, "0ms")]
)
def test_durations_are_written_as_the_service_writes_them(seconds: float, text: str) -> None:
    """Reset headers use Go's form."""
    assert say_duration(seconds) == text


async def test_requests_over_the_limit_are_refused_and_not_billed(
    fake_openai: FakeOpenAI, web: aiohttp.ClientSession
) -> None:
    """60 a minute on one-second windows admit one at once; the second is a 429 that says how long to wait."""
    fake_openai.configure(rpm=60)
    first, second = await send(web, fake_openai, "a"), await send(web, fake_openai, "b")
    assert (first[0], second[0]) == (200, 429)
    assert second[1]["error"]["code"] == "rate_limit_exceeded"
    assert "Please try again in" in second[1]["error"]["message"]
    assert int(second[2]["retry-after-ms"]) <= 1000
    assert fake_openai.world.paid == {"a": 1}
    assert fake_openai.world.refused == 1


async def test_tokens_are_limited_and_counted_by_its_own_factor(
    fake_openai: FakeOpenAI, web: aiohttp.ClientSession
) -> None:
    """The same prompt costs 15 % more tokens when the service counts that way."""
    _, plain, _ = await send(web, fake_openai, "x" * 4000)
    fake_openai.configure(count_factor=1.15, tpm=1_000)
    status, body, _ = await send(web, fake_openai, "x" * 4000)
    assert plain["usage"]["prompt_tokens"] == 1008
    assert status == 429
    assert "Requested 1259" in body["error"]["message"]
    assert "Request too large" in body["error"]["message"]


@pytest.mark.parametrize(("told", "remaining"), [("window", "9"), ("minute", "599"), ("off", None)])
async def test_headers_tell_what_is_left(
    fake_openai: FakeOpenAI, web: aiohttp.ClientSession, told: str, remaining: str | None
) -> None:
    """On every 200: of the window, of the minute, or nothing at all."""
    fake_openai.configure(rpm=600, headers=told)
    _, _, headers = await send(web, fake_openai, "a")
    assert headers.get("x-ratelimit-remaining-requests") == remaining
    assert headers.get("x-ratelimit-limit-requests") == (None if told == "off" else "600")


async def test_a_hung_call_is_billed_on_arrival(fake_openai: FakeOpenAI, web: aiohttp.ClientSession) -> None:
    """The client that gives up has paid all the same, and is no longer open."""
    fake_openai.script(rule("hang"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(send(web, fake_openai, "a"), 0.05)
    for _ in range(100):
        if not fake_openai.world.open:
            break
        await asyncio.sleep(0.005)
    assert fake_openai.world.paid == {"a": 1}
    assert (fake_openai.world.open, fake_openai.world.max_open) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "billed"), [("reset", 1), ("reset_before", 0), ("half_body", 1), ("malformed", 1), ("status", 0)]
)
async def test_what_is_billed(fake_openai: FakeOpenAI, web: aiohttp.ClientSession, kind: str, billed: int) -> None:
    """A connection cut after the work is paid, before it is not; nor is a plain error."""
    fake_openai.script(rule(kind, status=500))
    try:
        await send(web, fake_openai, "a")
    except (aiohttp.ClientError, ValueError):
        assert kind != "status"
    assert fake_openai.world.paid.total() == billed


@pytest.mark.parametrize("name", sorted(REFUSALS))
async def test_refusals_speak_the_service_s_words(
    fake_openai: FakeOpenAI, web: aiohttp.ClientSession, name: str
) -> None:
    """Each named refusal has its status and an error object, and bills nothing."""
    fake_openai.script(rule(name))
    status, body, _ = await send(web, fake_openai, "a")
    assert status == REFUSALS[name][0]
    assert body["error"]["message"]
    assert fake_openai.world.bill_usd == 0


MATCHES: list[tuple[str, dict[str, Any], list[int]]] = [
    ("nth", {"nth": 3}, [3]),
    ("nth-many", {"nth": [1, 4]}, [1, 4]),
    ("every", {"every": 2}, [2, 4, 6]),
    ("after", {"after": 4}, [5, 6]),
    ("until", {"until": 2}, [1, 2]),
    ("after-until", {"after": 1, "until": 3}, [2, 3]),
    ("times", {"times": 2}, [1, 2]),
    ("item", {"item": "^b$"}, [4, 5, 6]),
    ("attempts", {"attempts": 1}, [1, 4]),
    ("items-after", {"items_after": 1}, [4, 5, 6]),
    ("all-of-them", {"every": 2, "item": "b", "times": 1}, [4]),
]


@pytest.mark.parametrize(("match", "met"), [m[1:] for m in MATCHES], ids=[m[0] for m in MATCHES])
def test_a_rule_meets_what_its_match_says(match: dict[str, Any], met: list[int]) -> None:
    """Six requests: item a three times, then item b three times."""
    each = Rule(match, {"kind": "status"})
    meetings = [Meeting(n, "ab"[n > 3], (n - 1) % 3 + 1, 1 + (n > 3)) for n in range(1, 7)]
    assert [m.number for m in meetings if each.meets(1, m)] == met


def test_a_share_is_drawn_by_item_and_attempt_not_by_order() -> None:
    """The same seed spoils the same items however requests interleave."""
    one = {i for i in range(2000) if Rule({"share": 0.2}, {"kind": "x"}).meets(7, Meeting(i + 1, str(i), 1, i + 1))}
    two = {i for i in reversed(range(2000)) if Rule({"share": 0.2}, {"kind": "x"}).meets(7, Meeting(1, str(i), 1, 1))}
    assert one == two
    assert 320 < len(one) < 480


def test_a_match_nobody_knows_is_refused() -> None:
    """A misspelt rule must not quietly meet everything."""
    with pytest.raises(ValueError, match="not understood"):
        Rule({"evry": 2}, {"kind": "status"})


def test_answers_follow_from_the_input() -> None:
    """The same input, the same sentence; another input or, on request, another telling, another one."""
    assert write_sentence("compilers and parsers", 0) == write_sentence("compilers and parsers", 0)
    texts = {write_sentence(f"talk about subject {n} and compilers, databases, networks", 0) for n in range(50)}
    assert len(texts) > 40
    assert write_sentence("compilers", 1) != write_sentence("compilers", 2)


async def test_answers_vary_by_attempt_when_asked_to(fake_openai: FakeOpenAI, web: aiohttp.ClientSession) -> None:
    """With vary, an item asked twice gets two texts, and the world counts it paid twice."""
    fake_openai.configure(vary=True)
    texts = [(await send(web, fake_openai, "a"))[1]["choices"][0]["message"]["content"] for _ in range(2)]
    assert texts[0] != texts[1]
    assert fake_openai.world.stats()["paid_twice"] == 1


async def test_another_process_reads_the_bill_and_writes_the_script(
    fake_openai_process: Callable[..., FakeProcess], web: aiohttp.ClientSession
) -> None:
    """Over /__fake/: script, stats with log, settings, reset."""
    fake = await asyncio.to_thread(fake_openai_process, rpm=600, seed=5)
    await asyncio.to_thread(fake.script, rule("status", on={"nth": 2}, status=503))
    statuses = [(await send(web, fake, name))[0] for name in "abc"]
    stats = await asyncio.to_thread(lambda: fake.stats(log=True))
    assert statuses == [200, 503, 200]
    assert stats["paid"] == {"a": 1, "c": 1}
    assert [(item, status) for _, item, status in stats["log"]] == [("a", 200), ("b", 503), ("c", 200)]
    assert stats["seed"] == 5
    assert stats["bill_usd"] > 0
    await asyncio.to_thread(fake.configure, rpm=60)
    await asyncio.to_thread(fake.reset)
    assert (await asyncio.to_thread(fake.stats))["requests"] == 0
    assert [(await send(web, fake, name))[0] for name in "ab"] == [200, 429]
