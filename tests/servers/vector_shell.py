"""Rows with vectors, filled and compared by typed commands: what verify and re-embedding are tested on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from jobs.default_targets import SUMMARIES
from tests.servers.bench import Bench
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.shell import Ended, Shell

WRONG = ("missing", "stale", "other_model", "denied", "unverified", "orphans")
FAST = ("--yes", "--db-load", "100%")


@dataclass
class VectorShell:
    """`target` are the words that name it."""

    shell: Shell
    bench: Bench
    target: tuple[str, ...] = ("summaries", "--store", "pgvector")

    async def vectorize(self, *more: str, **env: str) -> Ended:
        return await self.shell.run("vectorize", "--target", *self.target, *FAST, *more, **env)

    async def verify(self, *more: str, **env: str) -> Ended:
        return await self.shell.run("verify", *self.target, "--db-load", "100%", *more, **env)

    async def repair(self, *more: str, **env: str) -> Ended:
        return await self.verify("--repair", "--yes", *more, **env)

    async def difference(self, *more: str) -> dict[str, Any]:
        """The object that --json prints; a run of the repair may print more after it."""
        ended = await self.verify("--json", *more)
        found = [json.loads(line) for line in ended.out.splitlines()]
        (difference,) = [each for each in found if each["type"] == "difference"]
        return {**difference, "code": ended.code, "verdict": found[-1]}

    async def table(self, space: str = "") -> str:
        where = "where name = %s" if space else ""
        ((name,),) = await self.bench.database.run(
            f"select table_name from catchup.spaces {where}", [space] if space else []
        )
        return f"catchup.{name}"

    async def ids(self) -> set[str]:
        return {id_ for (id_,) in await self.bench.database.run(f"select id from {await self.table()}")}

    @property
    def paid(self) -> int:
        """Texts that were billed."""
        return self.bench.fake.world.embedded.total()


async def summarise(bench: Bench, rows: int) -> None:
    """Rows of the default schema, each with a summary of its own."""
    await bench.database.run("create extension if not exists vector")
    bench.target = SUMMARIES
    await bench.migrate()
    await bench.fill(rows)
    await bench.database.run("update videos set llm_summary = 'How crane ' || id || ' of the old port was restored'")


@pytest.fixture
async def forty(wired: Shell, bench: Bench) -> VectorShell:
    """40 rows with their vectors in a space of the same database."""
    made = VectorShell(wired, bench)
    await summarise(bench, 40)
    ended = await made.vectorize("--create-namespace")
    assert ended.code == 0, ended.out + ended.err
    return made


@pytest.fixture
async def forty_pinecone(wired: Shell, bench: Bench, fake_pinecone: FakePinecone) -> VectorShell:
    """40 rows with their vectors in a namespace of Pinecone, whose readers are late."""
    made = VectorShell(wired, bench, ("summaries",))
    await summarise(bench, 40)
    fake_pinecone.configure(dimension=512, lag_s=0.2)
    fake_pinecone.reset()
    wired.env |= {
        "PINECONE_API_KEY": fake_pinecone.settings.key or "pcsk_test",
        "PINECONE_INDEX_HOST": fake_pinecone.url,
    }
    ended = await made.vectorize("--create-namespace")
    assert ended.code == 0, ended.out + ended.err
    return made
