"""The commands around a run: init, migrate, doctor, runs, db. And the terminal's question."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
from pathlib import Path

import pytest

from tests.servers.bench import KEY, Bench
from tests.servers.lite import StartPostgrest
from tests.servers.postgres import Database
from tests.servers.shell import Shell, interrupt, wait_for_calls

JOB = "backfill-summaries"
TALKS = "create table talks (id bigint primary key, title text not null, body text, short_summary text)"


def _draft_taken(file: Path) -> None:
    """Uncomments the first suggested target, as an operator would."""
    lines = file.read_text().splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("# [targets."))
    taken = [line.removeprefix("# ") for line in lines[begin : begin + 10]]
    file.write_text("\n".join([*lines[:begin], *taken]) + "\n")


async def test_init_drafts_a_target_for_a_foreign_table_and_the_rest_follows(shell: Shell, database: Database) -> None:
    """From an unknown database to a dry run: init, uncomment, migrate, look."""
    await database.run(TALKS)
    await database.run(
        "insert into talks select n, 'Talk ' || n, repeat('words about ships ', 9) from generate_series(1, 7) n"
    )
    shell.env |= {"DATABASE_URL": database.dsn}
    assert (await shell.run("init")).code == 0
    files = [shell.directory / name for name in (".env", "catchup.toml")]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    _draft_taken(files[1])
    del shell.env["DATABASE_URL"]  # from here on .env holds it
    assert (await shell.run("migrate")).code == 0
    ended = await shell.run(JOB, "--dry-run")
    assert ended.code == 0, ended.err
    assert "7 pending" in ended.out
    assert f"by DATABASE_URL from {files[0]}" in ended.err


async def test_init_overwrites_nothing(wired: Shell) -> None:
    """Twice is as good as once."""
    (wired.directory / ".env").write_text("# mine\n")
    assert (await wired.run("init")).code == 0
    first = (wired.directory / "catchup.toml").read_text()
    ended = await wired.run("init", "--json")
    assert json.loads(ended.out)["wrote"] == {"catchup.toml": False, ".env": False}
    assert (wired.directory / ".env").read_text() == "# mine\n"
    assert (wired.directory / "catchup.toml").read_text() == first


async def test_migrate_check_says_what_is_missing_and_migrate_puts_it_right(shell: Shell, database: Database) -> None:
    """10 before, 0 after, and again 0."""
    await database.load("videos.sql")
    shell.env |= {"DATABASE_URL": database.dsn}
    assert [(await shell.run("migrate", *words)).code for words in (["--check"], [], ["--check"], [])] == [10, 0, 0, 0]


async def test_migrate_print_is_sql_and_nothing_else_and_does_the_same(shell: Shell, database: Database) -> None:
    """What is printed for an SQL editor installs what migrate installs."""
    await database.load("videos.sql")
    shell.env |= {"DATABASE_URL": database.dsn}
    printed = await shell.run("migrate", "--print")
    assert await database.run("select to_regclass('catchup.runs')") == [(None,)]
    await database.run(printed.out)
    assert (await shell.run("migrate", "--check")).code == 0


async def test_uninstall_needs_yes_and_leaves_the_users_tables(wired: Shell, bench: Bench) -> None:
    """The ledger goes, the rows stay."""
    await bench.fill(2)
    assert (await wired.run("migrate", "--uninstall")).code == 10
    assert (await wired.run("migrate", "--uninstall", "--yes")).code == 0
    assert (await wired.run("migrate", "--check")).code == 10
    assert len(await bench.cells()) == 2


async def test_over_rest_migrate_prints_for_the_sql_editor_and_the_job_runs(
    wired: Shell, bench: Bench, start_postgrest: StartPostgrest
) -> None:
    """Supabase without a DSN: the SQL on stdout, the way on stderr, exit 10; the job itself needs no DSN."""
    await bench.fill(3)
    rest = await start_postgrest(bench.database)
    del wired.env["DATABASE_URL"]
    wired.env |= {"SUPABASE_URL": rest.url, "SUPABASE_SERVICE_ROLE_KEY": rest.secret_key}
    printed = await wired.run("migrate")
    assert (printed.code, printed.out.startswith("-- catchup")) == (10, True)
    assert "SQL editor" in printed.err
    ended = await wired.run(JOB)
    assert ended.code == 0, ended.out + ended.err
    assert all((await bench.cells()).values())


async def test_doctor_says_which_promise_holds(wired: Shell) -> None:
    """Settings, role, ledger, cells, state directory; no key, and no rows of a table that Postgres never counted."""
    (wired.directory / "catchup.toml").write_text('[queue]\nlibrary = "celery"\nname = "videos"\n')
    ended = await wired.run("doctor", BROKER_URL="redis://:hush-hush@127.0.0.1:1/0")
    assert ended.code == 0
    assert "127.0.0.1, queue videos of celery" in " ".join(ended.out.split())
    assert "~0 rows" not in ended.out
    assert "hush-hush" not in ended.out
    assert "cells kept by our functions only" in " ".join(ended.out.split())
    assert "a key is set" in ended.out
    assert KEY not in ended.out


async def test_doctor_exits_10_when_something_cannot_work(shell: Shell, database: Database) -> None:
    """No ledger is no run."""
    await database.load("videos.sql")
    ended = await shell.run("doctor", DATABASE_URL=database.dsn)
    assert ended.code == 10
    assert "catchup migrate" in ended.out


async def test_a_run_is_found_by_the_beginning_of_its_id(wired: Shell, bench: Bench) -> None:
    """list, show and show --json tell of the same run; a wrong id exits 10."""
    await bench.fill(3)
    await wired.run(JOB)
    listed = json.loads((await wired.run("runs", "list", "--json")).out)
    shown = await wired.run("runs", "show", listed["run_id"][:6])
    assert f"{listed['run_id']} · {JOB} · video-summaries" in shown.out
    assert json.loads((await wired.run("runs", "show", listed["run_id"], "--json")).out)["books"]["wrote"] == 3
    assert (await wired.run("runs", "show", "nothing")).code == 10


async def test_resume_goes_on_under_the_runs_own_settings(wired: Shell, bench: Bench) -> None:
    """The filter of the first start holds for the second, without being typed again."""
    await bench.fill(40)
    bench.fake.configure(latency=0.1)
    child = await wired.start(JOB, "--json", "--concurrency", "1", "--where", "channel_id=c1")
    await wait_for_calls(bench, 3)
    interrupt(child)
    out, _ = await child.communicate()
    assert child.returncode == 130
    bench.fake.configure(latency=0.0)
    run = json.loads(out.splitlines()[-1])["run"]
    ended = await wired.run("runs", "resume", run, "--json")
    assert ended.code == 0, ended.out
    wrote = await bench.database.run("select channel_id, count(*) from videos where llm_summary is not null group by 1")
    assert wrote == [("c1", 6)]
    assert (await wired.run("runs", "resume", run)).code == 10


async def test_cancel_reaches_a_running_run(wired: Shell, bench: Bench) -> None:
    """Asked from another terminal, it stops by itself."""
    await bench.fill(300)
    bench.fake.configure(latency=0.2)
    child = await wired.start(JOB, "--json", "--concurrency", "2")
    await wait_for_calls(bench, 5)
    listed = json.loads((await wired.run("runs", "list", "--json")).out)
    assert (await wired.run("runs", "cancel", listed["run_id"])).code == 0
    await asyncio.wait_for(child.communicate(), 40)
    assert child.returncode != 0
    assert bench.fake.world.requests < 300


async def test_a_second_start_exits_11_at_once(wired: Shell, bench: Bench) -> None:
    """Overlapping cron lines: the second does nothing and says so."""
    await bench.fill(40)
    bench.fake.configure(latency=0.3)
    child = await wired.start(JOB, "--concurrency", "1")
    await wait_for_calls(bench, 2)
    ended = await wired.run(JOB)
    assert ended.code == 11
    interrupt(child)
    await child.communicate()


async def test_max_runtime_stops_by_itself_with_4(wired: Shell, bench: Bench) -> None:
    """More to do is no failure: cron comes again."""
    await bench.fill(60)
    bench.fake.configure(latency=0.3)
    ended = await wired.run(JOB, "--concurrency", "1", "--max-runtime", "1s")
    assert ended.code == 4
    assert "next" in ended.out


async def test_ctrl_c_at_the_question_ends_the_command(wired: Shell, bench: Bench) -> None:
    """No answer is no; nothing waits for an Enter that will not come."""
    await bench.fill(1_200)
    ended = await wired.run_in_terminal(JOB, wait_for=b"[y/N]", answer=b"\x03")
    assert ended.code == 130
    assert bench.fake.world.requests == 0


async def test_yes_at_the_question_starts_the_run(wired: Shell, bench: Bench) -> None:
    """The plan is agreed to on the terminal."""
    await bench.fill(1_100)
    ended = await wired.run_in_terminal(JOB, wait_for=b"[y/N]", answer=b"y\n")
    assert ended.code == 0
    assert all((await bench.cells()).values())


@pytest.mark.parametrize("words", [["db", "stop"], ["db", "stop", "--json"]], ids=" ".join)
async def test_db_stop_without_a_server_says_so(shell: Shell, words: list[str]) -> None:
    """Nothing to stop is no failure."""
    ended = await shell.run(*words)
    assert ended.code == 0
    assert "not running" in ended.out


async def test_local_is_a_whole_world_without_an_account(shell: Shell) -> None:
    """--local starts the embedded server, and it is stopped when the command ends."""
    assert (await shell.run("init", "--local")).code == 0
    assert "[local]" in (shell.directory / "catchup.toml").read_text()
    ended = await shell.run("db", "stop")
    assert "not running" in ended.out


async def test_a_killed_process_is_not_said_to_be_running(wired: Shell, bench: Bench) -> None:
    """The ledger cannot know, but a lock that nobody holds proves it on this host."""
    await bench.fill(50)
    bench.fake.configure(latency=0.3)
    child = await wired.start("backfill-summaries", "--concurrency", "2")
    await wait_for_calls(bench, 4)
    assert "running" in (await wired.run("runs", "list")).out
    interrupt(child, signal.SIGKILL)
    await child.wait()
    listed = (await wired.run("runs", "list")).out
    assert ("running" not in listed, "its process is dead" in listed) == (True, True)
