"""The harness's side of the provider process: its records, and the strikes it is told to make."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import Request as Asked
from urllib.request import urlopen

from tests.chaos.provider import Request
from tests.servers.fake_process import ROOT, FakeProcess


@dataclass(frozen=True, slots=True)
class Records:
    requests: list[Request]
    bill_usd: float
    open: int
    struck_at: float | None


@dataclass(frozen=True)
class WitnessProcess(FakeProcess):
    """Driven over /__fake/ like any fake, and over /__chaos/ for what only the harness asks."""

    def records(self) -> Records:
        told = self._ask("records")
        return Records([Request(**each) for each in told.pop("requests")], **told)

    def settled(self, within_s: float = 2.0) -> Records:
        """Its records once it has noticed that the dead client's requests lost their reader."""
        until = time.monotonic() + within_s
        while (told := self.records()).open and time.monotonic() < until:
            time.sleep(0.005)
        return told

    def interfere(self, dsn: str, statements: dict[str, str]) -> None:
        self._ask("mischief", {"dsn": dsn, "statements": statements})

    def strike(self, pgid: int, signal: int, arrivals: int, delay_s: float) -> None:
        """Sends the signal to the process group so long after its so-many-th billed request from now."""
        self._ask("strike", {"pgid": pgid, "signal": signal, "arrivals_left": arrivals, "delay_s": delay_s})

    def disarm(self) -> None:
        self._ask("strike")

    def _ask(self, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = Asked(f"http://127.0.0.1:{self.port}/__chaos/{path}", data, {"content-type": "application/json"})
        with urlopen(request, timeout=10) as answer:  # noqa: S310  # loopback, built here
            return dict(json.load(answer))


@contextmanager
def run_witness() -> Iterator[WitnessProcess]:
    command = [sys.executable, "-m", "tests.chaos.provider"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield WitnessProcess(json.loads(child.stdout.readline())["port"])
        finally:
            child.terminate()
            child.wait(10)
