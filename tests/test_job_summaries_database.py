"""backfill-summaries when the database misbehaves: the rows of the fault matrix that it causes, over both roads."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from jobs.engine.verdict import Exit
from queries.dsn import DsnRoad
from queries.postgrest import PostgrestRoad
from queries.table import Condition
from tests.servers.bench import SCENES, VIDEOS, Bench, sums
from tests.servers.fake_script import rule
from tests.servers.fault_proxy import HTML, Fault, FaultProxy, StartFaultProxy
from tests.servers.lite import StartPostgrest

WRITE, PAGE = "rpc/catchup_write", "rpc/catchup_page"
TIMEOUT = '{"code":"57014","message":"canceling statement due to statement timeout","details":null,"hint":null}'
POOL = '{"code":"PGRST003","message":"Timed out acquiring connection from connection pool.","details":null,"hint":null}'
EXPIRED = '{"code":"PGRST303","message":"JWT expired","details":null,"hint":null}'


@pytest.fixture
async def proxied(
    bench: Bench, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy
) -> tuple[Bench, FaultProxy, Any]:
    """The PostgREST road with a proxy on it that can do what gateways do."""
    server = await start_postgrest(bench.database)
    proxy = await start_fault_proxy(server.url)
    return bench, proxy, lambda: PostgrestRoad(proxy.url, server.secret_key)


Proxied = tuple[Bench, FaultProxy, Any]


async def test_the_plain_run_over_postgrest_is_the_plain_run(proxied: Proxied) -> None:
    """Same rows, same books, and no request but to our functions and the table's own columns."""
    bench, proxy, road = proxied
    await bench.fill(120)
    verdict = await bench.run(road=road())
    assert (verdict.exit, verdict.books.wrote, verdict.calls) == (Exit.DONE, 120, 120)
    assert (await bench.run(road=road())).calls == 0
    assert {request.method for request in proxy.requests if "/rpc/" not in request.path} <= {"GET"}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(PAGE, "answer", nth=2, times=2, body="upstream connect error", content_type="text/plain"),
        Fault(PAGE, "cut", nth=2, times=2),
        Fault(PAGE, "answer", nth=1, times=3, status=522, body=HTML, content_type="text/html"),
        Fault(PAGE, "reset", nth=2, times=2),
        Fault(WRITE, "answer", nth=1, times=2, body="upstream connect error", content_type="text/plain"),
        Fault(WRITE, "cut", nth=1, times=2),
        Fault(WRITE, "lost", nth=2, times=1),
        Fault(WRITE, "answer", nth=2, times=2, status=502, body=HTML, content_type="text/html"),
        Fault(WRITE, "answer", nth=2, times=2, status=504, body=POOL, headers=(("Retry-After", "1"),)),
        Fault("catchup_open_run", "lost", nth=1),
        Fault("catchup_take_lease", "lost", nth=1),
        Fault("catchup_close_run", "lost", nth=1),
    ],
    ids=[
        "F15-page-text", "F15-page-cut", "F16-page-522", "F11-page-reset", "F15-write-text", "F15-write-cut",
        "F15-write-lost", "F16-write-502", "F18-pool", "lost-open", "lost-lease", "lost-close",
    ],
)  # fmt: skip
async def test_a_passing_fault_of_the_database_costs_nothing_but_time(proxied: Proxied, fault: Fault) -> None:
    """Every row is written once, paid once, and nothing is booked as changed because an answer was lost."""
    bench, proxy, road = proxied
    await bench.fill(120)
    proxy.inject(fault)
    verdict = await bench.run(road=road(), max_outage_s=30.0)
    assert (verdict.exit, sums(verdict)) == (Exit.DONE, (120, 0, 0, 0, 0, 0)), verdict
    assert set(bench.paid().values()) == {1}
    counted = (await bench.database.run("select books from catchup.runs"))[0][0]
    assert counted["wrote"] == 120


async def test_f16_a_database_that_stays_down_stops_the_run_and_loses_nothing(proxied: Proxied) -> None:
    """Answers that were paid are in the journal; the next run stores them without paying."""
    bench, proxy, road = proxied
    bench.fake.configure(latency=0.05)
    await bench.fill(600)
    proxy.inject(Fault(WRITE, "answer", nth=2, times=10_000, status=521, body=HTML, content_type="text/html"))
    verdict = await bench.run(road=road(), max_outage_s=1.0, concurrency=8)
    assert verdict.exit in (Exit.BREAKER, Exit.STOPPED)
    assert verdict.books.balance()
    paid_before = dict(bench.paid())
    proxy.clear()
    again = await bench.run(road=road())
    assert again.exit is Exit.DONE
    assert again.recovered > 0
    assert set(bench.paid().values()) == {1}
    assert len(paid_before) < 600
    assert all((await bench.cells()).values())


async def test_f17_a_statement_timeout_makes_pages_and_writes_smaller(proxied: Proxied) -> None:
    """57014 on a page and on a write: halved, done, and no row is blamed."""
    bench, proxy, road = proxied
    await bench.fill(150)
    proxy.inject(Fault(PAGE, "answer", nth=2, times=2, status=500, body=TIMEOUT))
    proxy.inject(Fault(WRITE, "answer", nth=2, times=2, status=500, body=TIMEOUT))
    verdict = await bench.run(road=road())
    assert (verdict.exit, verdict.books.wrote, set(bench.paid().values())) == (Exit.DONE, 150, {1})


async def test_f17_real_timeouts_above_some_rows(bench: Bench) -> None:
    """The server itself cancels what takes too long: the scan ends with the size that fits."""
    await bench.fill(400)
    await bench.database.run(
        "create function public.slow(t text) returns text language plpgsql as "
        "$$ begin perform pg_sleep(0.004); return t; end $$; "
        "alter table videos rename to videos_table; "
        "create view videos as select id, slow(title) as title, channel_id, channel_name, description, llm_summary, "
        "llm_summary_generated_at, llm_summary_model from videos_table"
    )
    await bench.database.run(f"alter database {bench.database.name} set statement_timeout = '600ms'")
    rows = await bench.database.run("select count(*) from videos_table where llm_summary is null")
    verdict = await bench.run()
    await bench.database.run(f"alter database {bench.database.name} reset statement_timeout")
    assert rows[0][0] == 400
    assert verdict.exit in (Exit.DONE, Exit.REFUSED), verdict.headline  # a view has no unique key: then it says so
    assert verdict.books.balance()


@pytest.mark.parametrize("status", [302, 307])
async def test_f26_a_redirect_is_an_error_and_the_key_goes_nowhere(
    proxied: Proxied, start_fault_proxy: StartFaultProxy, status: int
) -> None:
    """Not one request, and so not one header, reaches the other host."""
    bench, proxy, road = proxied
    await bench.fill(10)
    elsewhere = await start_fault_proxy(bench.fake.url)
    proxy.inject(Fault(PAGE, "answer", times=100, status=status, headers=(("Location", f"{elsewhere.url}/x"),)))
    verdict = await bench.run(road=road())
    assert (verdict.exit, elsewhere.requests, bench.fake.world.requests) == (Exit.REFUSED, [], 0)


async def test_f22_a_key_that_expires_in_the_middle_stops_the_run(proxied: Proxied) -> None:
    """401 at the third write: exit 10, no row blamed, what was paid is journaled and stored by the next run."""
    bench, proxy, road = proxied
    bench.fake.configure(latency=0.02)
    await bench.fill(400)
    proxy.inject(Fault(WRITE, "answer", nth=3, times=10_000, status=401, body=EXPIRED))
    verdict = await bench.run(road=road(), concurrency=4)
    assert (verdict.exit, sum(verdict.books.failed.values())) == (Exit.REFUSED, 0)
    assert verdict.books.balance()
    proxy.clear()
    again = await bench.run(road=road())
    assert (again.exit, again.books.wrote + verdict.books.wrote) == (Exit.DONE, 400)
    assert set(bench.paid().values()) == {1}


async def test_f24_a_row_cap_and_ties_lose_nothing(bench: Bench, start_postgrest: StartPostgrest) -> None:
    """The server cuts every list at 20 rows and says nothing: all 150 are read."""
    await bench.fill(150)
    server = await start_postgrest(bench.database, max_rows=20)
    verdict = await bench.run(road=PostgrestRoad(server.url, server.secret_key))
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 150)


@pytest.mark.parametrize("kind", ["dsn", "postgrest"])
async def test_f19_row_level_security_and_a_wrong_key_cost_at_most_one_paid_call(
    bench: Bench, start_postgrest: StartPostgrest, kind: str
) -> None:
    """DOMAIN.md (5): refused with the reason, not "nothing to do"."""
    await bench.database.run("drop table videos")
    await bench.database.load("scenes.sql")
    await bench.database.migrate([SCENES])
    await bench.database.run(
        "insert into videos (id, owner_id, storage_path, filename, status) "
        "select gen_random_uuid(), gen_random_uuid(), 'p', 'harbour.mp4', 'READY' from generate_series(1, 20)"
    )
    if kind == "dsn":
        road: Any = DsnRoad(bench.database.dsn_as("nobody_special"))
    else:
        server = await start_postgrest(bench.database)
        road = PostgrestRoad(server.url, server.publishable_key)
    verdict = await bench.run(road=road, target=SCENES)
    assert verdict.exit is Exit.REFUSED
    assert sum(bench.paid().values()) <= 1
    assert verdict.headline, verdict.fix


async def test_the_least_privileged_role_can_do_the_whole_job(bench: Bench) -> None:
    """catchup_worker may select and update the declared cells: enough, and the verdict says the database holds it."""
    await bench.database.migrate([VIDEOS], worker=True)
    await bench.fill(40)
    verdict = await bench.run(road=DsnRoad(bench.database.dsn_as("catchup_worker")))
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 40), verdict
    assert verdict.cells_enforced_by.startswith("the database")


async def test_scene_rollup_joins_the_scenes_in_order(bench: Bench) -> None:
    """DOMAIN.md (5): uuid keys, an enum in the condition, a trigger on the table, scenes read with their video."""
    await bench.database.run("drop table videos")
    await bench.database.load("scenes.sql")
    await bench.database.migrate([SCENES])
    await bench.database.run(
        "insert into videos (owner_id, storage_path, filename, status) select gen_random_uuid(), 'p', 'f' || n, "
        "(case when n <= 12 then 'READY' else 'PENDING' end)::video_status from generate_series(1, 15) n; "
        "insert into video_scenes (video_id, index, visual_summary, transcript_segment) "
        "select v.id, n, 'A crane lifts container ' || n || ' from the ship ' || v.filename, "
        "'Here we see step ' || n || ' of the unloading' "
        "from videos v, generate_series(3, 1, -1) n"
    )
    verdict = await bench.run(target=SCENES)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 12), verdict
    asked = bench.fake.bodies[0]["messages"][-1]["content"]
    assert asked.index("step 1") < asked.index("step 2") < asked.index("step 3")


async def test_f20_a_missing_column_is_refused_with_its_name_and_nothing_paid(bench: Bench) -> None:
    """Names are checked against the real schema before anything else happens."""
    await bench.fill(5)
    await bench.database.run("alter table videos drop column channel_name")
    verdict = await bench.run()
    assert (verdict.exit, bench.fake.world.requests) == (Exit.REFUSED, 0)
    assert "channel_name" in verdict.headline


async def test_f20_a_not_null_column_is_no_obstacle_because_nothing_is_inserted(bench: Bench) -> None:
    """Incident 4: upserts hit NOT NULL columns; an UPDATE does not."""
    await bench.fill(5)
    await bench.database.run(
        "alter table videos add column owner uuid not null default gen_random_uuid(); "
        "alter table videos alter column owner drop default"
    )
    assert (await bench.run()).books.wrote == 5


async def test_f21_a_schema_changed_in_the_middle_stops_the_run_and_blames_no_row(bench: Bench) -> None:
    """The cell is renamed while we work: one cause, one report."""
    bench.fake.configure(latency=0.02)
    await bench.fill(600)

    async def rename() -> None:
        while bench.fake.world.requests < 100:
            await asyncio.sleep(0.005)
        await bench.database.run("alter table videos rename column llm_summary to summary")

    verdict, _ = await asyncio.gather(bench.run(concurrency=8), rename())
    assert (verdict.exit, sum(verdict.books.failed.values())) == (Exit.REFUSED, 0)
    assert verdict.books.balance()
    await bench.database.run("alter table videos rename column summary to llm_summary")
    assert (await bench.run()).exit is Exit.DONE
    assert set(bench.paid().values()) == {1}


async def test_f23_edits_deletes_and_others_texts_are_never_overwritten(bench: Bench) -> None:
    """Rows that change while the model is thinking are named and left as they are; exit 3."""
    bench.fake.configure(latency=0.15)
    await bench.fill(60)
    await bench.run(limit=1)

    async def meddle() -> None:
        while bench.fake.world.open < 20:
            await asyncio.sleep(0.005)
        await bench.database.run(
            "update videos set description = description || ' (edited)' where id like '%%3' and llm_summary is null"
        )
        await bench.database.run("delete from videos where id like '%%5' and llm_summary is null")
        await bench.database.run(
            "update videos set llm_summary = 'by hand' where id like '%%7' and llm_summary is null"
        )

    verdict, _ = await asyncio.gather(bench.run(concurrency=60), meddle())
    assert verdict.exit is Exit.SOME_NAMED
    assert (verdict.books.changed, verdict.books.gone) == (12, 6)
    cells = await bench.cells()
    assert all(cells[key] == "by hand" for key in cells if key.endswith("7"))
    assert all(cells[key] is None for key in cells if key.endswith("3"))
    assert {named.reason for named in verdict.named} == {"edited", "filled", "gone"}
    again = await bench.run()
    assert (again.exit, again.books.wrote) == (Exit.DONE, 6)


async def test_one_row_the_database_refuses_does_not_take_the_others_with_it(bench: Bench) -> None:
    """A check constraint rejects one text: bisected down to the row, which is named with the database's words."""
    await bench.fill(64)
    await bench.database.run("alter table videos add check (llm_summary is null or id <> 'v000040')")
    verdict = await bench.run()
    assert (verdict.exit, verdict.books.wrote, sum(verdict.books.failed.values())) == (Exit.SOME_NAMED, 63, 1)
    assert verdict.named[0].key == "v000040"
    assert "check" in verdict.named[0].detail


async def test_f48_zero_candidates_is_zero_and_says_so(bench: Bench) -> None:
    """Nothing to do is exit 0, or 9 where the operator wants to know."""
    verdict = await bench.run()
    assert (verdict.exit, verdict.books.selected, verdict.calls) == (Exit.DONE, 0, 0)
    assert (await bench.run(error_on_nothing=True)).exit is Exit.NOTHING_TO_DO


@pytest.mark.parametrize("migrated", [True, False])
async def test_f50_a_dry_run_only_reads_and_selects_what_the_real_run_selects(
    bench: Bench, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy, migrated: bool
) -> None:
    """Only GETs, no ledger row, no file; the plan's rows and cost are those of the run that follows."""
    await bench.fill(90)
    await bench.fill(10, prefix="short", text=".")
    await bench.database.run("update videos set description = 'too short', title = 'x' where id like 'short%%'")
    if not migrated:
        await bench.database.run("drop schema catchup cascade; drop function public.catchup_hello(text)")
    server = await start_postgrest(bench.database)
    proxy = await start_fault_proxy(server.url)
    dry = await bench.run(road=PostgrestRoad(proxy.url, server.secret_key), dry_run=True)
    assert dry.exit is Exit.DONE
    assert {request.method for request in proxy.requests} == {"GET"}
    assert not bench.state_dir.exists()
    assert bench.fake.world.requests == 0
    plan = bench.memory.plans[-1]
    assert (plan.pending_counted, sum(count for _, count in plan.would_skip)) == (100, 10)
    if migrated:
        assert await bench.database.run("select count(*) from catchup.runs") == [(0,)]
        verdict = await bench.run()
        assert (verdict.books.selected, verdict.books.wrote) == (100, 90)
        assert plan.estimate_usd == pytest.approx(verdict.money.actual_usd, rel=0.5)


async def test_incident_10_a_condition_that_became_true_for_every_row_asks_before_it_pays(bench: Bench) -> None:
    """When the text moved to another table, `llm_summary is null` was true for all of 1,118,401 rows."""
    await bench.fill(1_500)
    bench.memory.agrees = False
    verdict = await bench.run(yes=False)
    assert (verdict.exit, bench.fake.world.requests) == (Exit.REFUSED, 0)
    assert "more than 1,000 rows" in bench.memory.asked[0]
    assert (await bench.run(yes=False, limit=20)).books.wrote == 20
    assert (await bench.run(yes=False)).exit is Exit.REFUSED
    assert "10 times the 20 rows" in bench.memory.asked[-1]


async def test_incident_8_a_run_can_be_stopped_from_elsewhere(bench: Bench) -> None:
    """One click had started 184,053 updates, and nobody could stop it: `runs cancel` does, within a write."""
    bench.fake.configure(latency=0.05)
    await bench.fill(2_000)

    async def cancel() -> None:
        while bench.fake.world.requests < 60:
            await asyncio.sleep(0.01)
        await bench.database.run("update catchup.runs set cancel_asked = true")

    verdict, _ = await asyncio.gather(bench.run(concurrency=8), cancel())
    assert verdict.exit is Exit.STOPPED
    assert "cancel" in verdict.headline
    assert verdict.books.wrote < 2_000
    assert verdict.books.balance()


async def test_incident_5_pending_without_an_index_never_counts_the_table(bench: Bench) -> None:
    """No statement of a run counts everything: the guard reads at most a thousand and one keys."""
    await bench.fill(3_000)
    await bench.run(limit=5)
    source = await bench.database.run("select prosrc from pg_proc where proname = 'catchup_count'")
    assert "limit" in source[0][0].lower() or "at_most" in source[0][0]
    assert bench.memory.plans[-1].pending_counted == 5


async def test_new_triggers_must_be_allowed_by_name(bench: Bench) -> None:
    """178,000 updates can be 178,000 messages to customers."""
    await bench.fill(10)
    await bench.run(limit=3)
    await bench.database.run(
        "create function public.tell() returns trigger language plpgsql as $$ begin return new; end $$; "
        "create trigger tell_customers after update on videos for each row execute function public.tell()"
    )
    verdict = await bench.run()
    assert (verdict.exit, verdict.calls) == (Exit.REFUSED, 0)
    assert "tell_customers" in verdict.headline
    allowed = tuple(bench.memory.plans[-1].new_triggers)
    assert (await bench.run(allow_triggers=allowed)).books.wrote == 7


async def test_a_trigger_that_undoes_the_write_stops_after_one_paid_call(bench: Bench) -> None:
    """Confirmed as written, and reading it back shows nothing: G2's canary."""
    await bench.fill(10)
    await bench.database.run(
        "create function public.undo() returns trigger language plpgsql as "
        "$$ begin new.llm_summary := null; return new; end $$; "
        "create trigger undo before update on videos for each row execute function public.undo()"
    )
    verdict = await bench.run()
    assert (verdict.exit, sum(bench.paid().values())) == (Exit.REFUSED, 1)


async def test_a_run_that_was_different_is_not_continued_by_accident(bench: Bench) -> None:
    """Another prompt over an unfinished run is refused, saying what differs; --fresh gives the cursor up."""
    bench.fake.configure(latency=0.05)
    await bench.fill(300)
    await bench.run(max_runtime_s=0.6, concurrency=4)
    other = replace(VIDEOS, prompt="Say it in French, in one sentence.")
    verdict = await bench.run(target=other)
    assert verdict.exit is Exit.REFUSED
    assert "prompt was" in verdict.headline
    assert (await bench.run(target=other, fresh=True)).exit is Exit.DONE
    assert set(bench.paid().values()) == {1}


async def test_where_and_limit_count_what_is_admitted(bench: Bench) -> None:
    """--limit counts rows asked about, not rows skipped; cron's 50 are never the same 50."""
    await bench.fill(30)
    await bench.database.run("update videos set title = 'x', description = 'short' where id <= 'v000010'")
    verdict = await bench.run(limit=5)
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.skipped)) == (
        Exit.DONE,
        5,
        {"under 50 characters": 10},
    )
    assert verdict.pending_beyond
    assert (await bench.run(limit=5)).books.selected == 5
    only = await bench.run(where=(("channel_id", "c3"),))
    assert 0 < only.books.wrote < 20


@pytest.mark.parametrize("pair", [("bigint", "7"), ("uuid", "00000000-0000-4000-8000-00000000002a")])
async def test_keys_of_other_types_work_the_same(bench: Bench, pair: tuple[str, str]) -> None:
    """bigint keys sort as numbers, uuids as uuids; a table of another name and cell is a matter of configuration."""
    kind, _ = pair
    key = "n" if kind == "bigint" else "('00000000-0000-4000-8000-' || lpad(to_hex(n * 7919 % 100000), 12, '0'))::uuid"
    await bench.database.run(
        f"create table posts (no {kind} primary key, body text, summary text); "
        f"insert into posts select {key}, 'Post ' || n || ' tells at length how the harbour was dug, and when', null "
        "from generate_series(1, 130) n"
    )
    spec = replace(
        VIDEOS.spec,
        table="posts",
        key=("no",),
        read=("body",),
        cells=("summary",),
        filters=(),
        pending=(Condition("summary", "is null"),),
    )
    posts = replace(VIDEOS, name="posts", spec=spec, cells={"summary": "answer"}, text=("body",))
    await bench.database.migrate([posts])
    verdict = await bench.run(target=posts)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 130), verdict
    assert (await bench.run(target=posts)).calls == 0


async def test_two_column_keys_work_the_same(bench: Bench) -> None:
    """Order and guard over both columns."""
    await bench.database.run(
        "create table parts (video text, part bigint, body text, summary text, primary key (video, part)); "
        "insert into parts select 'v' || n % 9, n, "
        "'Part ' || n || ' tells at length how the harbour of the town was dug, and when', null "
        "from generate_series(1, 130) n"
    )
    spec = replace(
        VIDEOS.spec,
        table="parts",
        key=("video", "part"),
        read=("body",),
        cells=("summary",),
        filters=(),
        pending=(Condition("summary", "is null"),),
    )
    parts = replace(VIDEOS, name="parts", spec=spec, cells={"summary": "answer"}, text=("body",))
    await bench.database.migrate([parts])
    verdict = await bench.run(target=parts)
    assert (verdict.exit, verdict.books.wrote, len(bench.paid())) == (Exit.DONE, 130, 130), verdict
    bench.fake.script(rule("quota"))
    assert (await bench.run(target=parts)).exit is Exit.DONE
