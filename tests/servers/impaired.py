"""A process that is not well: little disk, a wrong clock, a short lease, or killed at a named point."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

import pytest

from tests.servers.bench import Bench
from tests.servers.shell import Ended, Shell

JOB = "backfill-summaries"
_BEGIN = "import sys; sys.argv = ['catchup', *sys.argv[1:]]\n"
_END = "\nfrom cli.main import main; main()\n"

# The journal grows by a mebibyte; here by a page, so that a small run meets the end of the disk at many places.
SMALL_STEPS = "from jobs.engine import journal; journal._STEP = 4096\n"
SHORT_LEASE = "from jobs.engine import lease, session\nlease.BEAT_S, lease.SILENT_S, lease.TTL_S = 0.3, 1.0, 2.0\n"


def file_size_limit(size: int) -> str:
    """No file of this process may pass `size` bytes: to it, the disk is full there."""
    return f"{SMALL_STEPS}import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"


@dataclass
class Impaired:
    """`run` types the job's command in a process whose first lines of Python are `first`."""

    shell: Shell
    bench: Bench
    job: str = JOB

    async def start(self, first: str, *words: str, **env: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _BEGIN + first + _END,
            self.job,
            *words,
            cwd=self.shell.directory,
            # with little disk, Python leaves torn bytecode files behind, and everybody else stumbles over them
            env={**self.shell.env, "PYTHONDONTWRITEBYTECODE": "1", **env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, first: str, *words: str, **env: str) -> Ended:
        child = await self.start(first, *words, **env)
        out, err = await asyncio.wait_for(child.communicate(), 60)
        return Ended(child.returncode or 0, out.decode(), err.decode())

    async def kill_at(self, point: str) -> None:
        """Leaves behind what a kill at this point leaves: a journal, a lease, a run that is `running`."""
        self.bench.fake.configure(latency=0.05)
        ended = await self.run("", "--concurrency", "4", CATCHUP_FAULTS=f"{point}:kill")
        self.bench.fake.configure(latency=0.0)
        assert ended.code == -9, ended.out + ended.err


@pytest.fixture
def impaired(wired: Shell, bench: Bench) -> Impaired:
    return Impaired(wired, bench)
