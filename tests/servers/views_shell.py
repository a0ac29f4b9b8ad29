"""refresh-views at the command line, with the bench's database and YouTube in the environment; and what must agree."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.servers.impaired import Impaired
from tests.servers.shell import Shell
from tests.servers.views_bench import YOUTUBE_KEY, ViewsBench


@pytest.fixture
def wired_views(shell: Shell, views: ViewsBench) -> Shell:
    shell.env |= {
        "DATABASE_URL": views.database.dsn,
        "YOUTUBE_API_KEY": YOUTUBE_KEY,
        "YOUTUBE_API_ENDPOINT": views.fake.url,
        "CATCHUP_STATE_DIR": str(views.state_dir),
        "CATCHUP_DB_LOAD": "100%",
    }
    return shell


@pytest.fixture
def impaired_views(wired_views: Shell, views: ViewsBench) -> Impaired:
    return Impaired(wired_views, views, "refresh-views")  # type: ignore[arg-type]  # its shell is what is used


async def agree(views: ViewsBench, tracked: int | None = None) -> None:
    """Each snapshot of today is what was told, the video itself has it too, and a day has one of each."""
    own = await views.own_counts()
    rows = await views.database.run(
        "select video_id, view_count, like_count, comment_count from view_snapshots "
        "where snapshot_date = (now() at time zone 'UTC')::date"
    )
    for key, *stored in rows:
        said = views.fake.statistics(key) or {}
        told = [int(said[name]) if name in said else None for name in ("viewCount", "likeCount", "commentCount")]
        assert stored == told, key
        assert all(now in (before, None) for before, now in zip(own[key], stored, strict=True)), key
    assert tracked in (len(rows), None)
    await views.check()


def age_journal(views: ViewsBench, days: int) -> None:
    """Whatever the service told today, it told so many days ago."""
    (path,) = (views.state_dir / "journals").glob("*.journal")
    today = datetime.now(UTC).date()
    said, before = (f"{day}T".encode() for day in (today, today - timedelta(days=days)))
    *lines, rest = path.read_bytes().split(b"\n")
    bodies = [line.partition(b" ")[2].replace(said, before) for line in lines]
    path.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(body), body) for body in bodies) + rest)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)  # the fake counts and tells nobody
