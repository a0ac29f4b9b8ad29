"""What depends on the snapshots: refreshed in order, without holding back those who read."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from queries import rollups
from queries.rollups import Rollup, Rollups, refresh_rollups
from tests.servers.impaired import Impaired
from tests.servers.views_bench import ViewsBench


async def test_the_command_says_what_changed_since_a_run_and_refreshes_what_depends_on_it(
    views: ViewsBench, impaired_views: Impaired
) -> None:
    """--rollups in the order of dependence, once for each change; --since-run as lines and as JSON."""
    await views.fill(60)
    await views.database.run(
        "create materialized view days as select snapshot_date, sum(view_count) as views from view_snapshots "
        "group by 1; "
        "create unique index on days (snapshot_date); create view between_them as select * from days; "
        "create materialized view most as select max(views) as views from between_them; "
        "create materialized view other as select 1 as one"
    )
    shell = impaired_views.shell
    first = await shell.run("refresh-views", "--rollups", "--json")
    verdict = json.loads(first.out.splitlines()[-1])
    assert (first.code, verdict["tracked"], verdict["rollups"]) == (0, 60, ["public.days", "public.most"])
    assert await views.database.run("select views from most") == await views.database.run("select views from days")
    again = await shell.run("refresh-views", "--rollups")
    assert "nothing changed: none refreshed" in again.out
    await views.database.run(
        "create materialized view broken as select 1 / count(*) from view_snapshots where view_count < 0 with no data; "
        "update catchup.schedule set next_due = now() - interval '1 hour' where video_id = 'v0000000001'"
    )
    broken = await shell.run("refresh-views", "--rollups", "--json")
    said = json.loads(broken.out.splitlines()[-1])
    assert (broken.code, said["tracked"], said["rollups"]) == (10, 1, ["public.days", "public.most"])
    assert "not refreshed: public.broken: division by zero" in said["headline"]
    await views.database.run("drop materialized view broken")
    mended = await shell.run("refresh-views", "--rollups", "--json")
    assert json.loads(mended.out.splitlines()[-1])["rollups"] == ["public.days", "public.most"]
    listed = await shell.run("refresh-views", "--since-run", verdict["run"], "--json")
    rows = [json.loads(line) for line in listed.out.splitlines()]
    assert (rows[-1]["changed"], {row["type"] for row in rows[:-1]}) == (60, {"changed"})
    assert len((await shell.run("refresh-views", "--since-run", verdict["run"])).out.splitlines()) == 60


async def test_a_signal_while_views_are_refreshed_still_says_what_the_run_did(
    views: ViewsBench, impaired_views: Impaired
) -> None:
    """Exit 130 with its figures, the refresh ends with us, and the next run takes it up though nothing changed."""
    await views.fill(60)
    await views.database.run(
        "create materialized view slow as select count(*), pg_sleep(30)::text as slept from view_snapshots with no data"
    )
    refreshing = "select 1 from pg_stat_activity where query like 'refresh materialized%%' and state = 'active'"
    child = await impaired_views.start("", "--rollups", "--json")
    async with asyncio.timeout(30):
        while not await views.database.run(refreshing):
            await asyncio.sleep(0.02)
    child.send_signal(signal.SIGINT)
    out, _ = await asyncio.wait_for(child.communicate(), 8)
    verdict = json.loads(out.splitlines()[-1])
    assert (child.returncode, verdict["exit"], verdict["tracked"]) == (130, 130, 60)
    assert "before the views were refreshed" in verdict["headline"]
    assert await views.database.run(refreshing) == []
    await views.database.run("drop materialized view slow; create materialized view slow as select 1 from videos")
    again = await impaired_views.run("", "--rollups", "--json")
    assert json.loads(again.out.splitlines()[-1])["rollups"] == ["public.slow"]


async def test_a_reader_is_not_held_back_for_longer_than_the_refresh_would_wait_itself(
    views: ViewsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a lock makes all others wait: it gives up, says which view, and the others are refreshed."""
    monkeypatch.setattr(rollups, "_PATIENCE", rollups._PATIENCE.replace(b"10s", b"200ms"))
    await views.fill(10)
    await views.database.run(
        "create materialized view read as select count(*) as n from videos; "
        "create materialized view beside as select count(*) as n from videos"
    )
    found = Rollups(tuple(Rollup("public", name, False, True) for name in ("read", "beside")), is_due=True)
    async with await views.database.connect() as reader:
        await reader.set_autocommit(False)
        await reader.execute("select n from read")
        done = await refresh_rollups(views.database.dsn, found, "video-views")
        assert [name for name, _ in done.took] == ["public.beside"]
        ((place, why),) = done.broken
        assert (place, "lock timeout" in why.what) == ("public.read", True)
        assert "somebody used read for 10 s" in why.fix
        assert "unique index" in why.fix
        await reader.execute("select n from read")  # and is not held back itself
    again = await refresh_rollups(views.database.dsn, found, "video-views")
    assert ([name for name, _ in again.took], again.broken) == (["public.read", "public.beside"], ())
