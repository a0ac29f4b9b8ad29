"""backfill-summaries started twice, in slices, or overtaken while it slept: F8 of the fault matrix."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.engine import lease, session
from jobs.engine.verdict import Exit, Verdict
from queries.ledger import Ceilings
from queries.table import Slice
from tests.servers.bench import Bench


async def after(bench: Bench, calls: int, work: Any) -> Any:
    """Does `work` once the provider has seen this many calls."""
    async with asyncio.timeout(30):
        while bench.fake.world.requests < calls:
            await asyncio.sleep(0.005)  # the fake counts and tells nobody
    return await work()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one home", "two homes"])
async def test_f8_a_second_start_does_nothing_and_says_who_is_at_work(
    bench: Bench, tmp_path: Path, elsewhere: bool
) -> None:
    """Exit 11 in less than a second; from another home it is the lease that decides, and names host and seconds."""
    bench.fake.configure(latency=0.1)
    await bench.fill(120)
    second: list[float] = []

    async def start() -> Verdict:
        began = time.monotonic()
        verdict = await bench.run(state_dir=tmp_path / "second" if elsewhere else None)
        second.append(time.monotonic() - began)
        return verdict

    first, refused = await asyncio.gather(bench.run(concurrency=8), after(bench, 10, start))
    assert (first.exit, first.books.wrote) == (Exit.DONE, 120)
    assert (refused.exit, refused.calls) == (Exit.LEASE_HELD, 0), refused.headline
    assert second[0] < 1
    assert set(bench.paid().values()) == {1}
    if elsewhere:
        assert os.uname().nodename in refused.headline + refused.fix
        assert 0 < refused.facts["held_for_s"] <= lease.TTL_S


async def test_f8_a_different_second_start_is_told_of_the_living_run_not_of_its_journal(
    bench: Bench, tmp_path: Path
) -> None:
    """From another home, with --fresh or --abandon-journal: a run that lives is never given up behind its back."""
    bench.fake.configure(latency=0.1)
    await bench.fill(120)

    async def start() -> list[Verdict]:
        return [
            await bench.run(state_dir=tmp_path / "second", abandon_journal=True),
            await bench.run(state_dir=tmp_path / "second", fresh=True),
        ]

    first, refused = await asyncio.gather(bench.run(concurrency=8), after(bench, 10, start))
    assert (first.exit, first.books.wrote) == (Exit.DONE, 120)
    assert [verdict.exit for verdict in refused] == [Exit.LEASE_HELD, Exit.LEASE_HELD]
    assert set(bench.paid().values()) == {1}


@pytest.mark.parametrize("ceiling", [0.006, 1.0])
async def test_f8_disjoint_slices_run_side_by_side_under_one_ceiling(
    bench: Bench, tmp_path: Path, ceiling: float
) -> None:
    """Two runs, one day's money: together never above it, and with enough of it together done."""
    bench.fake.configure(latency=0.02)
    await bench.fill(200)
    halves = (Slice(upto=("v000100",)), Slice(above=("v000100",)))
    both = await asyncio.gather(
        *(
            bench.run(slice=half, state_dir=tmp_path / f"home{n}", ceilings=Ceilings(day_usd=ceiling), concurrency=4)
            for n, half in enumerate(halves)
        )
    )
    assert sum(v.money.actual_usd + v.money.possibly_usd for v in both) <= ceiling
    assert bench.fake.world.bill_usd <= ceiling
    booked = await bench.database.run("select booked_usd from catchup.budget where scope = 'day'")
    assert float(booked[0][0]) <= ceiling
    assert set(bench.paid().values()) == {1}
    if ceiling < 1:
        assert {Exit.CEILING} <= {v.exit for v in both} <= {Exit.CEILING, Exit.DONE}  # the quicker may well finish
        assert sum(v.books.wrote for v in both) > 50
    else:
        assert [(v.exit, v.books.wrote) for v in both] == [(Exit.DONE, 100), (Exit.DONE, 100)]


async def test_f8_a_holder_that_was_taken_over_writes_nothing_more(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zombie learns of it at its next beat or write: exit 11, and every text in the table is its successor's."""
    for module in (lease, session):
        for name, seconds in (("BEAT_S", 0.2), ("SILENT_S", 0.6), ("TTL_S", 2.0)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, seconds)
    bench.fake.configure(latency=0.3)
    await bench.fill(200)
    at_takeover: list[int] = []

    async def take_over() -> Verdict:
        # by one that died at once: only expired, the zombie's next beat might be there before the heir
        await bench.database.run(
            "update catchup.leases set expires_at = clock_timestamp() - interval '1 s', generation = generation + 1"
        )
        at_takeover.append(bench.fake.world.requests)
        bench.fake.configure(latency=0.0)
        return await bench.run(state_dir=tmp_path / "second", abandon_journal=True)

    zombie, heir = await asyncio.gather(bench.run(concurrency=8), after(bench, 30, take_over))
    assert (zombie.exit, heir.exit) == (Exit.LEASE_HELD, Exit.DONE), (zombie.headline, heir.headline)
    assert zombie.books.balance()
    assert zombie.books.wrote + heir.books.wrote == 200
    assert all((await bench.cells()).values())
    settled = sum(bench.paid().values()) - 200
    assert settled <= at_takeover[0] + 2 * 8, "what was paid before the takeover, and what was in flight until a beat"
    writers = await bench.database.run("select count(distinct generation) from catchup.leases")
    assert writers == [(0,)]
