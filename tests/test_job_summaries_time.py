"""backfill-summaries when time or the network plays tricks: F9, F11, F12 and the waits a server asks for (G14)."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

import pytest

from jobs.engine import lease
from jobs.engine.clock import Clock
from jobs.engine.verdict import Exit
from queries.ledger import Ceilings
from queries.postgrest import PostgrestRoad
from tests.servers.bench import Bench
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.fake_script import rule
from tests.servers.fault_proxy import Fault, FaultProxy, Request, StartFaultProxy
from tests.servers.impaired import SHORT_LEASE, Impaired
from tests.servers.lite import StartPostgrest
from tests.servers.virtual_clock import FastClock

MAD_CLOCK = (
    "import itertools, time\n"
    "right, jumps = time.time, itertools.cycle([86400, -86400, 0, 3600, -3600])\n"
    "time.time = lambda: right() + next(jumps)\n"
)


DAY = 1_790_000_000


class JumpingClock(Clock):
    """Monotonic time goes on while the machine sleeps: nobody slept through `jumped_s`."""

    jumped_s = 0.0

    def now(self) -> float:
        return super().now() + self.jumped_s


class Stamped(list[Request]):
    """Requests with the moment of their arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[tuple[float, str]] = []

    def append(self, request: Request) -> None:
        self.at.append((time.monotonic(), request.path))
        super().append(request)


@pytest.fixture
async def proxied(
    bench: Bench, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy
) -> tuple[Bench, FaultProxy, Any]:
    """The PostgREST road with a proxy on it that can take the network away."""
    server = await start_postgrest(bench.database)
    proxy = await start_fault_proxy(server.url)
    return bench, proxy, lambda: PostgrestRoad(proxy.url, server.secret_key)


Proxied = tuple[Bench, FaultProxy, Any]


async def until(bench: Bench, calls: int) -> None:
    async with asyncio.timeout(30):
        while bench.fake.world.requests < calls:
            await asyncio.sleep(0.005)  # the fake counts and tells nobody


@pytest.mark.parametrize(
    ("first", "zone"),
    [(MAD_CLOCK, "UTC"), ("", "America/New_York"), (MAD_CLOCK, "Pacific/Apia")],
    ids=["+-1 day at every look", "DST zone", "both, far away"],
)
async def test_f9_a_wall_clock_that_jumps_changes_nothing(
    impaired: Impaired, bench: Bench, first: str, zone: str
) -> None:
    """Intervals are monotonic and windows are the database's: same rows, same money, and no wait for tomorrow."""
    await bench.fill(30)
    ended = await impaired.run(first, "--max-cost", "1", TZ=zone, CATCHUP_MAX_COST_DAY="1")
    assert ended.code == 0, ended.out + ended.err
    assert all((await bench.cells()).values())
    assert set(bench.paid().values()) == {1}
    assert await bench.database.run("select count(*) from catchup.budget where scope = 'day'") == [(1,)]


@pytest.mark.parametrize(("scope", "ahead"), [("hour", "1 hour"), ("day", "1 day")])
async def test_f9_a_ceiling_window_never_goes_back(bench: Bench, scope: str, ahead: str) -> None:
    """The clock was ahead when the money was spent; set right, it opens no second budget."""
    await bench.fill(5)
    await bench.database.run(
        f"insert into catchup.budget values ('{scope}', date_trunc('{scope}', now()) + interval '{ahead}', 0.5)"
    )
    verdict = await bench.run(ceilings=Ceilings(**{f"{scope}_usd": 0.5}))
    assert (verdict.exit, verdict.calls, bench.fake.world.requests) == (Exit.CEILING, 0, 0)
    assert scope in verdict.headline


async def test_f9_after_sleep_nothing_is_paid_before_the_lease_is_confirmed_and_nothing_bursts(
    proxied: Proxied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ninety seconds gone in a moment: silence until a beat is answered, then the old pace and not one burst."""
    monkeypatch.setattr(lease, "BEAT_S", 0.2)
    bench, proxy, road = proxied
    bench.fake.configure(rpm=2400, latency=0.02)
    await bench.fill(160)
    clock = JumpingClock()

    async def sleep() -> tuple[int, int]:
        await until(bench, 60)
        proxy.inject(Fault("catchup_beat", "reset", times=10_000))
        clock.jumped_s = 90.0
        await asyncio.sleep(0.3)
        before = bench.fake.world.requests
        await asyncio.sleep(1.2)
        after = bench.fake.world.requests
        proxy.clear()
        return before, after

    verdict, (before, after) = await asyncio.gather(bench.run(road=road(), clock=clock, concurrency=20), sleep())
    assert before == after < 100
    assert (verdict.exit, verdict.books.wrote, set(bench.paid().values())) == (Exit.DONE, 160, {1})
    times = sorted(at for at, _, _ in bench.fake.world.log)
    busiest = max(sum(1 for other in times if at <= other < at + 1.0) for at in times)
    assert busiest <= 2400 / 60 * 1.3, f"{busiest} answers in one second"


async def test_f9_a_stopped_and_continued_process_goes_on(impaired: Impaired, bench: Bench) -> None:
    """SIGSTOP for longer than a (short) lease, SIGCONT: nobody took over, so it asks for its lease and finishes."""
    bench.fake.configure(latency=0.05)
    await bench.fill(80)
    child = await impaired.start(SHORT_LEASE, "--concurrency", "4")
    await until(bench, 20)
    child.send_signal(19)
    await asyncio.sleep(0.2)
    before = bench.fake.world.requests
    await asyncio.sleep(2.5)
    assert bench.fake.world.requests == before
    child.send_signal(18)
    out, err = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 0, out + err
    assert all((await bench.cells()).values())
    assert sum(bench.paid().values()) - 80 <= 4, "more than was in flight when it slept"


async def close_port(fake: FakeOpenAI) -> None:
    await fake.__aexit__()


@pytest.mark.parametrize("what", ["provider", "database", "both"])
async def test_f11_five_minutes_without_network_fail_no_row(proxied: Proxied, what: str) -> None:
    """At a hundred times the speed: everything waits, comes back, and is done; not one row is blamed."""
    bench, proxy, road = proxied
    bench.fake.configure(latency=0.02)
    await bench.fill(150)

    async def unplug() -> None:
        await until(bench, 40)
        if what != "provider":
            proxy.inject(Fault("/", "reset", times=1_000_000))
        if what != "database":
            await close_port(bench.fake)
        await asyncio.sleep(300 / FastClock.speed)
        proxy.clear()
        if what != "database":
            await bench.fake.__aenter__()

    verdict, _ = await asyncio.gather(
        bench.run(road=road(), clock=FastClock(), concurrency=8, max_outage_s=900.0), unplug()
    )
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.failed)) == (Exit.DONE, 150, {}), verdict.headline
    assert sum(bench.paid().values()) - 150 <= 8, "more than was out when the cable was pulled"


async def test_f11_an_outage_longer_than_allowed_stops_with_exit_4_and_is_resumed(bench: Bench) -> None:
    """--max-outage: no row is blamed, and the same command goes on when the network is back."""
    bench.fake.configure(latency=0.02)
    await bench.fill(120)

    async def unplug() -> None:
        await until(bench, 40)
        await close_port(bench.fake)

    verdict, _ = await asyncio.gather(bench.run(clock=FastClock(), concurrency=8, max_outage_s=60.0), unplug())
    assert (verdict.exit, dict(verdict.books.failed)) == (Exit.STOPPED, {}), verdict.headline
    assert verdict.books.balance()
    await bench.fake.__aenter__()
    assert (await bench.run()).exit is Exit.DONE
    assert all((await bench.cells()).values())


async def test_f12_sockets_that_hang_for_a_while_are_waited_out(bench: Bench) -> None:
    """Twelve calls in a row accepted and never answered; then all is well, and every row is done."""
    await bench.fill(60)
    bench.fake.script(rule("hang", on={"after": 20, "until": 32}))
    verdict = await bench.run(timeout_s=0.3, clock=FastClock(), max_outage_s=900.0, concurrency=8)
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.failed)) == (Exit.DONE, 60, {}), verdict.headline
    assert verdict.money.possibly_usd > 0


@pytest.mark.parametrize(
    ("wait_s", "headers", "message"),
    [
        (0.7, {"retry-after-ms": "700"}, "slow down"),
        (1.0, {"retry-after": "1"}, "slow down"),
        (1.0, {"retry-after": "1", "retry-after-ms": "10"}, "slow down"),
        (0.8, {"retry-after": "soon"}, "Please try again in 800ms."),
        (1.0, {"retry-after": "soon", "retry-after-ms": "-5"}, "slow down"),
        (2.0, {"date": formatdate(DAY, usegmt=True), "retry-after": formatdate(DAY + 2, usegmt=True)}, ""),
    ],
    ids=["ms", "seconds", "the longer of two", "in words", "garbage", "date"],
)  # fmt: skip
async def test_g14_a_wait_the_provider_asks_for_is_never_shortened(
    bench: Bench, wait_s: float, headers: dict[str, str], message: str
) -> None:
    """Measured at the server: between the refusal and the next arrival lies at least what was asked for."""
    await bench.fill(12)
    body = {"error": {"message": message, "type": "requests", "code": "rate_limit_exceeded"}}
    bench.fake.script(rule("status", on={"nth": 4}, status=429, body=body, headers=headers))
    verdict = await bench.run(concurrency=1)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 12)
    left = {status: at for at, _, status in bench.fake.world.log if status == 429}
    following = min(at for at, _, _ in bench.fake.world.log if at > left[429])
    print(f"asked for {wait_s:.3f} s, waited {following - left[429]:.3f} s")
    assert following - left[429] >= wait_s


async def test_g14_a_wait_the_database_asks_for_is_never_shortened(proxied: Proxied) -> None:
    """Retry-After: 2 on a write; the same write comes back two seconds later, not sooner."""
    bench, proxy, road = proxied
    proxy.requests = stamped = Stamped()
    await bench.fill(12)
    proxy.inject(Fault("catchup_write", "answer", nth=2, status=503, body="<html>", headers=(("Retry-After", "2"),)))
    verdict = await bench.run(road=road(), max_outage_s=30.0)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 12)
    writes = [at for at, path in stamped.at if "catchup_write" in path]
    assert writes[2] - writes[1] >= 2.0
