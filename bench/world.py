"""A database with rows to do, and the real command run over it as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.bench import KEY, VIDEOS
from tests.servers.postgres import Database, running_server

CATCHUP = [sys.executable, "-c", "from cli.main import main; main()"]
ROWS = (
    "insert into videos (id, title, channel_id, channel_name, description) "
    "select 'v' || lpad(n::text, 8, '0'), 'Talk number ' || n, 'c' || n %% 7, 'Harbour talks', "
    "'[[item:v' || lpad(n::text, 8, '0') || ']] Speaker ' || n || ' ' || "
    "repeat('tells how crane ' || n || ' of the old harbour was built, moved and restored. ', %s) "
    "from generate_series(1, %s) n"
)


@dataclass(frozen=True, slots=True)
class Finished:
    verdict: dict[str, Any]
    seconds: float
    cpu_s: float
    peak_mb: float
    code: int


@dataclass(frozen=True, slots=True)
class World:
    database: Database
    folder: Path

    def fill(self, rows: int, sentences: int = 6) -> None:
        """A fresh table with this many rows to do."""
        asyncio.run(self._fill(rows, sentences))

    async def _fill(self, rows: int, sentences: int) -> None:
        # the ledger goes too: an unfinished run of the last measurement would be continued where it stopped
        await self.database.run("drop table if exists videos; drop schema if exists catchup cascade")
        await self.database.load("videos.sql")
        await self.database.migrate([VIDEOS])
        await self.database.run(ROWS, [sentences, rows])
        await self.database.run("analyze videos")

    def catchup(self, url: str, *words: str) -> Finished:
        """`catchup backfill-summaries` as an operator runs it, with its own peak of memory."""
        env = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url}
        return self.run([*CATCHUP, "backfill-summaries", "--yes", "--json", *words], env)

    def run(self, command: list[str], env: dict[str, str], toml: str = "") -> Finished:
        """A child of its own, told of the database; the last line it prints is its verdict."""
        state = tempfile.mkdtemp(dir=self.folder)
        (Path(state) / "catchup.toml").write_text(toml)
        env = {
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PATH": os.environ["PATH"],
            "DATABASE_URL": self.database.dsn,
            "CATCHUP_STATE_DIR": state,
            **env,
        }
        started = time.monotonic()
        with (self.folder / "stderr").open("w") as log:
            child = subprocess.Popen(command, env=env, cwd=state, stdout=subprocess.PIPE, stderr=log, text=True)
            assert child.stdout is not None
            lines = child.stdout.readlines()
            _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - started
        if not lines:
            raise RuntimeError((self.folder / "stderr").read_text())
        peak_mb = usage.ru_maxrss / 1024
        return Finished(
            json.loads(lines[-1]), seconds, usage.ru_utime + usage.ru_stime, peak_mb, os.waitstatus_to_exitcode(status)
        )


@contextmanager
def world() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="catchup-bench-"))
    try:
        with running_server() as server:
            server.run("create database bench")
            yield World(Database(server, "bench"), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cpu_of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
