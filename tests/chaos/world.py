"""One trial's world from a seed: rows of known kinds, a table that records every change, and the truth afterwards."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from queries.migrations import Registration, migrate
from tests.chaos.witness import WitnessProcess
from tests.servers.bench import VIDEOS
from tests.servers.fake_script import rule
from tests.servers.postgres import SCHEMAS, Server

# Of 40 rows: how many of each kind. What is left over is plainly eligible.
SHARES = {
    "filled": 0.075, "short": 0.05, "refused": 0.05, "edited": 0.05, "deleted": 0.05, "overtaken": 0.025, "flaky": 0.05,
}  # fmt: skip
THEIRS = "Somebody else wrote this while the run was asking."
BEFORE = "This summary was here before the run."
_CALM = 6  # the first rows are plain, so that a run's canary meets no pile of odd ones

AUDIT = """
create table public.audit (
    no bigint generated always as identity primary key, at timestamptz not null default clock_timestamp(),
    who text not null default current_setting('application_name'), id text not null, old text, new text
);
create function public.note_change() returns trigger language plpgsql as $$ begin
    insert into public.audit (id, old, new) values (new.id, old.llm_summary, new.llm_summary); return null;
end $$;
create trigger note_change after update of llm_summary on public.videos
    for each row execute function public.note_change();
"""
# What the world does to a row while the provider is being asked about it.
MISCHIEF = {
    "edited": "update videos set description = description || ' It was edited meanwhile.' where id = %s",
    "deleted": "delete from videos where id = %s",
    "overtaken": f"update videos set llm_summary = '{THEIRS}' where id = %s",
}


@dataclass(frozen=True, slots=True)
class Truth:
    """Everything the database knows at one moment."""

    cells: Mapping[str, str | None]
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
    kinds: Mapping[str, str]

    def prepare(self, witness: WitnessProcess, *, mischief: bool = True) -> None:
        """The provider forgets the last trial and learns whom to refuse and what to do to whom."""
        witness.reset()
        refused = "|".join(self.of("refused")) or "nobody"
        flaky = "|".join(self.of("flaky")) or "nobody"
        witness.script(
            rule("refusal", on={"item": f"^({refused})$"}),
            rule("malformed", on={"item": f"^({flaky})$", "attempts": 1}),
        )
        if mischief:
            statements = {key: MISCHIEF[kind] for key, kind in self.kinds.items() if kind in MISCHIEF}
            witness.interfere(self.dsn, statements)

    def of(self, kind: str) -> list[str]:
        return [key for key, mine in self.kinds.items() if mine == kind]

    def truth(self) -> Truth:
        with psycopg.connect(self.dsn, autocommit=True, application_name="world", row_factory=dict_row) as connection:
            cells = connection.execute("select id, llm_summary from videos").fetchall()
            changes = connection.execute("select * from audit where who <> 'world' order by no").fetchall()
            runs = connection.execute("select * from catchup.runs order by started_at").fetchall()
            made = connection.execute("select key::jsonb->>0 as key from catchup.provenance").fetchall()
            verdicts = connection.execute("select key::jsonb->>0 as key, state from catchup.verdicts").fetchall()
        return Truth(
            {row["id"]: row["llm_summary"] for row in cells},
            changes,
            runs,
            frozenset(row["key"] for row in made),
            {row["key"]: row["state"] for row in verdicts},
        )


class Worlds:
    """Makes each world from a migrated template database, and takes it away again."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self._template = f"chaos_template_{os.getpid()}"

    async def prepare(self) -> None:
        self._server.run(f"create database {self._template}")
        dsn = self._server.dsn(self._template)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute((SCHEMAS / "videos.sql").read_bytes())
            connection.execute(AUDIT.encode())
        await migrate(dsn, [Registration(VIDEOS.name, VIDEOS.spec)])

    def clear(self) -> None:
        self._server.run(f"drop database if exists {self._template} with (force)")

    @contextmanager
    def make(self, seed: int, items: int) -> Iterator[World]:
        name = f"chaos{os.getpid()}_{next(self._numbers)}"
        self._server.run(f"create database {name} template {self._template}")
        try:
            kinds = choose_kinds(seed, items)
            dsn = self._server.dsn(name)
            _fill(dsn, kinds)
            yield World(dsn, kinds)
        finally:
            self._server.run(f"drop database {name} with (force)")


def choose_kinds(seed: int, items: int) -> dict[str, str]:
    odd = [kind for kind, part in SHARES.items() for _ in range(max(1, round(part * items)))]
    calm = min(_CALM, items - len(odd))
    rest = odd + ["eligible"] * (items - len(odd) - calm)
    random.Random(seed).shuffle(rest)
    return {f"v{n:06d}": kind for n, kind in enumerate(["eligible"] * calm + rest, start=1)}


def _fill(dsn: str, kinds: Mapping[str, str]) -> None:
    words = "explains how the harbour cranes of the old port were built, moved and finally restored by volunteers"
    rows = [
        (
            key,
            f"Talk {key}" if kind != "short" else "Talk",
            "hm" if kind == "short" else f"[[item:{key}]] Speaker of {key} {words}",
            BEFORE if kind == "filled" else None,
        )
        for key, kind in kinds.items()
    ]
    with psycopg.connect(dsn, application_name="world") as connection:
        connection.cursor().executemany(
            "insert into videos (id, title, channel_id, description, llm_summary) values (%s, %s, 'c1', %s, %s)", rows
        )
