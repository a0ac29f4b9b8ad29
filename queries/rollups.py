"""Materialized views over tables that were written: found over either road, refreshed on a connection of their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from queries.errors import CatchupError, Misconfigured
from queries.ledger_answers import believed, expected
from queries.postgres_errors import translate_connect, translate_psycopg
from queries.road import Road, as_argument
from queries.table import TableSpec

# Who waits for the lock of a refresh holds back every reader that comes after it.
_PATIENCE = b"set local statement_timeout = 0; set local lock_timeout = '10s'"
_LOCK_TIMEOUT = "55P03"


@dataclass(frozen=True, slots=True)
class Rollup:
    """`concurrently`: it has a unique index, so that readers go on reading while it is refreshed."""

    schema: str
    name: str
    concurrently: bool
    is_owner: bool

    @property
    def statement(self) -> str:
        how = "concurrently " if self.concurrently else ""
        place = sql.Identifier(self.schema, self.name).as_string(None)
        return f"refresh materialized view {how}{place}"


@dataclass(frozen=True, slots=True)
class Rollups:
    """In the order of their dependence; `is_due`: rows were written since they were refreshed last."""

    views: tuple[Rollup, ...]
    is_due: bool


@dataclass(frozen=True, slots=True)
class Refreshed:
    """Seconds of each view; `broken` are those that could not be, and why: all of them are due again then."""

    took: tuple[tuple[str, float], ...]
    broken: tuple[tuple[str, CatchupError], ...]


async def find_rollups(road: Road, spec: TableSpec, target: str, tables: Sequence[str]) -> Rollups:
    asked = {"spec": {"schema": spec.schema}, "target": target, "tables": list(tables)}
    answer = expected(await road.read("catchup_views_rollups", asked))
    with believed("catchup_views_rollups", writing=False):
        views = tuple(
            Rollup(str(v["schema"]), str(v["name"]), v["concurrently"] is True, v["is_owner"] is True)
            for v in answer["views"]
        )
        return Rollups(views, answer["is_due"] is True)


def refusal(rollups: Rollups, why: str) -> Misconfigured:
    """With the line for pg_cron, which runs as the owner and without anybody's timeout."""
    statements = "; ".join(view.statement for view in rollups.views)
    line = f"select cron.schedule('catchup-rollups', '30 * * * *', $${statements}$$);"
    return Misconfigured(
        f"--rollups needs a direct connection: {why}",
        fix=f"set DATABASE_URL to the database itself; or in its SQL editor, with pg_cron: {line}",
        service="database",
    )


def _explained(error: psycopg.Error, view: Rollup) -> CatchupError:
    found = translate_psycopg(error, writing=False)
    if error.sqlstate == _LOCK_TIMEOUT:
        index = "" if view.concurrently else ", and a unique index on it lets readers go on meanwhile"
        found.fix = f"somebody used {view.name} for 10 s: the same command refreshes all of them{index}"
    return found


async def refresh_rollups(url: str, rollups: Rollups, target: str) -> Refreshed:
    """One after the other, each in a transaction of its own: one that is broken keeps no other from its counts."""
    foreign = [view.name for view in rollups.views if not view.is_owner]
    if foreign:
        raise refusal(rollups, f"only the owner may refresh {', '.join(foreign)}")
    took: list[tuple[str, float]] = []
    broken: list[tuple[str, CatchupError]] = []
    try:
        async with await psycopg.AsyncConnection.connect(
            url, autocommit=True, prepare_threshold=None, connect_timeout=10, keepalives_idle=30, keepalives_interval=10
        ) as connection:
            began = await (await connection.execute("select now()::text")).fetchone()
            for view in rollups.views:
                started, place = time.monotonic(), f"{view.schema}.{view.name}"
                try:
                    async with connection.transaction():  # a pooler gives a session for so long, and no longer
                        await connection.execute(_PATIENCE)
                        await connection.execute(view.statement.encode())
                except psycopg.Error as error:
                    if connection.closed:
                        raise
                    broken.append((place, _explained(error, view)))
                else:
                    took.append((place, time.monotonic() - started))
            if not broken:
                said = sql.Literal(as_argument({"target": target, "at": began[0] if began else ""}))
                await connection.execute(sql.SQL("select public.catchup_views_rolled_up({})").format(said))
    except psycopg.OperationalError as error:
        raise (translate_psycopg(error, writing=False) if error.sqlstate else translate_connect(error)) from error
    except psycopg.Error as error:
        raise translate_psycopg(error, writing=False) from error
    return Refreshed(tuple(took), tuple(broken))
