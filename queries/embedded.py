"""The embedded PostgreSQL: one real server per directory, shared by all who use it, stopped by the last one out.

Three flocks in the directory say all there is to know, and the kernel frees them however a process dies:
`start.lock` is held while somebody starts or stops, `clients.lock` is shared by those who use the server,
`server.lock` is inherited by the server's own processes, so it is free only when none of them is left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal
from urllib.parse import quote

from queries.embedded_server import DATABASE, OWNER, ensure_server, stop_server
from queries.errors import Misconfigured
from queries.flock import open_lock, take_lock


@dataclass(slots=True)
class Embedded:
    """This process's share of a running server."""

    directory: Path
    dsn: str
    _clients: int | None

    def close(self) -> None:
        """Gives the share back; the last one out stops the server."""
        if self._clients is None:
            return
        clients, self._clients = self._clients, None
        try:
            with _alone(self.directory):
                if take_lock(clients):
                    stop_server(self.directory)
        finally:
            os.close(clients)

    def __enter__(self) -> Embedded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start(directory: Path) -> Embedded:
    """Joins the directory's server, starting it (and making its database) if it does not run."""
    directory = directory.absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(directory):
            clients = open_lock(directory / "clients.lock")
            take_lock(clients, shared=True)
            try:
                run = ensure_server(directory)
            except BaseException:
                os.close(clients)
                raise
    except OSError as error:
        raise Misconfigured(
            f"the embedded PostgreSQL cannot use {directory}: {error}", fix="check owner and space"
        ) from error
    return Embedded(directory, f"postgresql://{OWNER}@/{DATABASE}?host={quote(str(run), safe='')}", clients)


def stop(directory: Path) -> Literal["stopped", "not running", "in use"]:
    """Stops a server that nobody uses: one left behind by a killed command."""
    directory = directory.absolute()
    if not (directory / "clients.lock").exists():
        return "not running"
    with _alone(directory):
        clients = open_lock(directory / "clients.lock")
        try:
            if not take_lock(clients):
                return "in use"
            return "stopped" if stop_server(directory) else "not running"
        finally:
            os.close(clients)


def remove(directory: Path) -> None:
    """Deletes the database with all its data, wherever they lie, and the directory's locks."""
    directory = directory.absolute()
    if stop(directory) == "in use":
        raise Misconfigured(f"the embedded server in {directory} is in use", fix="end that command first")
    shutil.rmtree((directory / "server").resolve(), ignore_errors=True)  # as root it is a link to elsewhere
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Nobody else starts or stops this directory's server meanwhile."""
    lock = open_lock(directory / "start.lock")
    try:
        if not take_lock(lock, wait_s=2 * 60):
            raise Misconfigured(
                f"another command has been starting or stopping the server in {directory} for two minutes",
                fix="end that command and run this one again",
            )
        yield
    finally:
        os.close(lock)
