"""A target without cells, whose ledger alone knows what is done, and the switch to it; over both roads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from queries.errors import Misconfigured
from queries.ledger import Ledger, RowVerdict, WriteRow
from queries.migrations import Registration
from queries.table import PageQuery, Redo, Row
from tests.servers.roads import VIDEOS, World, batch_of, begin, query_of

BESIDE = Registration("video-summaries@new", replace(VIDEOS.spec, cells=(), pending=()))
MADE = {"model": "m-2", "prompt_hash": "p-2"}
SWITCH = {
    "target": "video-summaries",
    "filled": "video-summaries@new",
    "place": "space new",
    "left": "video-summaries@old",
    "left_place": "space old",
}


def unmade(**changes: object) -> PageQuery:
    return query_of(BESIDE, redo=Redo("unmade", "m-2", "p-2"), with_known=True, **changes)


def made(row: Row) -> WriteRow:
    return WriteRow(row.key, row.guard, row.was, {})


async def fill(ledger: Ledger, rows: list[Row], **changes: object) -> None:
    """Noted as made, and the run is over."""
    lease = await begin(ledger, BESIDE)
    await ledger.write(batch_of(BESIDE, lease, [made(row) for row in rows], **{**MADE, **changes}))  # type: ignore[arg-type]
    await ledger.close_run(run_id=lease.run_id, generation=lease.generation, state="finished", stop_reason="")
    await ledger.release(lease)


async def test_unmade_is_all_that_the_ledger_does_not_know_as_made_this_way(world: World) -> None:
    """From this text, by this model, in this way; page, count and window agree."""
    ledger = await world.videos(6)
    rows = await ledger.page(unmade())
    assert ([row.was for row in rows], len(rows)) == ([{}] * 6, 6)
    await fill(ledger, rows[:3])
    await fill(ledger, rows[3:4], model="m-1")
    await world.database.run("update videos set description = 'edited' where id = 'v0002'")
    assert [row.key[0] for row in await ledger.page(unmade())] == ["v0002", "v0004", "v0005", "v0006"]
    assert await ledger.count_up_to(unmade(), 10) == 4
    assert await ledger.count_window(unmade(limit=2, in_window=True), 10) == (1, ("v0002",))
    assert await ledger.count_window(unmade(limit=9, in_window=True, above=("v0002",)), 10) == (3, None)


async def test_a_write_without_cells_changes_no_row_and_keeps_its_guard(world: World) -> None:
    """Unchanged rows are noted, an edited one is named, one that is gone too; asked again it says the same."""
    ledger = await world.videos(4)
    rows = await ledger.page(unmade())
    await world.database.run(
        "update videos set title = 'edited' where id = 'v0002'; delete from videos where id = 'v0003'"
    )
    before = await world.database.run("select xmin::text, * from videos order by id")
    lease = await begin(ledger, BESIDE)
    skipped = RowVerdict(rows[3].key, rows[3].guard, "skipped", "empty", "")
    batch = batch_of(BESIDE, lease, [made(row) for row in rows[:3]], verdicts=[skipped], **MADE)
    first = await ledger.write(batch)
    assert (first.wrote, dict(first.changed), first.gone) == ({0}, {1: "edited"}, {2})
    assert await ledger.write(batch) == first
    assert await world.database.run("select xmin::text, * from videos order by id") == before
    assert [row.key[0] for row in await ledger.page(unmade())] == ["v0002"]
    assert (await ledger.read_back(BESIDE.spec, [rows[0].key])) == {rows[0].key: {}}


async def test_the_two_ledgers_change_names(world: World) -> None:
    """Once, however often it is asked for; places say whose they are; what was filled is the target's own now."""
    ledger = await world.videos(2)
    lease = await begin(ledger, VIDEOS)
    for place, target, model in (("space old", "video-summaries", "m-1"), ("space new", "video-summaries@new", "m-2")):
        await ledger.places.claim(place, model, 8, target)
    await fill(ledger, await ledger.page(unmade()))
    with pytest.raises(Misconfigured, match=f"run {lease.run_id} of video-summaries is not finished"):
        await ledger.places.switch(**SWITCH)
    await ledger.close_run(run_id=lease.run_id, generation=lease.generation, state="finished", stop_reason="")
    await ledger.release(lease)
    assert [await ledger.places.switch(**SWITCH), await ledger.places.switch(**SWITCH)] == [True, False]
    owners = [(await ledger.places.find(place)) for place in ("space old", "space new")]
    assert [owner.target for owner in owners if owner] == ["video-summaries@old", "video-summaries"]
    (row, _) = await ledger.page(query_of(VIDEOS, with_known=True))
    assert row.known is not None
    assert (row.known.model, row.known.prompt_hash) == ("m-2", "p-2")
    later = await begin(ledger, VIDEOS)
    assert later.generation > lease.generation


async def test_what_was_never_filled_is_not_switched_to(world: World) -> None:
    """A name that no run has had is a slip of the pen."""
    ledger = await world.videos(1)
    with pytest.raises(Misconfigured, match="nothing was filled"):
        await ledger.places.switch(**SWITCH)
