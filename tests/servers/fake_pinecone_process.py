"""The fake Pinecone as a process of its own, for kills and benchmarks; driven over its /__fake/ paths."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.servers.fake_process import ROOT, FakeProcess


class PineconeProcess(FakeProcess):
    """`url` is the host of the index and of the control plane."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ids(self, namespace: str) -> list[str]:
        """Every id that readers see now."""
        return list(self.call(f"stats?ids={namespace}")["ids"])


@contextmanager
def run_fake_pinecone(**settings: Any) -> Iterator[PineconeProcess]:
    """Start it with the settings of tests.servers.fake_pinecone.Settings and end it with the block."""
    command = [sys.executable, "-m", "tests.servers.fake_pinecone"]
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield PineconeProcess(json.loads(child.stdout.readline())["port"])
        finally:
            child.terminate()
            child.wait(10)
