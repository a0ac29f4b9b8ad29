"""A whole run of vectorize in one process: the bench's database and provider, and a place where vectors are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from jobs import content
from jobs.default_targets import SUMMARIES
from jobs.embedding import Embedding
from jobs.engine.job import Packing
from jobs.engine.verdict import Verdict
from jobs.targets import Target
from jobs.vectorize import JOB, Vectorize
from queries.dsn import DsnRoad
from queries.openai_embed import OpenAIEmbed
from queries.pgvector_space import PgvectorSpace
from queries.pinecone_space import PineconeSpace
from queries.road import Road
from queries.table import Condition, Redo
from queries.vectors import VectorSpace
from tests.servers.bench import KEY, Bench
from tests.servers.fake_embeddings import fake_vector
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.impaired import Impaired
from tests.servers.postgres import Database
from tests.servers.shell import Shell

PINECONE_KEY = "pcsk_s3ntinel_0123456789abcdef"
SECRETS = (KEY, PINECONE_KEY)
FLAG = "llm_summary_embedding_synced"
COLUMN = "llm_summary_vector"
IN_TENS = Vectorize(packing=Packing(10, 240_000))
"""The job with small requests, so that a test of some hundred rows makes many."""
Store = Literal["pinecone", "pgvector", "column"]


@dataclass
class VectorBench(Bench):
    """`run` is what `catchup vectorize` does, without the command line; `check` is what must hold after any of them."""

    pinecone: FakePinecone = field(kw_only=True)
    store: Store = "pinecone"
    verdicts: list[Verdict] = field(default_factory=list)
    calls_of_others: int = 0
    """Made by processes that the test killed or only sees from outside."""

    @property
    def embedding(self) -> Embedding:
        assert self.target.embedding is not None
        return self.target.embedding

    async def fill(self, rows: int, *, prefix: str = "v", text: str = "") -> None:
        """Video rows with a summary that has no vector yet, each with its own marker for the fake."""
        await self.database.run(
            "insert into videos (id, title, channel_id, channel_name, view_count, published_at, llm_summary) "
            "select %s || lpad(n::text, 6, '0'), 'Talk number ' || n, 'c' || n %% 7, 'Harbour talks', n * 1000, "
            "'2026-01-01'::timestamptz + n * interval '1 hour', "
            "'[[item:' || %s || lpad(n::text, 6, '0') || ']] Speaker ' || n || ' ' || %s from generate_series(1, %s) n",
            [prefix, prefix, text or "tells how the cranes of the old port were built and moved", rows],
        )

    def open_space(self, road: Road, target: Target) -> VectorSpace | None:
        embedding = target.embedding
        assert embedding is not None
        match embedding.into:
            case "pinecone":
                return PineconeSpace(
                    PINECONE_KEY,
                    index_host=self.pinecone.url,
                    index=embedding.index,
                    namespace=embedding.namespace,
                    controller_host=self.pinecone.url,
                    timeout_s=10.0,
                )
            case "pgvector":
                return PgvectorSpace(road, embedding.namespace, model=target.model, target=target.name)
            case "column":
                return None

    async def run(self, **given: Any) -> Verdict:
        """As Bench.run; edited texts are looked for, as the command line does."""
        given = {"redo": Redo("edited", and_pending=True), "edited_if_small": True, "job": JOB, **given}
        target = given.setdefault("target", self.target)
        road = given.setdefault("road", DsnRoad(self.database.dsn))
        given.setdefault("chat", OpenAIEmbed(KEY, self.fake.url, timeout_s=given.pop("timeout_s", 10.0)))
        space = given.setdefault("space", self.open_space(road, target))
        try:
            verdict = await super().run(**given)
        finally:
            if space is not None:
                await space.close()
        self.verdicts.append(verdict)
        return verdict

    async def flagged(self) -> set[str]:
        """Ids of the vectors that the marked rows of an unchunked target should have."""
        done = f"{COLUMN} is not null" if self.store == "column" else FLAG
        return {
            self.embedding.id_of((key,), 0) for (key,) in await self.database.run(f"select id from videos where {done}")
        }

    async def stored(self) -> dict[str, bytes]:
        """What readers find there: id and vector."""
        match self.store:
            case "pinecone":
                found = self.pinecone.vectors(self.embedding.namespace)
                return {id_: each.values.tobytes() for id_, each in found.items() if each.values is not None}
            case "pgvector":
                names = await self.database.run(
                    "select table_name from catchup.spaces where name = %s", [self.embedding.namespace]
                )
                rows = await self.database.run(f"select id, embedding::real[] from catchup.{names[0][0]}")
            case "column":
                rows = await self.database.run(f"select id, {COLUMN}::real[] from videos where {COLUMN} is not null")
        return {str(id_): as_bytes(values) for id_, values in rows}

    async def expected(self) -> dict[str, bytes]:
        """The vector each row should have, by its text of now."""
        rows = await self.database.run("select id, llm_summary from videos where llm_summary is not null")
        return {self.embedding.id_of((key,), 0): self.vector_of(text) for key, text in rows}

    def vector_of(self, text: str) -> bytes:
        return fake_vector(content.clean(text), self.target.model, self.embedding.dimensions)

    async def check(self, *, complete: bool = True, stray: Set[str] = frozenset()) -> None:
        """Books balance, no vector missing, extra or mispaired, no hidden request, no secret.

        `complete` is false after a run that was stopped: what was put and not yet marked is in the journal. `stray` are
        ids whose row was edited or deleted while its vector was on the way.
        """
        assert all(verdict.books.balance() for verdict in self.verdicts), [v.headline for v in self.verdicts]
        marked, stored, expected = await self.flagged(), await self.stored(), await self.expected()
        assert marked <= set(stored), f"marked without a vector: {sorted(marked - set(stored))[:5]}"
        if complete:
            assert set(stored) - marked == stray
        mispaired = [id_ for id_, vector in stored.items() if id_ not in stray and vector != expected.get(id_)]
        assert mispaired == []
        assert self.fake.world.requests == sum(v.calls for v in self.verdicts) + self.calls_of_others
        if complete:
            booked = await self.database.run("select coalesce(sum(calls), 0) from catchup.runs")
            assert self.fake.world.requests == booked[0][0], "requests that are on nobody's books"
        assert self.find_secrets() == []

    def find_secrets(self) -> list[str]:
        said = [str(verdict.as_json()) for verdict in self.verdicts]
        said += [*self.memory.notices, *self.memory.asked, *map(str, self.memory.plans)]
        said += [path.read_bytes().decode("latin-1") for path in self.state_dir.rglob("*") if path.is_file()]
        return [text[:200] for text in said for secret in SECRETS if secret[3:20] in text]

    def embedded(self) -> dict[str, int]:
        """Texts the fake billed, by item."""
        return dict(self.fake.world.embedded)

    async def keep_in(self, store: Store) -> None:
        """The same target with its vectors elsewhere; made as its owner would make it."""
        self.store = store
        if store == "pinecone":
            return
        if not await self.database.run("select 1 from pg_available_extensions where name = 'vector'"):
            pytest.skip("this server has no pgvector")
        await self.database.run("create schema extensions; create extension vector schema extensions")
        await self.database.run("grant usage on schema extensions to service_role")
        self.target = replace(self.target, embedding=replace(self.embedding, into=store))
        if store == "column":
            size = self.embedding.dimensions
            await self.database.run(f"alter table videos add column {COLUMN} extensions.vector({size})")
            pending = (Condition(COLUMN, "is null"), Condition("llm_summary", "is not null"))
            spec = replace(self.target.spec, cells=(COLUMN,), pending=pending)
            self.target = replace(self.target, spec=spec, cells={COLUMN: "answer"})
        await self.migrate()
        if store == "pgvector":
            road = DsnRoad(self.database.dsn)
            space = self.open_space(road, self.target)
            assert space is not None
            await space.create(self.embedding.dimensions, index=True)
            await road.close()


def as_bytes(values: list[float]) -> bytes:
    import numpy as np  # noqa: PLC0415 - as wherever vectors are packed

    return np.array(values, dtype="<f4").tobytes()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)  # the fakes count and tell nobody


@pytest.fixture
async def vectors(
    database: Database, fake_openai: FakeOpenAI, fake_pinecone: FakePinecone, tmp_path: Path, vocabularies: Path
) -> VectorBench:
    """The default schema, migrated, with no rows; an index with an empty namespace."""
    made = VectorBench(
        database, fake_openai, tmp_path / "state", vocabularies, target=SUMMARIES, pinecone=fake_pinecone
    )
    fake_pinecone.configure(index=made.embedding.index, dimension=made.embedding.dimensions)
    fake_pinecone.reset()
    fake_pinecone.space(made.embedding.namespace)
    await database.load("videos.sql")
    await made.migrate()
    return made


@pytest.fixture(params=["pinecone", "pgvector", "column"])
async def everywhere(request: Any, vectors: VectorBench) -> VectorBench:
    """The same, three times over: for each place where vectors may be kept."""
    await vectors.keep_in(request.param)
    return vectors


@pytest.fixture
def impaired_vectors(shell: Shell, vectors: VectorBench) -> Impaired:
    """`catchup vectorize` in a process that is not well."""
    shell.env |= {
        "DATABASE_URL": vectors.database.dsn,
        "OPENAI_BASE_URL": vectors.fake.url,
        "OPENAI_API_KEY": KEY,
        "PINECONE_INDEX_HOST": vectors.pinecone.url,
        "PINECONE_API_KEY": PINECONE_KEY,
        "CATCHUP_STATE_DIR": str(vectors.state_dir),
    }
    return Impaired(shell, vectors, JOB.name)
