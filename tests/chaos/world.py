"""One trial's world from a seed: rows of known kinds, a table that records every change, and the truth afterwards."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from queries.migrations import Registration, migrate
from tests.chaos.stage import Stage
from tests.servers.postgres import SCHEMAS, Server

AUDIT = """
create table public.audit (
    no bigint generated always as identity primary key, at timestamptz not null default clock_timestamp(),
    who text not null default current_setting('application_name'), id text not null, old text, new text, source text
);
create function public.note_change() returns trigger language plpgsql as $$ begin
    insert into public.audit (id, old, new, source) values (new.id, old.{cell}::text, new.{cell}::text, new.{source});
    return null;
end $$;
create trigger note_change after update of {cell} on public.videos for each row execute function public.note_change();
"""
# What was there when the trial began is nobody's claim in it.
PAST = """
create table public.past_runs as select run_id from catchup.runs;
create table public.past_provenance as select key, guard, parts from catchup.provenance;
truncate public.audit;
"""


@dataclass(frozen=True, slots=True)
class Truth:
    """Everything the database knows at one moment; runs and provenance only of this trial."""

    cells: Mapping[str, str | None]
    sources: Mapping[str, str | None]
    changes: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    provenance: frozenset[str]
    verdicts: Mapping[str, str]

    @property
    def booked_usd(self) -> float:
        return float(sum(run["spent_usd"] for run in self.runs))

    @property
    def possibly_usd(self) -> float:
        return float(sum(run["possibly_usd"] for run in self.runs))

    @property
    def booked_writes(self) -> int:
        return sum(int(run["books"].get("wrote", 0)) for run in self.runs)


@dataclass(frozen=True, slots=True)
class World:
    """Rows and their kinds; the same seed makes the same world."""

    dsn: str
    stage: Stage
    kinds: Mapping[str, str]

    def of(self, *kinds: str) -> list[str]:
        return [key for key, mine in self.kinds.items() if mine in kinds]

    def truth(self) -> Truth:
        cell, source = self.stage.cell, self.stage.source
        rows = f"select id, nullif({cell}::text, 'false') as cell, {source} as source from videos"
        with psycopg.connect(self.dsn, autocommit=True, application_name="world", row_factory=dict_row) as connection:
            cells = connection.execute(rows.encode()).fetchall()
            changes = connection.execute("select * from audit where who <> 'world' order by no").fetchall()
            runs = connection.execute(
                "select * from catchup.runs where run_id not in (select run_id from past_runs) order by started_at"
            ).fetchall()
            made = connection.execute(
                "select key::jsonb->>0 as key from (select key, guard, parts from catchup.provenance "
                "except select key, guard, parts from past_provenance) made"
            ).fetchall()
            verdicts = connection.execute("select key::jsonb->>0 as key, state from catchup.verdicts").fetchall()
        return Truth(
            {row["id"]: row["cell"] for row in cells},
            {row["id"]: row["source"] for row in cells},
            changes,
            runs,
            frozenset(row["key"] for row in made),
            {row["key"]: row["state"] for row in verdicts},
        )


class Worlds:
    """Makes each world from a migrated template database, which may have a past, and takes it away again."""

    def __init__(self, server: Server, stage: Stage) -> None:
        self.stage = stage
        self._server = server
        self._template = f"chaos_template_{os.getpid()}_{next(_NUMBERS)}"

    async def prepare(self) -> None:
        self._server.run(f"create database {self._template}")
        dsn = self._server.dsn(self._template)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute((SCHEMAS / "videos.sql").read_bytes())
            connection.execute(self.stage.schema.encode())
            connection.execute(AUDIT.format(cell=self.stage.cell, source=self.stage.source).encode())
        await migrate(dsn, [Registration(each.name, each.spec, each.views) for each in self.stage.targets])

    def past(self, items: int) -> World:
        """The template itself, with the rows that were there before any trial."""
        world = World(self._server.dsn(self._template), self.stage, self.stage.past_kinds(items))
        self.stage.fill(world.dsn, world.kinds)
        return world

    def close_the_past(self, world: World) -> None:
        self.stage.age(world)
        with psycopg.connect(world.dsn, autocommit=True, application_name="world") as connection:
            connection.execute(PAST.encode())

    def clear(self) -> None:
        self._server.run(f"drop database if exists {self._template} with (force)")

    @contextmanager
    def make(self, seed: int, items: int) -> Iterator[World]:
        name = f"chaos{os.getpid()}_{next(_NUMBERS)}"
        self._server.run(f"create database {name} template {self._template}")
        try:
            past = self.stage.past_kinds(items)
            kinds = self.stage.choose_kinds(seed, items - len(past))
            dsn = self._server.dsn(name)
            self.stage.fill(dsn, kinds)
            yield World(dsn, self.stage, {**kinds, **past})
        finally:
            self._server.run(f"drop database {name} with (force)")


_NUMBERS = itertools.count(1)
