"""The two roads of upserts: the first request chooses, REST does what gRPC cannot, and neither loses or lies."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
import threading
from typing import Any

import pytest

from queries.errors import (
    CatchupError,
    DataRejected,
    Misconfigured,
    OutOfMoney,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.pinecone_grpc import classify_call
from queries.pinecone_space import PineconeSpace
from queries.vectors import VectorRecord
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.fake_pinecone_grpc import UPSERT
from tests.servers.fake_process import ROOT
from tests.servers.fake_script import rule

KEY = "pcsk_s3ntinel_0123456789abcdef"


def open_space(fake: FakePinecone, **changes: Any) -> PineconeSpace:
    given = {"index_host": fake.url, "index": "videos", "namespace": "ns", "timeout_s": 2.0}
    return PineconeSpace(KEY, **{**given, **changes})


def records(count: int, start: int = 0) -> list[VectorRecord]:
    return [VectorRecord(f"v{n:05}", struct.pack("<8f", *[1.0 + n] * 8), {"n": n}) for n in range(start, start + count)]


def upserts_by_road(fake: FakePinecone) -> tuple[int, int]:
    return fake.grpc_upserts, fake.requests["upsert"] - fake.grpc_upserts


async def test_an_index_that_speaks_grpc_is_asked_over_grpc(fake_pinecone: FakePinecone) -> None:
    """From the first request on, with the key and the version of the API where REST has them."""
    space = open_space(fake_pinecone)
    await space.put(records(1))
    await space.put(records(2_500))
    assert upserts_by_road(fake_pinecone) == (4, 0)
    await space.facts()
    (path, headers), (_, by_rest) = fake_pinecone.seen[0], fake_pinecone.seen[-1]
    assert (path, headers["api-key"]) == (UPSERT, KEY)
    assert headers["x-pinecone-api-version"] == by_rest["x-pinecone-api-version"]
    assert sorted(fake_pinecone.vectors("ns")) == [each.id for each in records(2_500)]
    assert not space.note
    await space.close()


@pytest.mark.parametrize("why", ["http/1.1 only", "mute", "a path", "switched off", "no package"])
async def test_where_grpc_does_not_work_it_is_rest_from_then_on(
    fake_pinecone: FakePinecone, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """The first put succeeds all the same, and nobody asks for gRPC again when it comes later."""
    changes: dict[str, Any] = {}
    match why:
        case "http/1.1 only":
            fake_pinecone.configure(grpc="off")
        case "mute":
            fake_pinecone.configure(grpc="mute")
            monkeypatch.setattr("queries.pinecone_upserts.TRY_S", 0.2)
        case "a path":
            changes = {"index_host": f"{fake_pinecone.url}/i/videos"}
        case "switched off":
            changes = {"over_grpc": False}
        case "no package":
            monkeypatch.setitem(sys.modules, "grpc.aio", None)
    space = open_space(fake_pinecone, **changes)
    await space.put(records(2_500))
    monkeypatch.undo()
    fake_pinecone.configure(grpc="on")
    await space.put(records(10, start=2_500))
    assert upserts_by_road(fake_pinecone) == (0, 4)
    assert ("PINECONE_GRPC=off" in space.note) == (why not in ("a path", "switched off"))
    assert fake_pinecone.records_written == 2_510
    assert sorted(fake_pinecone.vectors("ns")) == [each.id for each in records(2_510)]
    await space.close()


FIRST = {"item": "upsert", "nth": 1}


@pytest.mark.parametrize(
    "fault",
    [
        rule("status", on=FIRST, status=501),
        rule("status", on=FIRST, status=401, body="Invalid API Key"),
        rule("status", on=FIRST, status=400, body={"code": 3, "message": "no"}),
        rule("status", on=FIRST, status=403, body="<html>Forbidden</html>"),
        rule("redirect", on=FIRST, location="http://evil.example/"),
        rule("month", on=FIRST),
        rule("malformed", on=FIRST, body=""),
        rule("malformed", on=FIRST, body="<html>Log in</html>"),
        rule("malformed", on=FIRST, body="x" * 100_000),
        rule("partial", on=FIRST, short=1),
        rule("reset_before", on=FIRST),
        rule("half_body", on=FIRST),
    ],
    ids=lambda fault: f"{fault['action']['kind']}-{fault['action'].get('status', '')}",
)
async def test_whatever_keeps_grpc_from_working_at_first_costs_one_request(
    fake_pinecone: FakePinecone, fault: dict[str, Any]
) -> None:
    """The same records go over REST at once; it is that road which counts, and which is kept."""
    fake_pinecone.script(fault)
    space = open_space(fake_pinecone)
    await space.put(records(10))
    await space.put(records(10))
    assert fake_pinecone.requests["upsert"] == 3
    assert fake_pinecone.grpc_upserts <= 1
    assert len(await space.seen([each.id for each in records(10)])) == 10
    await space.close()


async def test_grpc_that_does_not_tell_the_place_in_the_log_is_left(fake_pinecone: FakePinecone) -> None:
    """Each vector would have to be fetched back to be seen; the record it took is stored again over REST."""
    fake_pinecone.configure(lsn="off")
    space = open_space(fake_pinecone)
    await space.put(records(1))
    fake_pinecone.configure(lsn="on")
    await space.put(records(2_500))
    assert upserts_by_road(fake_pinecone) == (1, 4)
    assert "does not tell the place" in space.note
    assert len(await space.seen([each.id for each in records(2_500)])) == 2_500
    assert (fake_pinecone.requests["query"], fake_pinecone.requests["fetch"]) == (1, 1)
    await space.close()


async def test_a_wait_that_grpc_asks_for_is_kept_on_both_roads(fake_pinecone: FakePinecone) -> None:
    """A 429 shows that gRPC is spoken: nobody comes by REST instead, and the next request is gRPC again."""
    fake_pinecone.script(rule("throttle", on=FIRST, retry_after=7))
    space = open_space(fake_pinecone)
    with pytest.raises(Throttle) as caught:
        await space.put(records(1))
    assert caught.value.retry_after_s == 7.0
    assert fake_pinecone.requests["upsert"] == 1
    await space.put(records(1))
    assert upserts_by_road(fake_pinecone) == (2, 0)
    await space.close()


async def test_when_both_roads_fail_what_rest_says_counts_and_nothing_is_chosen(fake_pinecone: FakePinecone) -> None:
    """An outage at the very beginning does not put the whole run on the slower road."""
    fake_pinecone.script(
        rule("status", on={"item": "upsert", "nth": 1}, status=503), rule("month", on={"item": "upsert", "nth": 2})
    )
    space = open_space(fake_pinecone)
    with pytest.raises(OutOfMoney):
        await space.put(records(1))
    fake_pinecone.reset()
    fake_pinecone.script()
    await space.put(records(1))
    assert upserts_by_road(fake_pinecone) == (1, 0)
    await space.close()
    closed = open_space(fake_pinecone, index_host="http://127.0.0.1:1")
    with pytest.raises(Unreachable):
        await closed.put(records(1))
    await closed.close()


async def test_once_grpc_has_worked_its_failures_are_failures() -> None:
    """Not even a server that comes back without it is asked over REST: no run changes its road in the middle."""
    async with FakePinecone() as fake:
        space = open_space(fake)
        await space.put(records(1))
        fake.script(rule("status", status=501))
        with pytest.raises(Transient):
            await space.put(records(1))
        assert fake.requests["upsert"] == 2
        port = fake.port
    with pytest.raises(CatchupError):  # the first to notice that the connection is gone
        await space.put(records(1))
    async with FakePinecone(port=port, grpc="off") as fake:
        with pytest.raises((Unreachable, UnknownOutcome)):
            await space.put(records(1))
        assert not fake.requests
    await space.close()


async def test_several_puts_at_the_beginning_choose_once(fake_pinecone: FakePinecone) -> None:
    """Three of them at once, and a first request of many records: each is sent once."""
    fake_pinecone.configure(grpc="off", latency=0.01)
    space = open_space(fake_pinecone)
    await asyncio.gather(*(space.put(records(1_500, start=n * 1_500)) for n in range(3)))
    assert len(fake_pinecone.vectors("ns")) == fake_pinecone.records_written == 4_500
    await space.close()


async def test_a_choice_that_is_cancelled_leaves_nothing_open(fake_pinecone: FakePinecone) -> None:
    """Ctrl-C in the first second; the next put chooses anew."""
    fake_pinecone.script(rule("ignore", on={"item": "upsert", "times": 1}))
    space = open_space(fake_pinecone)
    putting = asyncio.create_task(space.put(records(1)))
    while not fake_pinecone.rules[0].used:
        await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    await space.put(records(1))
    assert upserts_by_road(fake_pinecone) == (2, 0)
    await space.close()


async def test_the_key_of_a_tls_address_never_travels_in_the_clear(
    fake_pinecone: FakePinecone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither to a server that speaks no TLS, nor to a proxy that the environment names."""
    async with FakePinecone() as proxy:
        for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        space = open_space(fake_pinecone, index_host=fake_pinecone.url.replace("http:", "https:"))
        with pytest.raises(CatchupError):
            await space.put(records(1))
        await space.close()
        plain = open_space(fake_pinecone)
        await plain.put(records(1))
        await plain.close()
        assert not proxy.seen
    assert len(fake_pinecone.seen) == 1


async def test_opening_and_closing_leaves_neither_sockets_nor_threads(fake_pinecone: FakePinecone) -> None:
    """Forty spaces one after another, half of them where gRPC does not work."""

    async def use(grpc: str) -> None:
        fake_pinecone.configure(grpc=grpc)
        space = open_space(fake_pinecone)
        await space.put(records(1))
        await space.close()

    for grpc in ("on", "off"):
        await use(grpc)
    before, few = count_open_files(), 10  # the C core ends with its last channel, or a moment later: threads and all
    for _ in range(20):
        for grpc in ("on", "off"):
            await use(grpc)
    assert count_open_files() < before + few
    assert threading.active_count() < few
    assert len(asyncio.all_tasks()) < few


def count_open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


NOISY = """
import asyncio, sys
from queries.pinecone_space import PineconeSpace
from queries.vectors import VectorRecord

async def main(urls, closes):
    for url in urls:
        space = PineconeSpace("pcsk_test", index_host=url, index="videos", namespace="ns", timeout_s=0.5)
        for wait in (5.0, 0.05):
            try:
                async with asyncio.timeout(wait):
                    await space.put([VectorRecord("a", bytes([0, 0, 128, 63] * 8), {})])
            except Exception as error:
                print(type(error).__name__)
        if closes:
            await space.close()

asyncio.run(main(sys.argv[2:], sys.argv[1] == "closes"))
"""


@pytest.mark.parametrize("closes", ["closes", "leaves"])
async def test_nothing_is_ever_written_to_stderr(closes: str) -> None:
    """Whatever the C core and its loop meet: no server, no HTTP/2, silence, resets, a cancelled call, no close."""
    async with FakePinecone() as well, FakePinecone(grpc="off") as old, FakePinecone() as ill, FakePinecone() as slow:
        ill.script(rule("reset", on={"every": 1}))
        slow.script(rule("ignore", on={"after": 1}))
        urls = [well.url, old.url, ill.url, slow.url, "http://127.0.0.1:1", "https://127.0.0.1:1"]
        command = [sys.executable, "-c", NOISY, closes, *urls]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
        ended = await asyncio.to_thread(
            subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "TimeoutError" in ended.stdout


RESET = "Stream removed (recvmsg:Connection reset by peer (104))"
REFUSED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused"
OURS = "Stream removed (CLIENT: Received message larger than max (100000 vs. 65536))"


@pytest.mark.parametrize(
    ("code", "words", "becomes"),
    [
        ("UNAVAILABLE", REFUSED, Unreachable),
        ("UNAVAILABLE", "errors resolving nohost.invalid:80: Domain name not found", Unreachable),
        ("UNAVAILABLE", RESET, UnknownOutcome),
        ("UNAVAILABLE", "busy", Transient),
        ("UNAVAILABLE", "Received http2 header with status: 429", Throttle),
        ("UNAVAILABLE", "Received http2 header with status: 504", UnknownOutcome),
        ("UNKNOWN", "Received http2 header with status: 307", Misconfigured),
        ("UNKNOWN", "", Transient),
        ("INTERNAL", "", Transient),
        ("DATA_LOSS", "", Transient),
        ("ABORTED", "", Transient),
        ("CANCELLED", "", Transient),
        ("UNIMPLEMENTED", "", Transient),
        ("DEADLINE_EXCEEDED", "Stream removed (Deadline Exceeded)", UnknownOutcome),
        ("RESOURCE_EXHAUSTED", "Pace your upserts.", Throttle),
        ("RESOURCE_EXHAUSTED", "You've reached your write unit limit for the current month", OutOfMoney),
        ("RESOURCE_EXHAUSTED", OURS, Transient),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (2097153 vs. 2097152)", DataRejected),
        ("OUT_OF_RANGE", "Error, message length too large: found 2197152 bytes", DataRejected),
        ("INVALID_ARGUMENT", "Vector ID must be ASCII", DataRejected),
        ("INVALID_ARGUMENT", "Vector dimension 4 does not match the dimension of the index 8", Misconfigured),
        ("FAILED_PRECONDITION", "no", DataRejected),
        ("NOT_FOUND", "Resource videos not found", Misconfigured),
        ("ALREADY_EXISTS", "", Transient),
        ("PERMISSION_DENIED", f"not with {KEY}", Misconfigured),
        ("UNAUTHENTICATED", f"Invalid API Key {KEY}", Misconfigured),
        ("A_CODE_OF_NEXT_YEAR", "\ud800", Transient),
    ],
)
def test_a_status_is_one_class_of_error(code: str, words: str, becomes: type[CatchupError]) -> None:
    """The same rules on words as over REST; what was never sent is an outage, what was cut off is in doubt."""
    error = classify_call(code, words, {}, key=KEY)
    assert type(error) is becomes, (type(error), error.what)
    assert "s3ntinel" not in str(vars(error))


async def test_a_pushback_is_a_told_wait(fake_pinecone: FakePinecone) -> None:
    """gRPC's own way to say Retry-After."""
    space = open_space(fake_pinecone)
    await space.put(records(1))
    fake_pinecone.script(rule("status", status=429, body="slow", headers={"grpc-retry-pushback-ms": "2500"}))
    with pytest.raises(Throttle) as caught:
        await space.put(records(1))
    assert caught.value.retry_after_s == 2.5
    await space.close()
