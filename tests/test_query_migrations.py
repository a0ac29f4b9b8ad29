"""`migrate`: everything or nothing, again without harm, printed, checked, removed; and least privilege that holds."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace

import psycopg
import pytest

from jobs.targets import Target
from queries.dsn import DsnRoad
from queries.errors import Misconfigured
from queries.ledger import SCHEMA_VERSION, Ledger
from queries.ledger_json import spec_json
from queries.migrations import Registration, check, index_sql, print_sql, uninstall, worker_sql
from queries.table import Condition, TableSpec
from tests.servers.postgres import Database
from tests.servers.roads import SCENES, VIDEOS, batch_of, begin, filled, query_of

TARGETS = [Registration(VIDEOS.name, VIDEOS.spec)]


async def functions(database: Database) -> int:
    [(count,)] = await database.run("select count(*) from pg_proc where proname like 'catchup\\_%'")
    return int(count)


async def test_running_it_again_changes_nothing_and_loses_nothing(database: Database) -> None:
    """The ledger's rows survive; the second run says what was there before."""
    await database.load("videos.sql")
    first = await database.migrate(TARGETS)
    assert (first.before, first.now, first.registered) == (None, SCHEMA_VERSION, (VIDEOS.name,))
    await database.run("insert into catchup.targets (target) values ('kept')")
    second = await database.migrate(TARGETS)
    assert second.before == SCHEMA_VERSION
    assert await database.run("select target from catchup.targets") == [("kept",)]


async def test_what_is_printed_is_what_runs(database: Database) -> None:
    """Supabase's SQL editor gets one transaction; `check` finds nothing to add."""
    await database.load("videos.sql")
    await database.run(print_sql(TARGETS, worker=True))
    await database.run(print_sql(TARGETS, worker=True))
    assert await check(database.dsn, TARGETS) == ()


async def test_check_names_what_is_missing(database: Database) -> None:
    """Before, half way, and with a target nobody registered."""
    await database.load("videos.sql")
    assert await check(database.dsn) == (f"schema version is none, this client needs {SCHEMA_VERSION}",)
    await database.migrate()
    [problem] = await check(database.dsn, TARGETS)
    assert "llm_summary" in problem
    await database.run("drop function public.catchup_write(text)")
    assert "function public.catchup_write is missing" in await check(database.dsn)


async def test_a_newer_schema_is_left_alone(database: Database) -> None:
    """DECISIONS 5: an older client names both versions and touches nothing."""
    await database.migrate()
    await database.run("update catchup.meta set version = 99; drop function public.catchup_write(text)")
    with pytest.raises(Misconfigured, match=f"version 99, this client knows {SCHEMA_VERSION}"):
        await database.migrate()
    assert await database.run("select to_regprocedure('public.catchup_write(text)')") == [(None,)]


WRONG = [
    pytest.param({"table": "vidoes"}, "does not exist", id="table"),
    pytest.param({"cells": ("llm_sumary",)}, "no column llm_sumary", id="cell"),
    pytest.param({"key": ("title",)}, "no unique index", id="key-not-unique"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG)
async def test_a_target_that_does_not_fit_its_table_rolls_everything_back(
    database: Database, wrong: dict[str, object], words: str
) -> None:
    """Cells are verified before they are registered; a key must be unique."""
    await database.load("videos.sql")
    with pytest.raises(Misconfigured, match=words):
        await database.migrate([Registration("wrong", replace(VIDEOS.spec, **wrong))])
    assert await functions(database) == 0


async def test_uninstall_leaves_the_users_tables(database: Database) -> None:
    """DECISIONS 5: it exists from the start, and takes only what is ours."""
    await database.load("videos.sql")
    await database.migrate(TARGETS)
    await uninstall(database.dsn)
    assert await functions(database) == 0
    left = await database.run("select to_regnamespace('catchup') is null, to_regclass('videos') is not null")
    assert left == [(True, True)]
    await uninstall(database.dsn)


async def test_every_function_is_invoker_with_an_empty_path_and_closed_to_the_public(database: Database) -> None:
    """DECISIONS 5: also the functions of a later version, since the catalog is asked and not a list."""
    await database.migrate(worker=True)
    ours = "(n.nspname = 'catchup' or p.proname like 'catchup\\_%%')"
    rows = await database.run(
        "select p.oid::regprocedure::text, p.prosecdef, array_to_string(p.proconfig, ' ') like '%%search_path=\"\"%%', "
        "has_function_privilege('anon', p.oid, 'EXECUTE'), has_function_privilege('authenticated', p.oid, 'EXECUTE'), "
        "has_function_privilege('nobody_special', p.oid, 'EXECUTE'), "
        "has_function_privilege('service_role', p.oid, 'EXECUTE'), "
        "has_function_privilege('catchup_worker', p.oid, 'EXECUTE') "
        f"from pg_proc p join pg_namespace n on n.oid = p.pronamespace where {ours} and %s",
        (True,),
    )
    assert len(rows) > 30
    assert {row[1:] for row in rows} == {(False, True, False, False, False, True, True)}, rows
    tables = await database.run(
        "select relname, relrowsecurity from pg_class where relnamespace = 'catchup'::regnamespace and relkind = 'r'"
    )
    assert all(secured for _, secured in tables)


async def test_only_the_owner_changes_the_registry(database: Database) -> None:
    """DECISIONS 10: else the promise "nothing but the declared cell" would be anybody's to widen."""
    await database.load("videos.sql")
    await database.migrate(TARGETS, worker=True)
    for role in ("service_role", "catchup_worker"):
        async with await database.connect() as connection:
            await connection.execute(f"set role {role}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute("insert into catchup.cells values ('t', 'public', 'videos', 'title')")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute("select catchup.register('t', %s)", (json.dumps(spec_json(VIDEOS.spec)),))


@pytest.mark.parametrize(
    ("schema", "target"), [("videos.sql", VIDEOS), ("scenes.sql", SCENES)], ids=["videos", "scenes"]
)
async def test_the_least_privilege_role_can_do_the_work_and_nothing_else(
    database: Database, schema: str, target: Target
) -> None:
    """X4: NOSUPERUSER NOBYPASSRLS, with column rights and a policy; the database itself refuses any other cell."""
    await database.load(schema)
    await database.migrate([target], worker=True)
    columns = {"videos.sql": "(id, title, channel_id) values ('v1', 't', 'c')",
               "scenes.sql": "(owner_id, storage_path, status) values (gen_random_uuid(), 'p', 'READY')"}  # fmt: skip
    await database.run(f"insert into videos {columns[schema]}")
    road = DsnRoad(database.dsn_as("catchup_worker"))
    ledger = Ledger(road)
    hello = await ledger.hello(target.spec, target.name)
    assert (hello.role, hello.least_privilege) == ("catchup_worker", True)
    facts = await ledger.facts(target.spec)
    assert facts.has_update_policy == facts.row_security
    lease = await begin(ledger, target)
    [row] = await ledger.page(query_of(target))
    assert (await ledger.write(batch_of(target, lease, [filled(row, "s")]))).wrote == {0}
    await ledger.settle_run(lease.run_id, spent_usd=0, possibly_usd=0)
    await ledger.close_run(run_id=lease.run_id, generation=lease.generation, state="finished", stop_reason="")
    await ledger.release(lease)
    async with await psycopg.AsyncConnection.connect(database.dsn_as("catchup_worker"), autocommit=True) as worker:
        another_cell = "update videos set updated_at = now()"
        for forbidden in (another_cell, "delete from videos", "insert into videos default values"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await worker.execute(forbidden.encode())
    await road.close()


async def test_a_role_that_may_do_more_does_not_pass_for_least_privilege(database: Database) -> None:
    """One column too many and `hello` says so."""
    await database.load("videos.sql")
    await database.migrate(TARGETS, worker=True)
    await database.run("grant update (title) on videos to catchup_worker")
    road = DsnRoad(database.dsn_as("catchup_worker"))
    assert not (await Ledger(road).hello(VIDEOS.spec, VIDEOS.name)).least_privilege
    await road.close()


async def test_the_suggested_index_serves_what_is_pending(database: Database) -> None:
    """Printed, never run by us; run by the owner, the facts find it."""
    await database.load("scenes.sql")
    await database.migrate([SCENES])
    suggestion = index_sql(Registration(SCENES.name, SCENES.spec))
    assert suggestion.startswith("create index concurrently")
    await database.run(suggestion)
    road = DsnRoad(database.dsn)
    assert (await Ledger(road).facts(SCENES.spec)).pending_index
    await road.close()


def test_printed_names_and_values_are_quoted() -> None:
    """A name with a quote in it, a value with one: still one name and one value."""
    spec = TableSpec('ta"ble', ("id",), (), ("ce;ll",), (Condition("st", "=", "it's"),))
    text = worker_sql(spec) + index_sql(Registration("t'x", spec)) + print_sql([Registration("t'x", spec)])
    assert '"ta""ble"' in text
    assert "'it''s'" in text
    assert "catchup.register('t''x'" in text
    assert spec_json(spec)["table"] == 'ta"ble'


def test_no_password_is_printed() -> None:
    """The role is made without one: giving it one is the owner's own act."""
    assert not re.search("password", print_sql(TARGETS, worker=True), re.IGNORECASE)


async def test_two_migrations_at_once_wait_for_each_other(database: Database) -> None:
    """A deployment on two machines: neither fails, the result is one schema."""
    await database.load("videos.sql")
    await asyncio.gather(database.migrate(TARGETS), database.migrate(TARGETS))
    assert await check(database.dsn, TARGETS) == ()
