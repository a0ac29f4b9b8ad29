"""Private Redis servers, for one session or one test: real ones, on free ports, with nothing kept unless asked for."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.postgres import free_port

_START_S = 15


@dataclass(slots=True)
class RedisServer:
    """`durable` is what keeps every confirmed message through a kill: appendfsync always."""

    program: str
    folder: Path
    durable: bool = False
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        keep = ["yes", "--appendfsync", "always"] if self.durable else ["no"]
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self._process = subprocess.Popen(
            [self.program, *options, "--appendonly", *keep], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as talk:
                talk.sendall(b"PING\r\n")
                if talk.recv(64).startswith(b"+PONG"):
                    return
            time.sleep(0.05)
        raise RuntimeError("redis-server did not start")

    def kill(self) -> None:
        """SIGKILL: what was not synced is gone."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def find_redis() -> str:
    """A test that needs it is skipped where it is not."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    return found


@pytest.fixture(scope="session")
def redis_session() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        server = RedisServer(find_redis(), Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture
def redis_server(redis_session: RedisServer) -> RedisServer:
    """The session's server, emptied."""
    with socket.create_connection(("127.0.0.1", redis_session.port), 5) as talk:
        talk.sendall(b"FLUSHALL\r\n")
        talk.recv(64)
    return redis_session


@pytest.fixture
def durable_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of one's own that may be killed and started again."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(find_redis(), folder, durable=True)
    server.start()
    yield server
    server.kill()
