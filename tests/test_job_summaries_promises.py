"""backfill-summaries against bugs of our own, a second run, dry runs under faults, and secrets: F48, F49, F50, G21."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.backfill_summaries import BackfillSummaries
from jobs.engine.asking import Asking, Errand, Stopped
from jobs.engine.job import Ask, Bad, Good, Means
from jobs.engine.verdict import Exit
from queries.chat import ChatAnswer
from queries.postgrest import PostgrestRoad
from tests.servers.bench import KEY, Bench
from tests.servers.fake_script import rule
from tests.servers.fault_proxy import HTML, Fault, FaultProxy, StartFaultProxy
from tests.servers.impaired import JOB
from tests.servers.lite import StartPostgrest
from tests.servers.shell import Ended, Shell


@dataclass(frozen=True, slots=True)
class Forgetful(BackfillSummaries):
    """A job with a planted bug: it takes the answer and says nothing about its row."""

    def judge(self, ask: Ask, answer: ChatAnswer, means: Means) -> list[Good | Bad]:
        del ask, answer, means
        return []


@pytest.mark.parametrize("rows", [3, 30])
async def test_f48_rows_that_are_asked_and_then_forgotten_are_exit_1(bench: Bench, rows: int) -> None:
    """A planted bug in the job: the books say how many rows nobody can account for, and no success is claimed."""
    await bench.fill(rows)
    verdict = await bench.run(job=Forgetful())
    assert (verdict.exit, verdict.books.balance(), verdict.books.wrote) == (Exit.UNEXPECTED, False, 0)
    assert "do not balance" in verdict.headline
    assert "unaccounted" in verdict.headline


async def test_f48_work_and_not_one_call_is_exit_1(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: every request ends before it is sent, booked as still to do. The sum is right, and it is no 0."""
    await bench.fill(3)

    async def do_nothing(self: Asking, ask: Ask, errand: Errand) -> list[Ask]:
        raise Stopped

    monkeypatch.setattr(Asking, "_ask", do_nothing)
    verdict = await bench.run()
    assert verdict.books.balance()
    assert (verdict.exit, verdict.calls) == (Exit.UNEXPECTED, 0)
    assert "not one call" in verdict.headline


async def test_f49_a_second_run_straight_after_success_is_free(bench: Bench) -> None:
    """No call, no write: not even a row version moves."""
    await bench.fill(60)
    assert (await bench.run()).books.wrote == 60
    versions = await bench.database.run("select id, xmin::text, ctid::text from videos order by id")
    calls = bench.fake.world.requests
    verdict = await bench.run()
    assert (verdict.exit, verdict.calls, verdict.books.selected) == (Exit.DONE, 0, 0)
    assert bench.fake.world.requests == calls
    assert await bench.database.run("select id, xmin::text, ctid::text from videos order by id") == versions


TIMEOUT = '{"code":"57014","message":"canceling statement due to statement timeout","details":null,"hint":null}'


async def nothing(bench: Bench) -> None:
    del bench


async def drop_column(bench: Bench) -> None:
    await bench.database.run("alter table videos drop column channel_name")


async def hold_lease(bench: Bench) -> None:
    await bench.run(limit=1)
    await bench.database.run(
        "insert into catchup.leases (run_id, target, generation, home, expires_at) "
        "values ('other', 'video-summaries', 99, '{}', now() + interval '1 hour')"
    )


async def leave_unfinished(bench: Bench) -> None:
    bench.fake.script(rule("quota", on={"after": 5}))
    await bench.run(concurrency=2)


async def fill_state_dir(bench: Bench) -> None:
    bench.state_dir.write_text("a file where the directory should be")


@pytest.mark.parametrize(
    ("fault", "prepare", "exits"),
    [
        (Fault("catchup_page", "answer", times=2, body="upstream", content_type="text/plain"), nothing, {0}),
        (Fault("catchup_page", "cut", times=2), nothing, {0}),
        (Fault("catchup_page", "answer", times=2, status=522, body=HTML, content_type="text/html"), nothing, {0}),
        (Fault("/", "answer", times=10_000, status=503, body=HTML, content_type="text/html"), nothing, {4, 5}),
        (Fault("catchup_page", "answer", status=500, body=TIMEOUT), nothing, {0, 4}),
        (Fault("catchup_hello", "answer", times=10_000, status=401, body="{}"), nothing, {10}),
        (Fault("/", "reset", times=10_000), nothing, {4, 5}),
        (None, drop_column, {0, 10}),
        (None, hold_lease, {0}),
        (None, leave_unfinished, {0}),
        (None, fill_state_dir, {0}),
    ],
    ids=[
        "F15-text", "F15-cut", "F16-some", "F16-all", "F17", "F22", "F11", "F20", "F8-held", "F28-unfinished", "F6",
    ],
)  # fmt: skip
async def test_f50_a_dry_run_only_reads_whatever_happens(
    bench: Bench,
    start_postgrest: StartPostgrest,
    start_fault_proxy: StartFaultProxy,
    fault: Fault | None,
    prepare: Callable[[Bench], Awaitable[None]],
    exits: set[int],
) -> None:
    """GETs and nothing else on the wire; no row, no file, no call, under each kind of fault."""
    await bench.fill(40)
    await prepare(bench)
    server = await start_postgrest(bench.database)
    proxy = await start_fault_proxy(server.url)
    if fault:
        proxy.inject(fault)
    before, calls = await everything(bench), bench.fake.world.requests
    verdict = await bench.run(road=PostgrestRoad(proxy.url, server.secret_key), dry_run=True, max_outage_s=1.0)
    assert int(verdict.exit) in exits, verdict.headline
    assert {request.method for request in proxy.requests} == {"GET"}
    assert await everything(bench) == before
    assert bench.fake.world.requests == calls


async def everything(bench: Bench) -> dict[str, Any]:
    """Every row of every table, and every file of the state directory."""
    tables = await bench.database.run(
        "select format('%I.%I', schemaname, tablename) from pg_tables "
        "where schemaname in ('public', 'catchup') order by 1"
    )
    found: dict[str, Any] = {
        name: await bench.database.run(f"select t::text from {name} t order by 1") for (name,) in tables
    }
    files = sorted(bench.state_dir.rglob("*")) if bench.state_dir.is_dir() else [bench.state_dir]
    found["files"] = [(str(path), path.read_bytes()) for path in files if path.is_file()]
    return found


PASSWORD = "pw-sentinel-4b1d8e27"
OTHER_KEY = "sk-another-sentinel-77aa88bb99"


def traces_of(secret: str) -> set[str]:
    """The secret, the middle of it, and its base64 forms at every alignment."""
    forms = {secret, secret[3:20]}
    for shift in range(3):
        coded = base64.b64encode(b"x" * shift + secret.encode()).decode()
        forms.add(coded[4:-4])
    return forms


def leaks(texts: dict[str, str], secrets: list[str]) -> list[str]:
    return [
        f"{where}: {form}"
        for secret in secrets
        for form in traces_of(secret)
        for where, text in texts.items()
        if form in text
    ]


async def all_text(bench: Bench, ended: list[Ended]) -> dict[str, str]:
    found = await everything(bench)
    files = {path: content.decode("latin-1") for path, content in found.pop("files")}
    said = {f"output {n}": each.out + each.err for n, each in enumerate(ended)}
    return {**{name: str(rows) for name, rows in found.items()}, **files, **said}


@pytest.mark.parametrize(
    ("script", "env"),
    [
        (rule("auth"), {"OPENAI_API_KEY": OTHER_KEY}),
        (
            rule("status", on={"after": 3}, status=500, body=f"<html>Authorization: Bearer {KEY}</html>"),
            {"CATCHUP_MAX_OUTAGE": "1s"},
        ),
        (rule("status", status=400, body={"error": {"message": f"bad key {KEY}", "code": "x"}}), {}),
        (rule("answer", text=f"The speaker explains that {KEY} is not a summary."), {}),
        (rule("reset", on={"every": 3}), {}),
        (rule("malformed", on={"after": 3}), {"CATCHUP_MAX_OUTAGE": "1s"}),
        (rule("quota"), {}),
    ],
    ids=["401 echo", "500 echo", "400 echo", "answer echo", "reset", "malformed", "quota"],
)
async def test_g21_no_secret_is_in_anything_we_say_or_keep_when_the_provider_fails(
    wired: Shell, bench: Bench, script: dict[str, Any], env: dict[str, str]
) -> None:
    """--verbose and --json output, journal, state directory and ledger tables: no key, no password, also coded."""
    await bench.fill(12)
    bench.fake.script(script)
    wired.env["DATABASE_URL"] = bench.database.dsn.replace("postgres@", f"postgres:{PASSWORD}@")
    ended = [await wired.run(JOB, "--verbose", "--concurrency", "12", **env), await wired.run("runs", "list")]
    texts = await all_text(bench, ended)
    said = "answer" in script["action"]["kind"]
    if said:  # what the model writes is stored as the row's text; the screen still hides it
        texts = {where: text for where, text in texts.items() if where.startswith("output")}
    assert leaks(texts, [KEY, PASSWORD, OTHER_KEY]) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/", "answer", times=10_000, status=401, body='{"message":"Invalid API key","hint":"SECRET"}'),
        Fault("catchup_write", "answer", nth=2, times=10_000, status=500, body='{"code":"XX000","message":"SECRET"}'),
        Fault("catchup_page", "answer", times=10_000, body="<html>apikey: SECRET</html>", content_type="text/html"),
        Fault("/", "reset", times=10_000),
        None,
    ],
    ids=["401", "500 echo", "page echo", "unreachable", "no fault"],
)
async def test_g21_no_secret_is_in_anything_we_say_or_keep_when_the_database_fails(
    wired: Shell,
    bench: Bench,
    start_postgrest: StartPostgrest,
    start_fault_proxy: StartFaultProxy,
    fault: Fault | None,
) -> None:
    """The same over Supabase's road, with a gateway that repeats the key it was sent."""
    await bench.fill(12)
    server = await start_postgrest(bench.database)
    proxy: FaultProxy = await start_fault_proxy(server.url)
    if fault:
        proxy.inject(
            Fault(**{**{n: getattr(fault, n) for n in Fault.__slots__}, "body": said(fault, server.secret_key)})
        )
    del wired.env["DATABASE_URL"]
    wired.env |= {"SUPABASE_URL": proxy.url, "SUPABASE_SERVICE_ROLE_KEY": server.secret_key, "CATCHUP_MAX_OUTAGE": "1s"}
    ended = [await wired.run(JOB, "--verbose"), await wired.run(JOB, "--dry-run", "--json")]
    assert (ended[0].code == 0) is (fault is None), ended[0].out + ended[0].err
    assert leaks(await all_text(bench, ended), [KEY, server.secret_key]) == []


def said(fault: Fault, secret: str) -> str:
    return fault.body.replace("SECRET", secret)


async def test_g21_nothing_of_ours_is_readable_by_others(wired: Shell, bench: Bench) -> None:
    """Directories 0700, files 0600: the journal holds texts that are nobody else's business."""
    await bench.fill(12)
    bench.fake.script(rule("quota", on={"after": 6}))
    await wired.run(JOB)
    paths: list[Path] = [bench.state_dir, *bench.state_dir.rglob("*")]
    open_to_others = [str(path) for path in paths if path.stat().st_mode & 0o077]
    assert open_to_others == []
