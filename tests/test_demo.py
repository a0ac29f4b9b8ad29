"""make demo: killed half way, run again, and run once more when nothing is left. Its last words are a search."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from queries.embedded import remove
from tests.servers.shell import ROOT, bare_environment

HALF_WAY = b"$ catchup backfill-summaries --local --yes"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "demo"
    folder.mkdir()
    yield folder
    remove(folder / ".catchup" / "db")
    remove(folder / ".catchup" / "videos-app" / ".catchup" / "db")


async def _start(place: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "demo", "--place", str(place)),
        cwd=ROOT,
        env=bare_environment(place),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def _run(place: Path) -> tuple[int, str]:
    child = await _start(place)
    out, _ = await asyncio.wait_for(child.communicate(), 120)
    return child.returncode or 0, out.decode()


def _has_journal(place: Path) -> bool:
    return any(file.stat().st_size > 4_000 for file in place.rglob("*.journal"))


def _command_of(demo: int) -> int:
    return int(Path(f"/proc/{demo}/task/{demo}/children").read_text().split()[-1])


async def test_the_demo_goes_on_after_a_kill_and_ends_with_a_search(place: Path) -> None:
    """The command is killed while it writes; again goes on; a third time there is nothing left, and it says so."""
    child = await _start(place)
    assert child.stdout is not None
    said = await asyncio.wait_for(child.stdout.readuntil(HALF_WAY), 60)
    async with asyncio.timeout(30):
        while not _has_journal(place):
            await asyncio.sleep(0.01)  # the command writes it and tells nobody
    os.kill(_command_of(child.pid), signal.SIGKILL)
    rest, _ = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 128 + signal.SIGKILL
    assert "ended by SIGKILL. Nothing is lost" in rest.decode()
    assert b"dry run" in said

    code, out = await _run(place)
    assert code == 0, out
    assert " 304 rows" in out
    assert "8 videos have their summary" in out
    assert out.rfind("wait_for in asyncio.tasks") > out.rfind("$ catchup search") > out.rfind("$ catchup runs list")

    code, out = await _run(place)
    assert code == 0, out
    assert out.count("nothing to do: no row is pending") == 2
    assert "nothing to do: no video is pending" in out
    assert "293 with a summary, 293 of these with a vector" in out
    assert out.rfind("copytree in shutil") > out.rfind("$ catchup search") > 0
