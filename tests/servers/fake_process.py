"""The fake OpenAI as a process of its own, for tests that kill the other side; driven over its /__fake/ paths."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class FakeProcess:
    """A running fake: `url` for the client, the rest for the test."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self, *, log: bool = False) -> dict[str, Any]:
        return self.call("stats?log" if log else "stats")

    def script(self, *lines: dict[str, Any]) -> None:
        self.call("script", list(lines))

    def configure(self, **settings: Any) -> None:
        self.call("settings", settings)

    def batches(self, **changes: Any) -> dict[str, Any]:
        """Settings, script, foreign and advance, as tests.servers.fake_batches takes them; what there is now."""
        return self.call("batches", changes)

    def reset(self) -> None:
        self.call("reset", {})

    def call(self, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.port}/__fake/{path}", data, {"content-type": "application/json"})
        with urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback, built here
            return dict(json.load(answer))


@contextmanager
def run_fake_openai(**settings: Any) -> Iterator[FakeProcess]:
    """Start it with the settings of tests.servers.fake_openai.Settings and end it with the block."""
    command = [sys.executable, "-m", "tests.servers.fake_openai"]
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield FakeProcess(json.loads(child.stdout.readline())["port"])
        finally:
            child.terminate()
            child.wait(10)


@pytest.fixture
def fake_openai_process() -> Iterator[Callable[..., FakeProcess]]:
    """Call it with settings for a running fake; all of them end with the test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(run_fake_openai(**settings))
