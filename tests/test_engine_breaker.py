"""The breaker: weather passes, outages pause, and nothing is paid to an upstream that is down."""

from __future__ import annotations

import asyncio

import pytest

from jobs.engine.breaker import Breaker, UpstreamDown
from queries.errors import Transient, Unreachable
from tests.servers.virtual_clock import VirtualClock


async def test_one_call_in_five_failing_never_trips_it() -> None:
    """Twenty per cent of faults is weather."""
    clock = VirtualClock()
    breaker = Breaker(clock, 600)
    breaker.succeeded()
    for number in range(2_000):
        if clock.jitter(1.0) < 0.2:
            breaker.failed(Transient(f"fault {number}"))
        else:
            breaker.succeeded()
    assert breaker.trips == 0


async def test_a_failing_upstream_costs_at_most_fifty_calls() -> None:
    """All calls failing: open after five when nothing ever worked, after twelve when something had."""
    breaker = Breaker(VirtualClock(), 600)
    calls = 0
    while not breaker.is_open:
        breaker.failed(Transient("503"))
        calls += 1
    assert calls <= 50


async def test_no_network_opens_it_after_five() -> None:
    """Connection failures come fast; they pause the run instead of failing rows."""
    breaker = Breaker(VirtualClock(), 600)
    for _ in range(5):
        breaker.failed(Unreachable("no route"))
    assert breaker.is_open


async def test_it_probes_one_at_a_time_and_goes_on_when_the_upstream_is_back() -> None:
    """Thirty waiting workers, a five minute outage: about ten calls, then all of them pass."""
    clock = VirtualClock()
    breaker = Breaker(clock, 900)
    back_at = clock.now() + 300
    probes = 0

    async def worker() -> None:
        nonlocal probes
        while True:
            await breaker.enter()
            if clock.now() >= back_at:
                breaker.succeeded()
                return
            probes += 1
            breaker.failed(Unreachable("no route"))

    for _ in range(5):
        breaker.failed(Unreachable("no route"))
    await clock.run(asyncio.gather(*(worker() for _ in range(30))))  # type: ignore[arg-type]
    assert probes <= 10
    assert not breaker.is_open


@pytest.mark.parametrize(("fault", "is_outage"), [(Unreachable("no route"), True), (Transient("500"), False)])
async def test_it_gives_up_after_the_outage_we_allow(fault: Transient, is_outage: bool) -> None:
    """No network ends with 4 (time clears it), a broken upstream with 5."""
    clock = VirtualClock()
    breaker = Breaker(clock, 60)
    while not breaker.is_open:
        breaker.failed(fault)

    async def worker() -> None:
        while True:
            await breaker.enter()
            breaker.failed(fault)

    with pytest.raises(UpstreamDown) as down:
        await clock.run(worker())
    assert down.value.is_outage is is_outage
    assert clock.now() - 1000 <= 100


async def test_hung_calls_trip_it_within_two_minutes() -> None:
    """Nothing has come back for two minutes although five calls were given up: that is down."""
    clock = VirtualClock()
    breaker = Breaker(clock, 600)
    breaker.succeeded()
    for _ in range(2):
        clock.advance(60)
        for _ in range(4):
            breaker.failed(Transient("no answer in 60 s"))
    assert breaker.is_open


async def test_one_connection_that_hangs_trips_it_within_a_minute_and_a_half() -> None:
    """A broker is asked one thing at a time, and half a minute passes until each is given up: two are enough."""
    clock = VirtualClock()
    breaker = Breaker(clock, 600)
    breaker.succeeded()
    for is_open in (False, True):
        clock.advance(30)
        breaker.failed(Unreachable("blocked"))
        assert breaker.is_open is is_open


async def test_late_failures_of_others_do_not_let_more_probes_through() -> None:
    """Fifty calls were out when it opened; their failures arrive late, and still one probe goes each half minute."""
    clock = VirtualClock()
    breaker = Breaker(clock, 600)
    breaker.succeeded()
    probes: list[float] = []

    async def worker(number: int) -> None:
        await clock.sleep(number * 0.4)
        breaker.failed(Transient("503"))
        while True:
            await breaker.enter()
            probes.append(clock.now())
            await clock.sleep(2.0)
            breaker.failed(Transient("503"))

    with pytest.raises(UpstreamDown):
        await clock.run(asyncio.gather(*(worker(number) for number in range(50))))  # type: ignore[arg-type]
    assert len([at for at in probes if at > 1000 + 50 * 0.4]) <= 600 / 30 + 1
