"""A whole run in one process: a real database, the real SDK, a fake OpenAI, and a watcher that remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from jobs.backfill_summaries import JOB
from jobs.default_targets import SCENE_ROLLUP, VIDEO_SUMMARIES
from jobs.engine.clock import Clock
from jobs.engine.job import Job, Service
from jobs.engine.options import Options
from jobs.engine.run import Run
from jobs.engine.verdict import Verdict
from jobs.engine.watch import Plan, Snapshot
from jobs.engine.work import Work
from jobs.targets import Target
from queries.dsn import DsnRoad
from queries.ledger import Ledger
from queries.openai_chat import OpenAIChat
from queries.prices import load_price
from queries.road import Road
from queries.tokens import TokenCounter
from queries.vectors import VectorSpace
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.postgres import Database

VIDEOS = VIDEO_SUMMARIES
SCENES = SCENE_ROLLUP
KEY = "sk-test-sentinel-0123456789"


@dataclass
class Memory:
    """A watcher: what it was shown, and what it answers when asked."""

    agrees: bool = False
    plans: list[Plan] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    last: Snapshot | None = None

    def plan(self, plan: Plan) -> None:
        self.plans.append(plan)

    async def confirm(self, plan: Plan, why: str) -> bool:
        self.asked.append(why)
        return self.agrees

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def progress(self, snapshot: Snapshot) -> None:
        self.last = snapshot


@dataclass
class Bench:
    """One database and one provider; `run` is what the command line does, without it."""

    database: Database
    fake: FakeOpenAI
    state_dir: Path
    vocabularies: Path
    target: Target = VIDEOS
    memory: Memory = field(default_factory=Memory)
    running: Run | None = None

    async def fill(self, rows: int, *, prefix: str = "v", text: str = "") -> None:
        """Video rows whose description is worth a summary, each with its own marker for the fake."""
        words = (
            text
            or "explains how the harbour cranes of the old port were built, moved and finally restored by volunteers"
        )
        await self.database.run(
            "insert into videos (id, title, channel_id, channel_name, description) "
            "select %s || lpad(n::text, 6, '0'), 'Talk number ' || n, 'c' || n %% 7, 'Harbour talks', "
            "'[[item:' || %s || lpad(n::text, 6, '0') || ']] Speaker ' || n || ' ' || %s "
            "from generate_series(1, %s) n",
            [prefix, prefix, words, rows],
        )

    async def migrate(self) -> None:
        await self.database.migrate([self.target])

    async def run(
        self,
        *,
        road: Road | None = None,
        chat: Service | None = None,
        space: VectorSpace | None = None,
        target: Target | None = None,
        job: Job = JOB,
        clock: Clock | None = None,
        state_dir: Path | None = None,
        **options: Any,
    ) -> Verdict:
        target = target or self.target
        road = road or DsnRoad(self.database.dsn)
        chat = chat or OpenAIChat(KEY, self.fake.url, timeout_s=options.pop("timeout_s", 10.0))
        model = target.model
        wanted = replace(Options(db_load=1.0, max_outage_s=5.0, yes=True), **options)
        tokens = TokenCounter(model, self.vocabularies)
        self.running = Run(
            Work(
                job,
                target,
                Ledger(road),
                chat,
                tokens,
                load_price(model),
                model,
                state_dir or self.state_dir,
                wanted,
                self.memory,
                f"catchup {job.name}",
                clock or Clock(),
                space,
            )
        )
        try:
            return await self.running.go()
        finally:
            await road.close()
            await chat.close()

    async def cells(self) -> dict[str, str | None]:
        rows = await self.database.run("select id, llm_summary from videos order by id")
        return {str(key): value for key, value in rows}

    def paid(self) -> dict[str, int]:
        """Calls the fake billed, by item."""
        return dict(self.fake.world.paid)


@pytest.fixture(scope="session")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabularies")


@pytest.fixture
async def bench(database: Database, fake_openai: FakeOpenAI, tmp_path: Path, vocabularies: Path) -> Bench:
    """The default schema, migrated, with no rows yet."""
    made = Bench(database, fake_openai, tmp_path / "state", vocabularies)
    await database.load("videos.sql")
    await made.migrate()
    return made


def sums(verdict: Verdict) -> Sequence[int]:
    books = verdict.books
    return (books.wrote, books.skipped.total(), books.failed.total(), books.changed, books.gone, books.to_do)
