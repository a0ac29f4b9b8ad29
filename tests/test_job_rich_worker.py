"""F47: one message after another through a worker, however often each comes, and however it ended before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.engine.verdict import Exit
from jobs.rich_crew import Crew
from jobs.rich_worker import Next, Processed
from queries.dsn import DsnRoad
from queries.errors import Misconfigured
from queries.ledger import Ceilings
from tests.servers.rich_bench import RichBench, close, video_id

ONE = video_id(1)


@dataclass
class Shift:
    crew: Crew
    ended: asyncio.Event

    async def take(self, number: int = 1) -> Processed:
        return await self.crew.take(video_id(number))


@asynccontextmanager
async def at_work(
    rich: RichBench, state_dir: Path | None = None, most: int | None = None, **options: Any
) -> AsyncIterator[Shift]:
    """A worker process without its broker; another state directory is another host."""
    before, rich.state_dir = rich.state_dir, state_dir or rich.state_dir
    road, ended = DsnRoad(rich.database.dsn), asyncio.Event()
    steps = rich.steps(road, retry_failed=True, **options)
    rich.state_dir = before
    crew = Crew(steps, road, most)
    try:
        async with crew.at_work(ended):
            yield Shift(crew, ended)
    finally:
        await close(steps)
        await road.close()


async def status(rich: RichBench, number: int = 1) -> tuple[str, str | None, bool]:
    rows = await rich.database.run(
        "select status::text, error_message, has_rich_semantics is true from videos where id = %s", [video_id(number)]
    )
    return rows[0]


async def test_a_message_is_one_video_from_ready_to_ready(rich: RichBench) -> None:
    """Its status goes PROCESSING meanwhile, and an old error is taken back."""
    await rich.fill(2, 3)
    await rich.database.run("update videos set status = 'FAILED', error_message = 'boom' where id = %s", [ONE])
    rich.fake.configure(latency=0.1)
    async with at_work(rich) as shift:
        taking = asyncio.create_task(shift.take())
        async with asyncio.timeout(10):
            while (await status(rich))[0] != "PROCESSING":
                await asyncio.sleep(0.01)
        done = await taking
    assert (done.next, done.said) == (Next.TAKEN, "done: 3 scenes")
    assert await status(rich) == ("READY", None, True)
    assert await rich.rich() == [1]
    assert shift.crew.verdict().exit == Exit.DONE
    assert shift.crew.verdict().calls == 4


async def test_f47_a_message_delivered_again_costs_nothing(rich: RichBench) -> None:
    """The video has its flag; a status that a crash left behind is put right."""
    await rich.fill(1, 3)
    async with at_work(rich) as shift:
        await shift.take()
        paid = rich.fake.world.paid.total()
        await rich.database.run("update videos set status = 'PROCESSING' where id = %s", [ONE])
        again = await shift.take()
    assert (again.next, again.said) == (Next.TAKEN, "has its rich semantics already")
    assert await status(rich) == ("READY", None, True)
    assert rich.fake.world.paid.total() == paid


async def test_f47_a_crash_before_the_acknowledgement_is_gone_on_from(rich: RichBench) -> None:
    """PROCESSING, half of the scenes there: only what is missing is paid for."""
    await rich.fill(1, 4)
    await rich.database.run("update videos set status = 'PROCESSING'")
    await rich.database.run(
        "update video_scenes set visual_description = 'A crane is lifting boxes at the quay.' where index < 2"
    )
    async with at_work(rich) as shift:
        assert (await shift.take()).said == "done: 2 scenes"
    assert sorted(rich.paid_for_scenes()) == ["s1.2", "s1.3"]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same host", "another host"])
async def test_f47_the_same_message_at_two_workers_is_worked_on_once(
    rich: RichBench, tmp_path: Path, elsewhere: bool
) -> None:
    """A visibility timeout: the second one waits, and finds it done."""
    await rich.fill(1, 4)
    rich.fake.configure(latency=0.2)
    other = tmp_path / "other" if elsewhere else None
    async with at_work(rich) as first, at_work(rich, other) as second:
        if not elsewhere:
            second.crew._stepping.steps.scenes.state_dir.mkdir(exist_ok=True)
        taking = asyncio.create_task(first.take())
        async with asyncio.timeout(10):
            while rich.fake.world.open == 0:
                await asyncio.sleep(0.01)
        later = await second.take()
        assert later.next is Next.LATER
        assert 0 < later.wait_s <= 60
        assert (await taking).next is Next.TAKEN
        assert (await second.take()).said == "has its rich semantics already"
    assert set(rich.fake.world.paid.values()) == {1}


async def test_workers_on_different_videos_do_not_wait_for_each_other(rich: RichBench) -> None:
    """Each holds the key range of its one video."""
    await rich.fill(3, 2)
    rich.fake.configure(latency=0.1)
    async with at_work(rich) as first, at_work(rich) as second, at_work(rich) as third:
        done = await asyncio.gather(first.take(1), second.take(2), third.take(3))
    assert [each.next for each in done] == [Next.TAKEN] * 3
    assert await rich.rich() == [1, 2, 3]
    assert set(rich.fake.world.paid.values()) == {1}


async def test_a_scene_that_fails_makes_its_video_failed_with_the_reason(rich: RichBench) -> None:
    """A second delivery pays for that scene again and for no other."""
    await rich.fill(1, 3)
    rich.fake.script({"match": {"item": r"^s1\.1$"}, "action": {"kind": "refusal"}})
    async with at_work(rich) as shift:
        done = await shift.take()
        assert done.next is Next.TAKEN
        assert await status(rich) == ("FAILED", "scene 1: refusal; not every scene is described", False)
        rich.fake.script()
        assert (await shift.take()).said == "done: 1 scenes"
    assert await status(rich) == ("READY", None, True)
    assert rich.paid_for_scenes() == {"s1.0": 1, "s1.1": 2, "s1.2": 1}


async def test_a_video_without_scenes_is_failed_and_one_that_is_gone_is_done_with(rich: RichBench) -> None:
    """Neither is asked about."""
    await rich.fill(1, 0)
    async with at_work(rich) as shift:
        assert (await shift.take()).next is Next.TAKEN
        assert await status(rich) == ("FAILED", "no scenes", False)
        assert (await shift.take(9)).said == "no such video"
    assert rich.fake.world.requests == 0


async def test_a_stop_gives_the_message_back_and_nothing_is_lost(rich: RichBench) -> None:
    """SIGTERM in the middle: READY again, and the next worker pays only for what was not answered."""
    await rich.fill(1, 6)
    rich.fake.configure(latency=0.1)
    async with at_work(rich, concurrency=1) as shift:
        taking = asyncio.create_task(shift.take())
        async with asyncio.timeout(10):
            while rich.fake.world.paid.total() < 3:
                await asyncio.sleep(0.01)
        shift.crew.ask_stop(Exit.SIGTERM, "SIGTERM")
        given = await taking
        assert given.next is Next.GIVEN_BACK
        assert (await shift.take()).said == "not begun"
    assert shift.ended.is_set()
    assert shift.crew.verdict().exit == Exit.SIGTERM
    assert shift.crew.verdict().books.balance()
    assert await status(rich) == ("READY", None, False)
    async with at_work(rich) as next_one:
        assert (await next_one.take()).next is Next.TAKEN
    assert await rich.rich() == [1]
    assert set(rich.fake.world.paid.values()) == {1}


async def test_f14_at_the_ceiling_the_worker_ends_and_keeps_no_message(rich: RichBench) -> None:
    """Exit 8; the video is as it was, for whoever has money."""
    await rich.fill(2, 4)
    async with at_work(rich, ceilings=Ceilings(run_usd=0.004)) as shift:
        given = await shift.take()
        assert given.next is Next.GIVEN_BACK
    assert shift.crew.verdict().exit == Exit.CEILING
    assert await status(rich) == ("READY", None, False)


async def test_f28_without_money_no_video_is_blamed(rich: RichBench) -> None:
    """Exit 4: the whole queue is not marked FAILED for it."""
    await rich.fill(2, 2)
    rich.fake.script({"match": {}, "action": {"kind": "quota"}})
    async with at_work(rich) as shift:
        assert (await shift.take()).next is Next.GIVEN_BACK
    assert shift.crew.verdict().exit == Exit.STOPPED
    assert await status(rich) == ("READY", None, False)


async def test_so_many_messages_and_no_more(rich: RichBench) -> None:
    """--max-videos ends with exit 0 after the last one."""
    await rich.fill(3, 1)
    async with at_work(rich, most=2) as shift:
        await shift.take(1)
        assert not shift.ended.is_set()
        await shift.take(2)
        assert shift.ended.is_set()
        assert (await shift.take(3)).next is Next.GIVEN_BACK
    assert shift.crew.verdict().exit == Exit.DONE
    assert await rich.rich() == [1, 2]


async def test_a_status_that_nobody_registered_is_refused_before_any_message(rich: RichBench) -> None:
    """The ledger's functions write declared cells and no other."""
    await rich.database.run("delete from catchup.cells where target = 'video-status'")
    with pytest.raises(Misconfigured, match="status"):
        async with at_work(rich):
            pass
