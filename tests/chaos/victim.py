"""Starting, watching and ending victims: `start` gives one that runs, `wait` its exit code and its words."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.fake_process import ROOT

_KEEP = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")


@dataclass
class Victim:
    """One process of ours in a session of its own."""

    pid: int
    started_at: float
    folder: Path
    trace: Path
    nursery: Nursery | None = None
    process: subprocess.Popen[bytes] | None = None
    code: int | None = None
    died_at: float = 0.0

    def poll(self) -> int | None:
        if self.code is not None:
            return self.code
        if self.process is not None:
            self.code = self.process.poll()
            self.died_at = time.monotonic()
        elif self.nursery is not None:
            self.nursery.read(0.0)
            if self.pid in self.nursery.dead:
                self.code, self.died_at = self.nursery.dead[self.pid]
        return self.code

    def wait(self, within_s: float) -> int | None:
        """Its exit code (negative: the signal that ended it), or None while it still runs."""
        until = time.monotonic() + within_s
        while self.poll() is None and time.monotonic() < until:
            if self.nursery is not None:
                self.nursery.read(0.01)
            else:
                time.sleep(0.003)
        return self.code

    def signal(self, number: int) -> None:
        """To the whole process group."""
        if self.poll() is None:
            os.killpg(self.pid, number)

    def end(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait(5.0)

    @property
    def last_point(self) -> str:
        """The engine's last named step: the phase a random kill met."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return lines[-1].split()[1] if lines else "before the first point"

    @property
    def points(self) -> list[str]:
        return [line.split()[1] for line in self.trace.read_text().splitlines()] if self.trace.exists() else []

    @property
    def verdict(self) -> dict[str, Any]:
        for line in reversed((self.folder / "out").read_text(errors="replace").splitlines()):
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if said.get("type") == "verdict":
                return dict(said)
        return {}

    @property
    def words(self) -> str:
        return "".join((self.folder / name).read_text(errors="replace")[-2000:] for name in ("out", "err"))


@dataclass
class Nursery:
    """The process that forks victims."""

    process: subprocess.Popen[bytes]
    born: list[tuple[int, float]] = field(default_factory=list)
    dead: dict[int, tuple[int, float]] = field(default_factory=dict)
    _pending: bytes = b""

    def bear(self, asked: dict[str, Any]) -> tuple[int, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        self.process.stdin.flush()
        while not self.born:
            self.read(1.0)
        return self.born.pop()

    def read(self, timeout_s: float) -> None:
        assert self.process.stdout is not None
        handle = self.process.stdout.fileno()
        while select.select([handle], [], [], timeout_s)[0]:
            chunk = os.read(handle, 1 << 16)
            if not chunk:
                raise RuntimeError("the nursery died")
            *lines, self._pending = (self._pending + chunk).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if "born" in said:
                    self.dead.pop(said["born"], None)  # process ids come round again
                    self.born.append((said["born"], said["at"]))
                elif "died" in said:
                    self.dead[said["died"]] = (said["code"], said["at"])
            timeout_s = 0.0


@contextmanager
def run_nursery(vocabularies: Path) -> Iterator[Nursery]:
    command = [sys.executable, "-m", "tests.chaos.child", "--nursery"]
    environment = os.environ | {"CHAOS_VOCABULARIES": str(vocabularies)}
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    try:
        assert process.stdout is not None
        if b"ready" not in process.stdout.readline():
            raise RuntimeError("the nursery did not start")
        yield Nursery(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


@dataclass
class Starter:
    """What every start of one trial has in common: the same command, the same settings, the same state."""

    nursery: Nursery
    folder: Path
    environment: dict[str, str]
    words: Sequence[str]
    whole: bool = False
    """A process of its own from the first import on, not a forked one."""
    started: int = 0

    def start(self, *, faults: str = "", plant: str = "-", more: Sequence[str] = (), **changes: str) -> Victim:
        self.started += 1
        folder = self.folder / f"start{self.started}"
        folder.mkdir()
        trace = folder / "trace"
        environment = {name: os.environ[name] for name in _KEEP if name in os.environ}
        environment |= {**self.environment, **changes, "CATCHUP_FAULT_TRACE": str(trace)}
        if faults:
            environment["CATCHUP_FAULTS"] = faults
        words = [plant, *self.words, *more]
        if not self.whole:
            asked = {"out": str(folder / "out"), "err": str(folder / "err"), "directory": str(self.folder)}
            pid, at = self.nursery.bear({**asked, "environment": environment, "words": words})
            return Victim(pid, at, folder, trace, nursery=self.nursery)
        at = time.monotonic()
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.child", *words],
                cwd=self.folder, env=environment | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
                stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
        return Victim(process.pid, at, folder, trace, process=process)
