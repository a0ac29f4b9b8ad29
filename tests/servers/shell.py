"""The real command line in a process of its own, with nothing of the developer's environment around it."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.bench import KEY, Bench

ROOT = Path(__file__).resolve().parents[2]
START = [sys.executable, "-c", "from cli.main import main; main()"]


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass
class Shell:
    """`run` types one command in `directory`; `env` is all the environment there is."""

    directory: Path
    env: dict[str, str] = field(default_factory=dict)

    async def run(self, *words: str, **env: str) -> Ended:
        child = await self.start(*words, **env)
        out, err = await asyncio.wait_for(child.communicate(), 60)
        return Ended(child.returncode or 0, out.decode(), err.decode())

    async def start(self, *words: str, **env: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *START,
            *words,
            cwd=self.directory,
            env={**self.env, **env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run_shell(self, line: str) -> Ended:
        """One line of sh, with `catchup` in it."""
        child = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            f'catchup() {{ {sys.executable} -c "{START[2]}" "$@"; }}; {line}',
            cwd=self.directory,
            env=self.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(child.communicate(), 60)
        return Ended(child.returncode or 0, out.decode(), err.decode())

    async def run_in_terminal(
        self, *words: str, columns: int = 100, wait_for: bytes = b"[y/N]", answer: bytes = b"", **env: str
    ) -> Ended:
        """The same under a pseudo-terminal of this width; `answer` is typed when `wait_for` is seen."""
        return await asyncio.to_thread(self._in_terminal, words, columns, (wait_for, answer), env)

    def _in_terminal(
        self, words: tuple[str, ...], columns: int, typing: tuple[bytes, bytes], env: dict[str, str]
    ) -> Ended:
        whole = {**self.env, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40", **env}
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.directory)
            os.execve(START[0], [*START, *words], whole)  # noqa: S606 - the command under test
        wait_for, answer = typing
        seen = b""
        while True:
            try:
                piece = os.read(terminal, 65536)
            except OSError:
                break
            if not piece:
                break
            seen += piece
            if answer and wait_for in seen:
                os.write(terminal, answer)
                answer = b""
        os.close(terminal)
        return Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode("utf-8", "replace"), "")


def bare_environment(home: Path) -> dict[str, str]:
    """What cron gives: a home, a path, and the sources of this checkout."""
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "LANG": "C"}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    directory = tmp_path / "work"
    directory.mkdir()
    return Shell(directory, bare_environment(tmp_path))


@pytest.fixture
def wired(shell: Shell, bench: Bench) -> Shell:
    """The shell with the bench's database, its provider and its state directory in the environment."""
    shell.env |= {
        "DATABASE_URL": bench.database.dsn,
        "OPENAI_BASE_URL": bench.fake.url,
        "OPENAI_API_KEY": KEY,
        "CATCHUP_STATE_DIR": str(bench.state_dir),
    }
    return shell


async def wait_for_calls(bench: Bench, calls: int) -> None:
    async with asyncio.timeout(30):
        while bench.fake.world.requests < calls:
            await asyncio.sleep(0.01)  # the fake counts and tells nobody


def interrupt(child: asyncio.subprocess.Process, number: int = signal.SIGINT) -> None:
    child.send_signal(number)
