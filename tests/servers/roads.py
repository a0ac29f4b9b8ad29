"""Both roads to one database, behind one fixture: a test that takes `world` runs twice."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from jobs.default_targets import SCENE_ROLLUP, VIDEO_SUMMARIES
from jobs.targets import Target
from queries.dsn import DsnRoad
from queries.ledger import Home, Lease, Ledger, WriteBatch, WriteRow
from queries.migrations import Registration
from queries.postgrest import PostgrestRoad
from queries.road import Road
from queries.table import Condition, PageQuery, Row, Slice, TableSpec
from tests.servers.lite import StartPostgrest
from tests.servers.postgres import Database

VIDEOS, SCENES = VIDEO_SUMMARIES, SCENE_ROLLUP
FINGERPRINT = "a-fingerprint"
HERE = Home("here", "home-1", "boot-1", 4711, "12345", "lock-1")
ELSEWHERE = Home("elsewhere", "home-2", "boot-2", 4712, "67890", "lock-2")
Who = Literal["owner", "worker", "wrong"]
_numbers = itertools.count(1)


@dataclass(slots=True)
class World:
    """A database with a road to it. Load and migrate first: PostgREST reads the schema at its start."""

    kind: Literal["dsn", "postgrest"]
    database: Database
    _start: StartPostgrest
    _roads: list[Road] = field(default_factory=list)

    async def road(self, who: Who = "owner") -> Road:
        """`wrong` is somebody who may log in and nothing else: another role here, the publishable key there."""
        road: Road
        if self.kind == "dsn":
            roles = {"owner": "postgres", "worker": "catchup_worker", "wrong": "nobody_special"}
            road = DsnRoad(self.database.dsn_as(roles[who]))
        else:
            server = await self._start(self.database)
            road = PostgrestRoad(server.url, server.secret_key if who == "owner" else server.publishable_key)
        self._roads.append(road)
        return road

    async def ledger(self, who: Who = "owner") -> Ledger:
        return Ledger(await self.road(who))

    async def videos(self, rows: int = 0) -> Ledger:
        """The schema of DOMAIN.md (1), migrated, with videos v0001, v0002, ..."""
        await self.database.load("videos.sql")
        await self.database.migrate([VIDEOS])
        await self.database.run(
            "insert into public.videos (id, title, description, channel_id) "
            "select 'v' || lpad(i::text, 4, '0'), 'title ' || i, 'text ' || i, 'c' || i %% 3 "
            "from generate_series(1, %s) i",
            (rows,),
        )
        return await self.ledger()

    async def things(self, columns: str, spec: TableSpec, rows: str = "") -> Ledger:
        """A table of its own for a test of keys or types: these columns, a body and a summary."""
        await self.database.run(
            f"create table public.{spec.table} ({columns}, body text, summary text); "
            f"grant all on public.{spec.table} to service_role; {rows}"
        )
        await self.database.migrate([Registration("things", spec)])
        return await self.ledger()

    async def close(self) -> None:
        for road in self._roads:
            await road.close()


@pytest.fixture(params=["dsn", "postgrest"])
async def world(request: Any, database: Database, start_postgrest: StartPostgrest) -> AsyncIterator[World]:
    made = World(request.param, database, start_postgrest)
    yield made
    await made.close()
    await database.run("alter role service_role bypassrls")


def things_of(spec: TableSpec) -> Registration:
    return Registration("things", spec)


def query_of(target: Target | Registration, **changes: Any) -> PageQuery:
    name = target.name if isinstance(target, Target) else target.target
    return replace(PageQuery(target.spec, name, FINGERPRINT, None, None, 100), **changes)


def simple_spec(key: tuple[str, ...], read: tuple[str, ...] = ("body",), table: str = "things") -> TableSpec:
    return TableSpec(table, key, read, ("summary",), (Condition("summary", "is null"),))


async def begin(
    ledger: Ledger, target: Target | Registration, *, run_id: str = "", home: Home = HERE, slice_: Slice = Slice()
) -> Lease:
    """Opens a run and takes its lease."""
    name = target.name if isinstance(target, Target) else target.target
    run_id = run_id or f"run-{next(_numbers)}"
    await ledger.open_run(
        run_id=run_id,
        job="a-job",
        target=name,
        fingerprint=FINGERPRINT,
        params={},
        slice_=slice_,
        home=home,
        upper=None,
    )
    return await ledger.take_lease(target=name, spec=target.spec, slice_=slice_, run_id=run_id, home=home)


def batch_of(target: Target | Registration, lease: Lease, rows: Sequence[WriteRow], **changes: Any) -> WriteBatch:
    name = target.name if isinstance(target, Target) else target.target
    batch = WriteBatch(
        write_id=f"write-{next(_numbers)}",
        run_id=lease.run_id,
        generation=lease.generation,
        target=name,
        fingerprint=FINGERPRINT,
        spec=target.spec,
        rows=rows,
    )
    return replace(batch, **changes)


def filled(row: Row, text: str | None, **cells: str | None) -> WriteRow:
    """The row with `text` for its first cell."""
    first = next(iter(row.was))
    return WriteRow(row.key, row.guard, row.was, {first: text, **cells})
