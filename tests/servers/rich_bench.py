"""Videos with scenes in a real database, a fake OpenAI, and both steps over them, as the command line runs them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from jobs import rich_scenes, rich_targets, rich_videos
from jobs.engine.clock import Clock
from jobs.engine.options import Options
from jobs.engine.rate_limit import RateLimit
from jobs.engine.verdict import Verdict
from jobs.engine.work import Work
from jobs.rich_inline import Inline, Selection
from jobs.rich_steps import Steps
from jobs.targets import Target
from queries.dsn import DsnRoad
from queries.ledger import Ledger
from queries.openai_chat import OpenAIChat
from queries.prices import load_price
from queries.tokens import TokenCounter
from tests.servers.bench import KEY, Memory
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.postgres import Database

SUMMARY = rich_targets.pair(rich_targets.SCENES, rich_targets.SUMMARY)
TARGETS = (rich_targets.SCENES, SUMMARY, rich_targets.STATUS)

VIDEOS_SQL = (
    "insert into videos (id, owner_id, filename, storage_path, status) "
    "select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, "
    "md5((n %% 3)::text)::uuid, 'talk ' || n, 'x', %s::video_status from generate_series(%s::int, %s::int) n"
)
SCENES_SQL = (
    "insert into video_scenes (video_id, index, start_s, end_s, transcript_segment, thumbnail_url) "
    "select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, i, i * 10, i * 10 + 10, "
    "'[[item:s' || n || '.' || i || ']] Speaker ' || n || ' shows how crane ' || i || ' is lifting boxes.', "
    "case when i %% 2 = 0 then 'https://cdn.example.com/' || n || '/' || i || '.jpg' end "
    "from generate_series(%s::int, %s::int) n, generate_series(0, %s::int) i"
)


def video_id(number: int) -> str:
    """Ids that sort as their numbers do."""
    return f"00000000-0000-4000-8000-{number:012d}"


@dataclass
class RichBench:
    database: Database
    fake: FakeOpenAI
    state_dir: Path
    vocabularies: Path
    memory: Memory = field(default_factory=Memory)
    inline: Inline | None = None

    async def fill(self, videos: int, scenes: int, *, first: int = 1, status: str = "READY") -> None:
        """Each scene with its own marker for the fake, every second one with a picture."""
        await self.database.run(VIDEOS_SQL, [status, first, first + videos - 1])
        await self.database.run(SCENES_SQL, [first, first + videos - 1, scenes - 1])

    def steps(self, road: DsnRoad, *, clock: Clock | None = None, **options: Any) -> Steps:
        wanted = replace(Options(db_load=1.0, max_outage_s=5.0, yes=True), **options)
        jobs = ((rich_scenes.PART, rich_targets.SCENES), (rich_videos.PART, SUMMARY))
        return Steps(*(self._work(job, target, road, wanted, clock or Clock()) for job, target in jobs))

    def _work(self, job: Any, target: Target, road: DsnRoad, options: Options, clock: Clock) -> Work:
        chat = OpenAIChat(KEY, self.fake.url, timeout_s=10.0)
        return Work(
            job,
            target,
            Ledger(road),
            chat,
            TokenCounter(target.model, self.vocabularies),
            load_price(target.model),
            target.model,
            self.state_dir,
            options,
            self.memory,
            "catchup reprocess-videos --inline",
            clock,
            rate=RateLimit(clock),
        )

    async def run(self, selection: Selection | None = None, **options: Any) -> Verdict:
        road = DsnRoad(self.database.dsn)
        steps = self.steps(road, **options)
        self.inline = Inline(steps, selection or Selection())
        try:
            return await self.inline.go()
        finally:
            await close(steps)
            await road.close()

    async def rich(self) -> list[int]:
        """The numbers of the videos that bear the flag."""
        rows = await self.database.run("select id from videos where has_rich_semantics order by id")
        return [int(str(key)[-12:]) for (key,) in rows]

    async def undescribed(self) -> int:
        rows = await self.database.run("select count(*) from video_scenes where visual_description is null")
        return int(rows[0][0])

    def paid_for_scenes(self) -> dict[str, int]:
        return {item: times for item, times in self.fake.world.paid.items() if item.startswith("s")}


async def close(steps: Steps) -> None:
    for work in (steps.scenes, steps.summary):
        await work.service.close()


@pytest.fixture
async def rich(database: Database, fake_openai: FakeOpenAI, tmp_path: Path, vocabularies: Path) -> RichBench:
    """The schema of DOMAIN.md (5), migrated, with no rows yet."""
    await database.load("scenes.sql")
    await database.migrate(TARGETS)
    return RichBench(database, fake_openai, tmp_path / "state", vocabularies)
