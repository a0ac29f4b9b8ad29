"""refresh-views as a process that is not well: signals, disks, clocks, screens, and what it promises of itself."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from jobs.engine import lease
from jobs.engine.verdict import Exit
from queries.dsn import DsnRoad
from queries.postgrest import PostgrestRoad
from tests.servers.fake_script import rule
from tests.servers.fault_proxy import HTML, Fault, StartFaultProxy
from tests.servers.impaired import Impaired, file_size_limit
from tests.servers.lite import StartPostgrest
from tests.servers.views_bench import ViewsBench
from tests.servers.views_shell import agree, until
from tests.test_job_summaries_texts import MEMORY_MOST_MB, SAY_PEAK
from tests.test_job_summaries_time import MAD_CLOCK, JumpingClock


async def test_f3_after_a_signal_no_video_is_asked_and_what_was_told_is_stored(views: ViewsBench) -> None:
    """What is out may come back; the rest is to do, units included, and the same command goes on."""
    views.fake.configure(latency=0.1)
    await views.fill(500)

    async def stop() -> int:
        await until(lambda: views.fake.requests >= 4)
        assert views.running is not None
        assert views.running.session is not None
        views.running.ask_stop(Exit.SIGINT, "interrupted")
        return views.running.session.settling.tally.calls

    verdict, sent_then = await asyncio.gather(views.run(concurrency=2), stop())
    assert (verdict.exit, views.fake.requests) == (Exit.SIGINT, sent_then)
    assert verdict.books.wrote == len(await views.snapshots())
    views.fake.configure(latency=0.0)
    assert (await views.run()).books.wrote == 500 - verdict.books.wrote
    assert set(views.fake.asked.values()) == {1}
    ((booked,),) = await views.database.run("select sum(booked) from catchup.quota")
    assert booked == views.fake.units == 10, "what was not spent was given back"
    await agree(views, 500)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=str)
async def test_f3_the_command_that_was_stopped_goes_on_with_the_same_words(
    views: ViewsBench, impaired_views: Impaired, number: int, code: int
) -> None:
    """Exit 130 or 143 within seconds; a second signal would end it at once."""
    await views.fill(400)
    views.fake.configure(latency=0.3)
    child = await impaired_views.start("", "--concurrency", "1")
    await until(lambda: views.fake.requests >= 2)
    child.send_signal(number)
    out, err = await asyncio.wait_for(child.communicate(), 8)
    assert child.returncode == code, out + err
    views.fake.configure(latency=0.0)
    assert (await views.run()).exit is Exit.DONE
    assert set(views.fake.asked.values()) == {1}
    await agree(views, 400)


@pytest.mark.parametrize("size", [0, 6_000, 30_000])
async def test_f5_a_disk_full_at_byte_k_asks_for_nothing_it_cannot_keep(
    views: ViewsBench, impaired_views: Impaired, size: int
) -> None:
    """Exit 10; once there is space the same command finishes, and no video is asked twice."""
    await views.fill(400)
    ended = await impaired_views.run(file_size_limit(size), "--concurrency", "2")
    assert ended.code == 10, ended.out + ended.err
    assert len(views.fake.asked) < 400
    assert (await views.run()).exit is Exit.DONE
    assert set(views.fake.asked.values()) == {1}
    await agree(views, 400)


@pytest.mark.parametrize("what", ["a file", "read-only"])
async def test_f6_without_a_state_directory_nothing_is_asked(views: ViewsBench, tmp_path: Path, what: str) -> None:
    """Exit 10, 0 calls, no unit. /proc stands for a read-only file system."""
    await views.fill(3)
    (tmp_path / "file").write_text("not a directory")
    place = {"a file": tmp_path / "file", "read-only": Path("/proc/state")}
    verdict = await views.run(state_dir=place[what])
    assert (verdict.exit, views.fake.requests, await views.snapshots()) == (Exit.REFUSED, 0, {})


async def test_f7_a_torn_and_a_damaged_journal(views: ViewsBench, impaired_views: Impaired) -> None:
    """Damage in the middle is refused with 0 calls; a torn last line is dropped, and it goes on."""
    await views.fill(600)
    views.fake.configure(latency=0.1)
    ended = await impaired_views.run("", "--yes", "--concurrency", "2", CATCHUP_FAULTS="write.before:2:kill")
    assert ended.code == -9, ended.out + ended.err
    views.fake.configure(latency=0.0)
    (path,) = (views.state_dir / "journals").glob("*.journal")
    sound, requests = path.read_bytes(), views.fake.requests
    damaged = sound.replace(b'"k":["v', b'"k":["w', 1)
    path.write_bytes(damaged)
    refused = await views.run()
    assert (refused.exit, views.fake.requests) == (Exit.REFUSED, requests)
    assert "damaged at line" in refused.headline
    path.write_bytes(sound.partition(b"\0")[0] + b'5f3c1a90 ["paid",{"n":9,"usd":0.0,"rows":[{"k":["v')
    verdict = await views.run()
    assert verdict.exit is Exit.DONE
    assert any("torn" in notice for notice in views.memory.notices)
    await agree(views, 600)


async def test_f8_a_holder_that_was_taken_over_writes_no_snapshot(
    views: ViewsBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease ran out while it slept: another home goes on, and the zombie's page is fenced."""
    monkeypatch.setattr(lease, "BEAT_S", 1_000.0)
    views.fake.configure(latency=0.5)
    await views.fill(100)

    async def take_over() -> Exit:
        await until(lambda: views.fake.open > 0)
        await views.database.run("update catchup.leases set expires_at = clock_timestamp() - interval '1 s'")
        return (await views.run(state_dir=tmp_path / "elsewhere", abandon_journal=True)).exit

    zombie, other = await asyncio.gather(views.run(concurrency=1), take_over())
    assert (zombie.exit, other) == (Exit.LEASE_HELD, Exit.DONE)
    assert zombie.books.wrote == 0
    assert len(await views.snapshots()) == 100


async def test_f9_a_mad_wall_clock_changes_no_count(views: ViewsBench, impaired_views: Impaired) -> None:
    """Plus and minus a day at every look: the day is the database's, and so is everything that is due."""
    await views.fill(120)
    ended = await impaired_views.run(MAD_CLOCK, TZ="America/Los_Angeles")
    assert ended.code == 0, ended.out + ended.err
    assert set(views.fake.asked.values()) == {1}
    await agree(views, 120)


async def test_f9_after_sleep_nothing_is_asked_before_the_lease_is_confirmed(
    views: ViewsBench,
    start_postgrest: StartPostgrest,
    start_fault_proxy: StartFaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ninety seconds pass at once; silence until a beat is answered."""
    monkeypatch.setattr(lease, "BEAT_S", 0.2)
    views.fake.configure(latency=0.15)
    await views.fill(1_000)
    server = await start_postgrest(views.database)
    proxy = await start_fault_proxy(server.url)
    clock = JumpingClock()

    async def sleep() -> tuple[int, int]:
        await until(lambda: views.fake.requests >= 4)
        proxy.inject(Fault("catchup_beat", "reset", times=10_000))
        clock.jumped_s = 90.0
        await asyncio.sleep(0.5)
        before = views.fake.requests
        await asyncio.sleep(0.8)
        after = views.fake.requests
        proxy.clear()
        return before, after

    road = PostgrestRoad(proxy.url, server.secret_key)
    verdict, (before, after) = await asyncio.gather(
        views.run(road=road, clock=clock, concurrency=2, max_outage_s=300.0), sleep()
    )
    assert before == after < 20
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 1_000), verdict.headline
    await agree(views, 1_000)


@pytest.mark.parametrize("redirected", ["| head -n 1", "> /dev/full"])
async def test_f10_no_screen_keeps_a_video_from_its_snapshot(
    views: ViewsBench, impaired_views: Impaired, redirected: str
) -> None:
    """Whatever becomes of the output, in a locale of seven bits: the same snapshots, and the run's own exit code."""
    await views.fill(60)
    shell = impaired_views.shell
    shell.env |= {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    ended = await shell.run_shell(f"{{ catchup refresh-views; echo $? > code; }} {redirected}")
    assert (shell.directory / "code").read_text().strip() == "0", ended
    await agree(views, 60)


async def test_f13_memory_stays_bounded_whatever_the_table(views: ViewsBench, impaired_views: Impaired) -> None:
    """Ten thousand videos, two hundred requests: below 400 MB."""
    await views.fill(10_000)
    ended = await impaired_views.run(SAY_PEAK, "--yes")
    assert ended.code == 0, ended.out + ended.err
    peak_mb = int((impaired_views.shell.directory / "peak").read_text()) / 1024
    print(f"peak {peak_mb:.0f} MB")
    assert peak_mb < MEMORY_MOST_MB
    assert views.fake.requests == 200


async def test_f14_the_runtime_limit_stops_by_itself_and_the_most_overdue_are_done(views: ViewsBench) -> None:
    """Exit 4, more to do; the quota's own end is F43's."""
    views.fake.configure(latency=0.3)
    await views.fill(1_000)
    verdict = await views.run(max_runtime_s=1.5, concurrency=1)
    assert verdict.exit is Exit.STOPPED
    done = await views.snapshots()
    assert 0 < len(done) < 1_000
    assert min(done) > max({f"v{n:010}" for n in range(1, 1_001)} - set(done))


async def test_f24_a_stale_replica_asks_for_no_video_twice(views: ViewsBench) -> None:
    """Pages come from a copy that sees nothing of our writes: each video is asked once."""

    class Stale(DsnRoad):
        async def read(self, function: str, payload: Any) -> dict[str, Any]:
            return await (replica if function == "catchup_views_due" else super()).read(function, payload)

    await views.fill(150)
    await views.run(limit=1)
    await views.database.run("update catchup.schedule set next_due = '2020-01-01', asked_at = null")
    copy = f"{views.database.name}_replica"
    views.database.server.run(f"create database {copy} template {views.database.name}")
    replica = DsnRoad(views.database.server.dsn(copy))
    views.fake.reset()
    try:
        verdict = await views.run(road=Stale(views.database.dsn))
    finally:
        await replica.close()
        views.database.server.run(f"drop database {copy} with (force)")
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 150)
    assert set(views.fake.asked.values()) == {1}


async def test_f25_hostile_texts_beside_a_video_change_nothing(views: ViewsBench, impaired_views: Impaired) -> None:
    """Titles and channels are read by nobody here; an id that is none is skipped and shown without its signs."""
    titles = ["[/b][red]PWN[/red]", "\x1b[2J\x1b]0;pwn\x07", "\u202egnp.exe", "a\ud7ffb'); drop table"]
    await views.fill(len(titles))
    for n, title in enumerate(titles, start=1):
        await views.database.run(
            "update videos set title = %s, channel_id = %s where id like %s", [title, title, f"%{n}"]
        )
        await views.database.run("insert into videos (id, title, channel_id) values (%s, 'x', 'y')", [title])
    ended = await impaired_views.run("")
    assert ended.code == 0, ended.out + ended.err
    assert "\x1b" not in ended.out + ended.err
    assert "no YouTube id 4" in ended.out
    assert len(await views.snapshots()) == len(titles)
    await agree(views, len(titles))


async def test_f48_no_video_due_is_zero_and_says_so(views: ViewsBench) -> None:
    """Nothing to ask is exit 0, or 9 where the operator wants to know."""
    verdict = await views.run()
    assert (verdict.exit, verdict.books.selected, verdict.calls) == (Exit.DONE, 0, 0)
    assert (await views.run(error_on_nothing=True)).exit is Exit.NOTHING_TO_DO


async def test_f49_a_second_run_straight_after_success_changes_nothing(views: ViewsBench) -> None:
    """0 calls, 0 units, 0 rows written anywhere in the user's tables."""
    await views.fill(120)
    await views.run()
    state = await everything(views)
    verdict = await views.run()
    assert (verdict.exit, verdict.calls, verdict.facts["units"]) == (Exit.DONE, 0, 0)
    assert await everything(views) == state


@pytest.mark.parametrize(
    ("fault", "script", "exits"),
    [
        (None, (), {0}),
        (Fault("views_due", "answer", times=100, status=521, body=HTML, content_type="text/html"), (), {4, 5}),
        (Fault("views_outlook", "cut", times=100), (), {4, 5}),
        (Fault("/", "answer", times=100, status=401, body='{"code":"PGRST301","message":"no"}'), (), {10}),
        (None, (rule("quota"),), {0}),
        (None, (rule("empty"),), {0}),
    ],
    ids=["well", "pages fail", "outlook is cut", "wrong key", "no quota at YouTube", "YouTube knows nothing"],
)
async def test_f50_a_dry_run_only_reads_whatever_happens(
    views: ViewsBench,
    start_postgrest: StartPostgrest,
    start_fault_proxy: StartFaultProxy,
    fault: Fault | None,
    script: tuple[dict[str, Any], ...],
    exits: set[int],
) -> None:
    """GETs alone; no row, no file, no unit, no call; and the plan is what the real run then does."""
    await views.fill(130)
    views.fake.script(*script)
    server = await start_postgrest(views.database)
    proxy = await start_fault_proxy(server.url)
    if fault:
        proxy.inject(fault)
    before = await everything(views)
    verdict = await views.run(road=PostgrestRoad(proxy.url, server.secret_key), dry_run=True, max_outage_s=1.0)
    assert int(verdict.exit) in exits, verdict.headline
    assert {request.method for request in proxy.requests} == {"GET"}
    assert (await everything(views), views.fake.requests) == (before, 0)
    assert not views.state_dir.exists()
    if fault is None:
        plan = views.memory.plans[-1]
        assert (plan.pending_counted, plan.facts["units_needed"], plan.facts["keeps_up"]) == (130, 3, True)
    if fault is None and not script:
        real = await views.run()
        assert (real.books.wrote, real.facts["units"]) == (130, 3)


async def test_a_schedule_that_the_quota_can_never_keep_up_with_is_said_beforehand(views: ViewsBench) -> None:
    """A thousand young videos twice a day are forty units; a quota of thirty cannot do it, today or ever."""
    await views.fill(1_000, age_days=0)
    await views.run(dry_run=True, quota=30, reserve=5)
    plan = views.memory.plans[-1]
    assert plan.facts["keeps_up"] is False
    assert "it can never keep up" in dict(plan.own)["schedule"]
    assert "kept for the application" in dict(plan.own)["units"]


async def everything(views: ViewsBench) -> dict[str, Any]:
    """Every row of the user's, and of ours but for runs and what belongs to them."""
    tables = ["videos", "view_snapshots", "catchup.schedule", "catchup.view_flags", "catchup.quota", "catchup.verdicts"]
    return {
        table: await views.database.run(f"select t::text, t.xmin::text from {table} t order by 1") for table in tables
    }
