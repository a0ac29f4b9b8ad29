"""Puts the SQL of queries/sql into a database, checks it, prints it for Supabase's SQL editor, takes it out again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql

from queries.errors import Misconfigured
from queries.ledger_json import spec_json
from queries.ledger_types import SCHEMA_VERSION
from queries.postgres_errors import translate_connect, translate_psycopg
from queries.table import UNARY, TableSpec, ViewTables

WORKER = "catchup_worker"
_FUNCTIONS = (
    *("hello", "facts", "page", "count", "upper", "read_back", "write"),
    *("open_run", "reopen_run", "runs", "close_run", "ask_cancel", "cancel_dead", "named", "standing", "prune"),
    *("take_lease", "beat", "release", "take_lump", "settle_run"),
    *("space_facts", "space_create", "space_put", "space_seen", "space_ids", "space_delete", "space_query"),
    *("stuck", "unstick", "message_counts", "still", "followed"),
    *("share_rate", "leave_rate", "move_status"),
    *("column_facts", "column_query", "place", "claim_place", "switch_target", "known_keys"),
    *("open_chunk", "claim_rows", "note_chunk", "chunks", "take_chunks", "batch_page", "put_back", "forget_back"),
    *("close_chunk", "abandon_chunk", "learn_limit", "batch_limit", "prune_batches"),
    "page_rows",
    *("quota", "quota_take", "quota_give_back", "quota_close"),
    *("views_due", "views_seed", "views_write", "views_outlook", "views_alive"),
    *("views_rollups", "views_rolled_up", "views_changed"),
)
# Two `migrate` at once would deadlock on each other's `create or replace`: the second waits here instead.
_ONE_AT_A_TIME = "select pg_advisory_xact_lock(hashtext('catchup migrate'))"


@dataclass(frozen=True, slots=True)
class Registration:
    """A target as the registry of cells keeps it."""

    target: str
    spec: TableSpec
    views: ViewTables | None = None

    @property
    def owned(self) -> tuple[str, ...]:
        """Tables whose rows are the target's own: it may insert there, by the whole key."""
        return (self.views.snapshots, self.views.priorities) if self.views else ()


@dataclass(frozen=True, slots=True)
class Migrated:
    """`before` is None where there was no schema."""

    before: int | None
    now: int
    registered: tuple[str, ...]


async def migrate(url: str, registrations: Sequence[Registration] = (), *, worker: bool = False) -> Migrated:
    """Everything in one transaction; running it again changes nothing. `worker` also makes the least-privilege role."""
    async with await _connect(url) as connection:
        try:
            async with connection.transaction():
                await connection.execute(_ONE_AT_A_TIME)
                before = await _version(connection)
                if before is not None and before > SCHEMA_VERSION:
                    raise Misconfigured(
                        f"the database has catchup schema version {before}, this client knows {SCHEMA_VERSION}",
                        fix="install the newer catchup",
                        service="database",
                    )
                for part in _parts(registrations, worker):
                    await connection.execute(part.encode())
        except psycopg.Error as error:
            raise translate_psycopg(error, writing=False) from error
    return Migrated(before, SCHEMA_VERSION, tuple(r.target for r in registrations))


async def check(url: str, registrations: Sequence[Registration] = ()) -> tuple[str, ...]:
    """What `migrate` would have to put right, in sentences; empty when all is well. Reads only."""
    async with await _connect(url) as connection:
        try:
            async with connection.transaction():
                await connection.execute("set transaction read only")
                return tuple([problem async for problem in _find_problems(connection, registrations)])
        except psycopg.Error as error:
            raise translate_psycopg(error, writing=False) from error


async def uninstall(url: str) -> None:
    async with await _connect(url) as connection:
        try:
            async with connection.transaction():
                await connection.execute(uninstall_sql().encode())
        except psycopg.Error as error:
            raise translate_psycopg(error, writing=False) from error


def print_sql(registrations: Sequence[Registration] = (), *, worker: bool = False) -> str:
    """The same text `migrate` runs, for an SQL editor; there it is one transaction as well."""
    head = f"-- catchup schema version {SCHEMA_VERSION}. Run it as the owner; running it again does no harm."
    return "\n\n".join([head, "begin;", *_parts(registrations, worker), "commit;"]) + "\n"


def uninstall_sql() -> str:
    """Removes what `migrate` made, the ledger included; no table of the user's is touched."""
    drops = [f"drop function if exists public.catchup_{name}(text);" for name in _FUNCTIONS]
    return "\n".join([*drops, "drop schema if exists catchup cascade;", "notify pgrst, 'reload schema';"])


def worker_sql(spec: TableSpec) -> str:
    """Least privilege for one target: it may read what is declared and change the cells, and nothing else at all."""
    conditions = tuple(condition.column for condition in spec.pending)
    readable = dict.fromkeys((*spec.key, *spec.read, *spec.beside, *spec.cells, *spec.filters, *conditions))
    table = sql.Identifier(spec.schema, spec.table)
    worker = sql.Identifier(WORKER)
    parts: list[sql.Composable] = [
        sql.SQL("grant usage on schema {} to {};").format(sql.Identifier(spec.schema), worker),
        sql.SQL("grant select ({}) on {} to {};").format(_names(tuple(readable)), table, worker),
        _policy_sql(spec.schema, spec.table, "select"),
    ]
    if spec.cells:
        parts.append(sql.SQL("grant update ({}) on {} to {};").format(_names(spec.cells), table, worker))
        parts.append(_policy_sql(spec.schema, spec.table, "update"))
    if spec.joined:
        columns = dict.fromkeys((spec.joined.on, spec.joined.order_by, *spec.joined.columns))
        joined = sql.Identifier(spec.schema, spec.joined.table)
        parts.append(sql.SQL("grant select ({}) on {} to {};").format(_names(tuple(columns)), joined, worker))
        parts.append(_policy_sql(spec.schema, spec.joined.table, "select"))
    return "\n".join(_text(part) for part in parts)


def owned_sql(schema: str, table: str) -> str:
    """The least for rows that are the target's own; nothing where there is no such table."""
    place, worker = sql.Identifier(schema, table), sql.Identifier(WORKER)
    grant = sql.SQL("grant select, insert, update on {} to {};").format(place, worker)
    policies = " ".join(_text(_policy_sql(schema, table, verb)) for verb in ("select", "insert", "update"))
    body = sql.Literal(f"{_text(grant)} {policies}")
    return _text(
        sql.SQL("do $own$ begin if to_regclass({}) is not null then execute {}; end if; end $own$;").format(
            sql.Literal(_text(place)), body
        )
    )


def index_sql(registration: Registration) -> str:
    """A suggestion, printed and never run: this partial index took the worst page from 659 to 19 ms."""
    spec = registration.spec
    predicates: list[sql.Composable] = [
        sql.SQL("{} {}").format(sql.Identifier(c.column), sql.SQL(_plain(c.op)))
        if c.op in UNARY
        else sql.SQL("{} {} {}").format(sql.Identifier(c.column), sql.SQL(_plain(c.op)), sql.Literal(c.value))
        for c in spec.pending
    ]
    return _text(
        sql.SQL("create index concurrently if not exists {} on {} ({}) where {};").format(
            sql.Identifier(f"{spec.table}_{spec.cells[0] if spec.cells else registration.target}_pending"[:63]),
            sql.Identifier(spec.schema, spec.table),
            _names(spec.key),
            sql.SQL(" and ").join(predicates or [sql.SQL("true")]),
        )
    )


def _plain(op: str) -> str:
    known: tuple[str, ...] = ("=", "<>", "<", ">", *UNARY)
    return known[known.index(op)]


def _policy_sql(schema: str, table: str, verb: str) -> sql.Composed:
    """Row level security would hide every row from a role without a policy, and say nothing."""
    name = sql.Identifier(f"catchup {verb}s")
    place = sql.Identifier(schema, table)
    rows = {"select": "using (true)", "insert": "with check (true)", "update": "using (true) with check (true)"}[verb]
    create = sql.SQL("create policy {} on {} for {} to {} {}").format(
        name, place, sql.SQL(verb), sql.Identifier(WORKER), sql.SQL(rows)
    )
    return sql.SQL(
        "do $do$ begin if (select relrowsecurity from pg_class where oid = {}::regclass) then "
        "drop policy if exists {} on {}; {}; end if; end $do$;"
    ).format(sql.Literal(_text(place)), name, place, create)


def _parts(registrations: Sequence[Registration], worker: bool) -> list[str]:
    parts = []
    if worker:
        # NOLOGIN: giving it a password is the owner's own act, and no password is ever printed or logged.
        parts.append(
            f"do $do$ begin if not exists (select from pg_roles where rolname = '{WORKER}') then "
            f"create role {WORKER} nologin nosuperuser nobypassrls; end if; end $do$;"
        )
    folder = files("queries") / "sql"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    parts += [(folder / name).read_text(encoding="utf-8") for name in names]
    for registration in registrations:
        spec = json.dumps(spec_json(registration.spec))
        call = sql.SQL("select catchup.register({}, {}::jsonb);")
        parts.append(_text(call.format(sql.Literal(registration.target), sql.Literal(spec))))
        owned = json.dumps([[registration.spec.schema, name] for name in registration.owned])
        parts.append(
            _text(
                sql.SQL("select catchup.register_owned({}, {}::jsonb);").format(
                    sql.Literal(registration.target), sql.Literal(owned)
                )
            )
        )
        if worker:
            parts.append(worker_sql(registration.spec))
            parts += [owned_sql(registration.spec.schema, name) for name in registration.owned]
    return parts


async def _find_problems(connection: psycopg.AsyncConnection[Any], registrations: Sequence[Registration]) -> Any:
    version = await _version(connection)
    if version != SCHEMA_VERSION:
        yield f"schema version is {version or 'none'}, this client needs {SCHEMA_VERSION}"
        return
    for name in _FUNCTIONS:
        cursor = await connection.execute("select to_regprocedure(%s)", (f"public.catchup_{name}(text)",))
        row = await cursor.fetchone()
        if row is None or row[0] is None:
            yield f"function public.catchup_{name} is missing"
    for registration in registrations:
        spec = registration.spec
        cursor = await connection.execute(
            "select cell from catchup.cells where (target, table_schema, table_name) = (%s, %s, %s)",
            (registration.target, spec.schema, spec.table),
        )
        missing = sorted(set(spec.cells) - {row[0] for row in await cursor.fetchall()})
        if missing:
            yield f"target {registration.target}: {', '.join(missing)} not registered on {spec.schema}.{spec.table}"


async def _version(connection: psycopg.AsyncConnection[Any]) -> int | None:
    cursor = await connection.execute("select to_regclass('catchup.meta')")
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        return None
    cursor = await connection.execute("select version from catchup.meta")
    row = await cursor.fetchone()
    return int(row[0]) if row else None


async def _connect(url: str) -> psycopg.AsyncConnection[Any]:
    try:
        return await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=None, connect_timeout=10)
    except (psycopg.Error, OSError) as error:
        raise translate_connect(error) from error


def _names(names: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _text(part: sql.Composable) -> str:
    return part.as_string(None)
