"""Money: worst case before the call, truth after it, ceilings that hold whatever happens."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.engine.budget import Budget
from queries.errors import CeilingReached
from queries.ledger import Ceilings, Lump
from tests.servers.virtual_clock import VirtualClock


class Treasury:
    """Grants like the ledger: never more than the ceilings leave."""

    def __init__(self, left_usd: float) -> None:
        self.left_usd = left_usd
        self.asked = 0

    async def take(self, want_usd: float) -> Lump:
        self.asked += 1
        granted = min(want_usd, self.left_usd)
        self.left_usd -= granted
        return Lump(granted, "" if granted else "day", None if granted else 600.0)


@given(
    ceiling=st.floats(0.01, 2.0),
    worst=st.lists(st.floats(0.001, 0.05), min_size=1, max_size=120),
    share=st.floats(0.0, 1.0),
    workers=st.integers(1, 16),
)
@settings(max_examples=80, deadline=None)
def test_the_worst_case_of_what_is_sent_never_passes_the_ceiling(
    ceiling: float, worst: list[float], share: float, workers: int
) -> None:
    """With any prices, any real costs and any number of workers."""

    async def go() -> None:
        clock = VirtualClock()
        treasury = Treasury(1e9)
        budget = Budget(Ceilings(run_usd=ceiling), treasury.take)
        out_usd, peak_usd = 0.0, 0.0
        todo = list(worst)

        async def worker() -> None:
            nonlocal out_usd, peak_usd
            while todo:
                price = todo.pop()
                try:
                    reservation = await budget.reserve(price)
                except CeilingReached:
                    return
                out_usd += price
                peak_usd = max(peak_usd, out_usd + budget.spent_usd)
                await clock.sleep(clock.jitter(1.0))
                out_usd -= price
                budget.settle(reservation, price * share)

        await clock.run(asyncio.gather(*(worker() for _ in range(workers))))  # type: ignore[arg-type]
        assert peak_usd <= ceiling + 1e-9

    asyncio.run(go())


async def test_room_that_calls_in_flight_give_back_is_waited_for() -> None:
    """A ceiling is only reached when nothing in flight could still free any."""
    clock = VirtualClock()
    budget = Budget(Ceilings(run_usd=0.10), Treasury(1e9).take)
    first = await budget.reserve(0.09)

    async def second() -> None:
        await budget.reserve(0.09)

    async def settle() -> None:
        await clock.sleep(5)
        budget.settle(first, 0.001)

    await clock.run(asyncio.gather(second(), settle()))  # type: ignore[arg-type]
    budget.settle(first, 0.09)
    with pytest.raises(CeilingReached):
        await budget.reserve(0.09)


async def test_money_is_fetched_in_lumps_not_per_call() -> None:
    """A thousand calls ask the ledger about a hundred times: a lump is a hundredth of the ceiling."""
    treasury = Treasury(10.0)
    budget = Budget(Ceilings(day_usd=10.0), treasury.take)
    for _ in range(1_000):
        budget.settle(await budget.reserve(0.01), 0.01)
    assert treasury.asked <= 101
    assert budget.idle_usd <= 0.1


async def test_a_refusal_names_the_window_and_when_it_turns() -> None:
    """The operator reads which ceiling it was, and how long to wait."""
    budget = Budget(Ceilings(day_usd=1.0), Treasury(0.0).take)
    with pytest.raises(CeilingReached, match=r"the day's ceiling .* clears in 10 min") as refusal:
        await budget.reserve(0.5)
    assert refusal.value.scope == "day"


async def test_no_ceiling_asks_nobody() -> None:
    """Without a ceiling there is nothing to hold."""
    treasury = Treasury(0.0)
    budget = Budget(Ceilings(), treasury.take)
    budget.settle(await budget.reserve(5.0), 4.0)
    assert (treasury.asked, budget.spent_usd) == (0, 4.0)


async def test_uneven_prices_never_leave_a_run_waiting_for_nothing() -> None:
    """A sum of floats does not come back to zero: what is open is counted, or the ceiling would hang the run."""
    for seed in range(40):
        clock = VirtualClock(seed)
        budget = Budget(Ceilings(run_usd=0.001), Treasury(1e9).take)

        async def worker(clock: VirtualClock = clock, budget: Budget = budget) -> None:
            while True:
                reservation = await budget.reserve(0.00008 + clock.jitter(0.00003))
                await clock.sleep(clock.jitter(1.0))
                budget.settle(reservation, 0.00006 + clock.jitter(0.00001))

        ends = await clock.run(asyncio.gather(*(worker() for _ in range(8)), return_exceptions=True))  # type: ignore[arg-type]
        assert all(isinstance(end, CeilingReached) for end in ends)
