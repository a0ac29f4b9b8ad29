"""The fake YouTube as a process of its own, for kills and benchmarks; driven over its /__fake/ paths."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.servers.fake_process import ROOT, FakeProcess


class YouTubeProcess(FakeProcess):
    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def change(self, *, gone: list[str] | None = None, counts: Mapping[str, Any] | None = None) -> None:
        """Which videos are gone, and what the others tell beside what is made of their ids."""
        self.call("world", {"gone": gone or [], "counts": dict(counts or {})})


@contextmanager
def run_fake_youtube(**settings: Any) -> Iterator[YouTubeProcess]:
    """Start it with the settings of tests.servers.fake_youtube.Settings and end it with the block."""
    command = [sys.executable, "-m", "tests.servers.fake_youtube"]
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield YouTubeProcess(json.loads(child.stdout.readline())["port"])
        finally:
            child.terminate()
            child.wait(10)
