"""A private RabbitMQ for the session: the real one, on free loopback ports. It takes some ten seconds to start."""

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

_START_S = 120
_ACCOUNT = "rabbitmq"  # as root the program steps down to it


@dataclass(slots=True)
class RabbitServer:
    folder: Path
    port: int = field(default_factory=free_port)
    _epmd: int = field(default_factory=free_port)
    _dist: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        self._write_configuration()
        log = (self.folder / "start.log").open("ab")
        self._process = subprocess.Popen(
            ["rabbitmq-server"], env=self._environment(), stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as talk:
                talk.settimeout(5)
                talk.sendall(b"AMQP\x00\x00\x09\x01")
                if talk.recv(8):
                    return
            time.sleep(0.2)
        raise RuntimeError((self.folder / "start.log").read_text(errors="replace")[-2000:])

    def kill(self) -> None:
        """SIGKILL to the node: its own supervisor and the port mapper stay out of it."""
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _pids(self) -> list[int]:
        """Whatever runs with this folder in its environment: the script, the node, its helpers, the port mapper."""
        mark = f"RABBITMQ_MNESIA_BASE={self.folder}/".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found

    def _write_configuration(self) -> None:
        for name in ("mnesia", "log", "home"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{self.port}\n")
        if os.geteuid() == 0:
            self.folder.chmod(0o755)
            for path in (self.folder, *self.folder.rglob("*")):
                shutil.chown(path, _ACCOUNT, _ACCOUNT)

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": f"{folder}/home",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    with running_rabbit() as server:
        yield server


@contextlib.contextmanager
def running_rabbit() -> Iterator[RabbitServer]:
    """A test that needs it is skipped where it is not."""
    if shutil.which("rabbitmq-server") is None:
        pytest.skip("no rabbitmq-server here: apt-get install rabbitmq-server")
    folder = Path(tempfile.mkdtemp(prefix="rabbit"))  # not below pytest's own folder, which its account may not enter
    server = RabbitServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
