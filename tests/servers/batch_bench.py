"""A bench for submit-batch: the same database and fake, and the provider's own clock, which a test moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.backfill_summaries import JOB
from jobs.batching.options import BatchOptions, BatchWork
from jobs.batching.run import BatchRun
from jobs.engine.clock import Clock
from jobs.engine.job import Job
from jobs.engine.options import Options
from jobs.engine.verdict import Verdict
from jobs.engine.work import Work
from jobs.targets import Target
from queries.dsn import DsnRoad
from queries.ledger import Ledger
from queries.openai_batches import OpenAIBatches
from queries.openai_chat import OpenAIChat
from queries.prices import load_price
from queries.road import Road
from queries.tokens import TokenCounter
from tests.servers.bench import KEY, Bench
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.postgres import Database
from tests.servers.virtual_clock import FastClock


class LeapClock(FastClock):
    """A thousand seconds pass in one: the waits of batches are minutes."""

    speed = 1_000.0


class BatchBench(Bench):
    """`visit` is one start of the command; the flags of batches and of runs may be mixed."""

    async def visit(
        self,
        *,
        road: Road | None = None,
        target: Target | None = None,
        job: Job = JOB,
        clock: Clock | None = None,
        state_dir: Path | None = None,
        batches: Any = None,
        **options: Any,
    ) -> Verdict:
        target, road = target or self.target, road or DsnRoad(self.database.dsn)
        mine = {name: options.pop(name) for name in list(options) if name in BatchOptions.__dataclass_fields__}
        chat = OpenAIChat(KEY, self.fake.url, timeout_s=10.0)
        made = batches or OpenAIBatches(KEY, self.fake.url, timeout_s=10.0)
        work = Work(
            job,
            target,
            Ledger(road),
            chat,
            TokenCounter(target.model, self.vocabularies),
            load_price(target.model),
            target.model,
            state_dir or self.state_dir,
            replace(Options(db_load=1.0, max_outage_s=600.0, yes=True), **options),
            self.memory,
            "catchup submit-batch",
            clock or LeapClock(),
        )
        self.running = BatchRun(BatchWork(work, made, BatchOptions(**mine), self.fake.url))
        try:
            return await self.running.go()
        finally:
            await road.close()
            await chat.close()
            await made.close()

    async def chunks(self) -> list[dict[str, Any]]:
        rows = await self.database.run("select to_jsonb(b) from catchup.batches b order by chunk")
        return [row[0] for row in rows]

    async def out(self) -> list[tuple[str, int, str, str]]:
        return list(await self.database.run("select chunk, n, key, state from catchup.batch_rows order by chunk, n"))


@pytest.fixture
async def batch_bench(database: Database, fake_openai: FakeOpenAI, tmp_path: Path, vocabularies: Path) -> BatchBench:
    """The default schema, migrated, with no rows yet."""
    made = BatchBench(database, fake_openai, tmp_path / "state", vocabularies)
    await database.load("videos.sql")
    await made.migrate()
    return made
