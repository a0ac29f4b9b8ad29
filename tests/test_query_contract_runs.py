"""Runs, leases and money, over both roads: who may work on what, and what it may cost."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace

import pytest

from queries.errors import Fenced, LeaseHeld, Misconfigured
from queries.ledger import SCHEMA_VERSION, Ceilings, Holder, Ledger, Spend
from queries.ledger_json import spec_json
from queries.table import Slice, TableSpec
from tests.servers.roads import ELSEWHERE, FINGERPRINT, HERE, VIDEOS, World, batch_of, begin, simple_spec, things_of


async def test_before_migrate_the_ledger_says_it_is_not_there(world: World) -> None:
    """DECISIONS 14: no functions is a fact, not a failure; reading works without them."""
    await world.database.load("videos.sql")
    await world.database.run("insert into videos (id, title, channel_id) values ('v1', 't', 'c')")
    ledger = await world.ledger()
    hello = await ledger.hello(VIDEOS.spec, VIDEOS.name)
    assert (hello.schema_version, hello.registered_cells) == (None, ())
    assert await ledger.road.peek("videos", ("id",), key=("id",), conditions=VIDEOS.spec.pending) == [{"id": "v1"}]
    with pytest.raises(Misconfigured):
        await ledger.road.peek("videos", ("id", "nope"), key=("id",))
    with pytest.raises(Misconfigured):
        await ledger.road.peek("nope", ("id",), key=("id",))


async def test_a_client_of_another_schema_version_is_refused_by_both_names(world: World) -> None:
    """DECISIONS 5: older or newer, it says which is which."""
    ledger = await world.videos()
    hello = await ledger.hello(VIDEOS.spec, VIDEOS.name)
    assert hello.registered_cells == tuple(sorted(VIDEOS.spec.cells))
    assert not hello.least_privilege
    await world.database.run("update catchup.meta set version = 99")
    with pytest.raises(Misconfigured, match=rf"version 99.*needs {SCHEMA_VERSION}"):
        await ledger.hello()


async def test_facts_are_what_the_catalogs_say(world: World) -> None:
    """Types, NOT NULL, unique keys, publications and whether an index serves what is pending."""
    ledger = await world.videos(10)
    await world.database.run("create publication p_all for all tables")
    facts = await ledger.facts(VIDEOS.spec)
    assert facts.columns["title"].not_null
    assert facts.columns["view_count"].type == "bigint"
    assert facts.unique_keys == (("id",),)
    assert (facts.triggers, facts.publications, facts.pending_index) == ((), ("p_all",), False)
    assert facts.estimated_rows == 0
    await world.database.run("analyze videos; create index on videos (id) where llm_summary is null")
    facts = await ledger.facts(VIDEOS.spec)
    assert (facts.estimated_rows, facts.pending_index) == (10, True)


async def test_a_run_is_found_again_by_its_target_and_slice(world: World) -> None:
    """Unfinished is running or stopped, of the same slice; finishing and pruning take it off the list."""
    ledger = await world.videos()
    part = Slice(above=("a",), upto=("m",))
    lease = await begin(ledger, VIDEOS, run_id="run-a", slice_=part)
    await begin(ledger, VIDEOS, run_id="run-b", slice_=Slice(above=("m",)))
    assert await ledger.unfinished_run(VIDEOS.name, Slice()) is None
    found = await ledger.unfinished_run(VIDEOS.name, part)
    assert found is not None
    assert (found.run_id, found.slice, found.home_host, found.fingerprint) == ("run-a", part, "here", FINGERPRINT)
    await ledger.close_run(run_id="run-a", generation=lease.generation, state="stopped", stop_reason="ctrl-c")
    await ledger.release(lease)
    stopped = await ledger.unfinished_run(VIDEOS.name, part)
    assert stopped is not None
    assert (stopped.state, stopped.stop_reason) == ("stopped", "ctrl-c")
    reopened = await ledger.reopen_run("run-a", ELSEWHERE)
    assert (reopened.state, reopened.home_host, reopened.stop_reason) == ("running", "elsewhere", "")
    again = await ledger.take_lease(target=VIDEOS.name, spec=VIDEOS.spec, slice_=part, run_id="run-a", home=ELSEWHERE)
    await ledger.close_run(run_id="run-a", generation=again.generation, state="finished", stop_reason="")
    assert await ledger.unfinished_run(VIDEOS.name, part) is None
    last = await ledger.last_finished(VIDEOS.name)
    assert last is not None
    assert last.run_id == "run-a"
    assert [run.run_id for run in await ledger.runs()] == ["run-b", "run-a"]
    await world.database.run("update catchup.runs set updated_at = now() - interval '40 days'")
    assert (await ledger.prune(30))["runs"] == 1
    assert [run.run_id for run in await ledger.runs()] == ["run-b"]
    with pytest.raises(Misconfigured, match="no run nobody"):
        await ledger.reopen_run("nobody", HERE)


async def test_opening_a_run_twice_is_opening_it_once(world: World) -> None:
    """A lost answer is asked for again."""
    ledger = await world.videos()
    await begin(ledger, VIDEOS, run_id="run-a")
    await begin(ledger, VIDEOS, run_id="run-a")
    assert len(await ledger.runs()) == 1


async def test_a_second_start_is_refused_and_told_who_holds_it(world: World) -> None:
    """G18: the holder's host, pid and the seconds left, by the database's clock."""
    ledger = await world.videos()
    lease = await begin(ledger, VIDEOS, run_id="run-a")
    with pytest.raises(LeaseHeld) as held:
        await begin(ledger, VIDEOS, run_id="run-b", home=ELSEWHERE)
    assert held.value.holder["run_id"] == "run-a"
    assert held.value.holder["generation"] == lease.generation
    assert held.value.holder["home"] == asdict(HERE)
    assert 50 < held.value.seconds_left <= 60
    await ledger.release(lease)
    assert (await begin(ledger, VIDEOS, run_id="run-b", home=ELSEWHERE)).generation == lease.generation + 1


async def test_disjoint_slices_run_side_by_side_and_overlaps_do_not(world: World) -> None:
    """DECISIONS 23: ranges are compared as numbers where the key is one; "9" is less than "10"."""
    spec = simple_spec(("id",))
    ledger = await world.things("id bigint primary key", spec)
    await begin(ledger, things_of(spec), slice_=Slice(upto=("9",)))
    await begin(ledger, things_of(spec), slice_=Slice(above=("9",), upto=("100",)))
    await begin(ledger, things_of(spec), slice_=Slice(above=("100",)))
    for slice_ in (Slice(), Slice(above=("8",), upto=("10",)), Slice(above=("99",)), Slice(upto=("1",))):
        with pytest.raises(LeaseHeld):
            await begin(ledger, things_of(spec), slice_=slice_, home=ELSEWHERE)


async def test_slices_of_a_two_column_key_overlap_as_rows_do(world: World) -> None:
    """(g, 9) is less than (g, 10), and less than (h, 1)."""
    spec = simple_spec(("a", "b"))
    ledger = await world.things("a text, b integer, primary key (a, b)", spec)
    await begin(ledger, things_of(spec), slice_=Slice(above=("g", "9"), upto=("g", "10")))
    await begin(ledger, things_of(spec), slice_=Slice(above=("g", "10"), upto=("h", "1")))
    with pytest.raises(LeaseHeld):
        await begin(ledger, things_of(spec), slice_=Slice(above=("g", "50"), upto=("g", "60")), home=ELSEWHERE)


async def test_a_holder_proved_dead_is_taken_over_at_once(world: World) -> None:
    """Only the very generation that was proved dead: a holder that came back in between is not."""
    ledger = await world.videos()
    old = await begin(ledger, VIDEOS, run_id="run-a")
    dead = Holder("run-a", old.generation, HERE, 30.0)
    wrong = replace(dead, generation=old.generation - 1)

    async def take(proof: Holder) -> int:
        lease = await ledger.take_lease(
            target=VIDEOS.name, spec=VIDEOS.spec, slice_=Slice(), run_id="run-b", home=ELSEWHERE, dead=proof
        )
        return lease.generation

    with pytest.raises(LeaseHeld):
        await take(wrong)
    assert await take(dead) == old.generation + 1
    with pytest.raises(Fenced):
        await ledger.beat(old)


async def test_the_same_process_may_ask_for_its_lease_again(world: World) -> None:
    """DECISIONS 24: after an outage it asks again, without waiting for itself."""
    ledger = await world.videos()
    first = await begin(ledger, VIDEOS, run_id="run-a")
    second = await begin(ledger, VIDEOS, run_id="run-a")
    assert second.generation == first.generation + 1


async def test_of_many_starts_at_once_one_gets_the_lease(world: World) -> None:
    """R12: overlapping cron lines within milliseconds."""
    ledger = await world.videos()
    starts = [begin(ledger, VIDEOS, run_id=f"run-{i}", home=replace(HERE, pid=i)) for i in range(5)]
    outcomes = await asyncio.gather(*starts, return_exceptions=True)
    assert sum(isinstance(outcome, LeaseHeld) for outcome in outcomes) == 4


async def test_a_cancel_reaches_the_running_process(world: World) -> None:
    """At its next heartbeat or write; reopening forgets it."""
    ledger = await world.videos()
    lease = await begin(ledger, VIDEOS, run_id="run-a")
    assert not await ledger.beat(lease)
    await ledger.ask_cancel("run-a")
    assert await ledger.beat(lease)
    assert (await ledger.write(batch_of(VIDEOS, lease, []))).cancel_asked
    assert not (await ledger.reopen_run("run-a", HERE)).cancel_asked


async def test_cancelling_a_dead_run_fences_it_and_gives_its_money_back(world: World) -> None:
    """DECISIONS 26: a dead run's lump stays booked until an operator releases it."""
    ledger = await world.videos()
    lease = await begin(ledger, VIDEOS, run_id="run-a")
    ceilings = Ceilings(day_usd=1.0)
    await ledger.take_lump(run_id="run-a", want_usd=0.75, ceilings=ceilings)
    await ledger.write(batch_of(VIDEOS, lease, [], spend=Spend(1, 1, 1, 0.1, 0.15)))
    assert (await ledger.take_lump(run_id="run-b", want_usd=1.0, ceilings=ceilings)).granted_usd == 0.25
    await ledger.cancel_dead("run-a")
    with pytest.raises(Fenced):
        await ledger.beat(lease)
    run = await ledger.run("run-a")
    assert run is not None
    assert run.state == "cancelled"
    assert (await ledger.take_lump(run_id="run-b", want_usd=1.0, ceilings=ceilings)).granted_usd == 0.5


@pytest.mark.parametrize(
    ("ceilings", "scope"),
    [
        pytest.param(Ceilings(run_usd=1.0), "run", id="run"),
        pytest.param(Ceilings(hour_usd=1.0), "hour", id="hour"),
        pytest.param(Ceilings(day_usd=1.0, hour_usd=5.0), "day", id="day"),
    ],
)
async def test_a_ceiling_is_never_passed_and_says_when_it_clears(world: World, ceilings: Ceilings, scope: str) -> None:
    """G5: the last lump is what is left, then nothing."""
    ledger = await world.videos()
    await begin(ledger, VIDEOS, run_id="run-a")
    granted = [await ledger.take_lump(run_id="run-a", want_usd=0.4, ceilings=ceilings) for _ in range(4)]
    assert [lump.granted_usd for lump in granted] == pytest.approx([0.4, 0.4, 0.2, 0.0])
    assert granted[3].refused_by == scope
    longest = {"run": None, "hour": 3600.0, "day": 86400.0}[scope]
    clears = granted[3].clears_in_s
    assert clears is None if longest is None else clears is not None and 0 < clears <= longest


async def test_parallel_takers_never_pass_a_ceiling_together(world: World) -> None:
    """G5: two runs, many lumps at once, one hour's ceiling."""
    one = await world.videos()
    two = Ledger(await world.road())
    ceilings = Ceilings(hour_usd=1.0)
    takers = [
        ledger.take_lump(run_id=run, want_usd=0.07, ceilings=ceilings)
        for ledger, run in ((one, "run-a"), (two, "run-b"))
        for _ in range(12)
    ]
    lumps = await asyncio.gather(*takers)
    assert sum(lump.granted_usd for lump in lumps) == pytest.approx(1.0)
    [(booked,)] = await world.database.run("select booked_usd::float8 from catchup.budget where scope = 'hour'")
    assert booked == pytest.approx(1.0)


async def test_what_a_run_did_not_spend_comes_back_once(world: World) -> None:
    """The unspent part returns to its windows; what may have been billed stays; doing it twice gives nothing more."""
    ledger = await world.videos()
    lease = await begin(ledger, VIDEOS, run_id="run-a")
    ceilings = Ceilings(hour_usd=1.0)
    await ledger.take_lump(run_id="run-a", want_usd=1.0, ceilings=ceilings)
    await ledger.write(batch_of(VIDEOS, lease, [], spend=Spend(2, 1, 1, 0.25, 0.125)))
    for _ in range(2):
        await ledger.settle_run("run-a", spent_usd=0.0, possibly_usd=0.0)
    assert (await ledger.take_lump(run_id="run-b", want_usd=2.0, ceilings=ceilings)).granted_usd == 0.625


async def test_a_clock_that_jumps_back_opens_no_fresh_budget(world: World) -> None:
    """R13: windows are the database's UTC hours and days, and never go backwards."""
    ledger = await world.videos()
    await world.database.run(
        "insert into catchup.budget (scope, starts_at, booked_usd) values "
        "('hour', date_trunc('hour', now()) + interval '5 hours', 1), "
        "('day', date_trunc('day', now()) + interval '1 day', 1)"
    )
    for ceilings, scope in ((Ceilings(hour_usd=1.0), "hour"), (Ceilings(day_usd=1.0), "day")):
        lump = await ledger.take_lump(run_id="run-a", want_usd=0.1, ceilings=ceilings)
        assert (lump.granted_usd, lump.refused_by) == (0.0, scope)


async def test_money_still_held_counts_in_the_next_window(world: World) -> None:
    """A lump of 10:59 may be spent at 11:01: what living runs hold is carried into a new hour."""
    ledger = await world.videos()
    lease = await begin(ledger, VIDEOS, run_id="run-a")
    await ledger.take_lump(run_id="run-a", want_usd=0.75, ceilings=Ceilings(hour_usd=1.0))
    await ledger.write(batch_of(VIDEOS, lease, [], spend=Spend(1, 1, 1, 0.25)))
    await world.database.run("update catchup.budget set starts_at = starts_at - interval '1 hour' where scope = 'hour'")
    assert (await ledger.take_lump(run_id="run-b", want_usd=1.0, ceilings=Ceilings(hour_usd=1.0))).granted_usd == 0.5


async def test_slices_compare_in_a_columns_own_collation(world: World) -> None:
    """Ranges of text overlap as the column sorts, not as the database does."""
    spec = TableSpec("things", ("id",), ("body",), ("summary",), ())
    ledger = await world.things('id text collate "C" primary key', spec)
    await begin(ledger, things_of(spec), slice_=Slice(upto=("Z",)))
    await begin(ledger, things_of(spec), slice_=Slice(above=("Z",), upto=("a",)))
    with pytest.raises(LeaseHeld):
        await begin(ledger, things_of(spec), slice_=Slice(above=("Y",), upto=("b",)), home=ELSEWHERE)
    shape = "catchup.resolve(%s::jsonb)"
    [(sql,)] = await world.database.run(
        f"select catchup.before_sql(%s::jsonb, {shape}->'types', '[\"a\"]', '[\"b\"]')",
        (json.dumps(spec_json(spec)), json.dumps(spec_json(spec))),
    )
    assert 'collate pg_catalog."C"' in sql
