"""A bench for submit-batch: the same database and fake, and the provider's own clock, which a test moves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from jobs.backfill_summaries import JOB
from jobs.batching.options import BatchOptions, BatchWork
from jobs.batching.run import BatchRun
from jobs.engine.clock import Clock
from jobs.engine.job import Job, Service
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
from queries.vectors import VectorSpace
from tests.servers.bench import KEY, Bench
from tests.servers.virtual_clock import FastClock


class LeapClock(FastClock):
    """Three hundred seconds pass in one: the waits of batches are minutes."""

    speed = 300.0

    async def sleep(self, seconds: float) -> None:
        """Never so short that who looks ten times a second spins."""
        await super().sleep(max(seconds, self.speed * 0.01))


async def visit(
    bench: Bench,
    *,
    road: Road | None = None,
    target: Target | None = None,
    job: Job = JOB,
    clock: Clock | None = None,
    state_dir: Path | None = None,
    batches: Any = None,
    service: Service | None = None,
    space: VectorSpace | None = None,
    run: type[BatchRun] = BatchRun,
    place: str = "",
    **options: Any,
) -> Verdict:
    """One start of the command; the flags of batches and of runs may be mixed."""
    target, road = target or bench.target, road or DsnRoad(bench.database.dsn)
    mine = {name: options.pop(name) for name in list(options) if name in BatchOptions.__dataclass_fields__}
    live = service or OpenAIChat(KEY, bench.fake.url, timeout_s=10.0)
    made = batches or OpenAIBatches(KEY, bench.fake.url, timeout_s=10.0)
    work = Work(
        job,
        target,
        Ledger(road),
        live,
        TokenCounter(target.model, bench.vocabularies),
        load_price(target.model),
        target.model,
        state_dir or bench.state_dir,
        replace(Options(db_load=1.0, max_outage_s=600.0, yes=True), **options),
        bench.memory,
        "catchup submit-batch",
        clock or LeapClock(),
        space,
    )
    bench.running = run(BatchWork(work, made, BatchOptions(**mine), place or bench.fake.url))
    try:
        return await bench.running.go()
    finally:
        await road.close()
        await live.close()
        await made.close()


@dataclass
class BatchBench(Bench):
    """`visit` is one start of the command. The provider has our time."""

    clock: LeapClock = field(default_factory=LeapClock)

    def __post_init__(self) -> None:
        self.fake.batches.clock = self.clock.now

    async def visit(self, **options: Any) -> Verdict:
        return await visit(self, **{"clock": self.clock, **options})

    async def age(self, hours: float) -> None:
        """As if all that the ledger has of batches had happened so much earlier, by the database's clock."""
        columns = ("made_at", "upload_at", "create_at", "seen_at", "progress_at", "closed_at")
        sets = [f"{name} = {name} - make_interval(secs => {hours * 3600})" for name in columns]
        gone = f"jsonb_set(files, '{{gone,at}}', to_jsonb((files->'gone'->>'at')::float8 - {hours * 3600}))"
        sets.append(f"files = case when files ? 'gone' then {gone} else files end")
        await self.database.run(f"update catchup.batches set {', '.join(sets)}")
        await self.database.run(
            f"update catchup.runs set updated_at = updated_at - make_interval(hours => {int(hours)})"
        )

    async def chunks(self) -> list[dict[str, Any]]:
        rows = await self.database.run("select to_jsonb(b) from catchup.batches b order by chunk")
        return [row[0] for row in rows]

    async def out(self) -> list[tuple[str, int, str, str]]:
        return list(await self.database.run("select chunk, n, key, state from catchup.batch_rows order by chunk, n"))


@pytest.fixture
def batch_bench(bench: Bench) -> BatchBench:
    """The same world as `bench`, with the visits of submit-batch."""
    return BatchBench(bench.database, bench.fake, bench.state_dir, bench.vocabularies)
