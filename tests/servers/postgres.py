"""A private PostgreSQL for the session, and a database of its own for each test.

The programs are those of the wheel; CATCHUP_TEST_PG_BIN names another bin folder, to run the suite on the SQL floor
(Debian's postgresql-15).
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobs.targets import Target
from queries.embedded_programs import Programs, choose_account, find_programs
from queries.migrations import Migrated, Registration, migrate

SCHEMAS = Path(__file__).parent / "schemas"
# The roles of a Supabase project. They must exist before PostgREST or its stand-in starts.
ROLES = """
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role catchup_worker login nosuperuser nobypassrls;
create role nobody_special login nosuperuser nobypassrls;
"""
_START_S = 30


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    folder: Path

    def dsn(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]  # the fixtures' own text


@dataclass(frozen=True, slots=True)
class Database:
    """One test's database. `dsn` is the superuser's; `dsn_as` any other role's (no password is asked for)."""

    server: Server
    name: str

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.name)

    def dsn_as(self, user: str) -> str:
        return self.server.dsn(self.name, user)

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)

    async def load(self, schema: str) -> None:
        """Runs a file of tests/servers/schemas."""
        await self.run((SCHEMAS / schema).read_text(encoding="utf-8"))

    async def run(self, statement: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        async with await self.connect() as connection:
            cursor = await connection.execute(statement.encode(), values)
            return await cursor.fetchall() if cursor.description else []

    async def migrate(self, targets: Sequence[Target | Registration] = (), *, worker: bool = False) -> Migrated:
        asked = [t if isinstance(t, Registration) else Registration(t.name, t.spec, t.views) for t in targets]
        return await migrate(self.dsn, asked, worker=worker)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@contextmanager
def running_server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="catchup-pg-"))
    programs = _programs(folder)
    try:
        child, server = _start(folder, programs)
        try:
            server.run(ROLES)
            yield server
        finally:
            child.send_signal(signal.SIGQUIT)
            child.wait(timeout=10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_numbers = itertools.count(1)


@pytest.fixture
async def database(postgres_server: Server) -> AsyncIterator[Database]:
    name = f"t{os.getpid()}_{next(_numbers)}"
    postgres_server.run(f"create database {name}")
    yield Database(postgres_server, name)
    postgres_server.run(f"drop database {name} with (force)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _programs(folder: Path) -> Programs:
    elsewhere = os.environ.get("CATCHUP_TEST_PG_BIN")
    if elsewhere:
        return Programs(Path(elsewhere), choose_account() if os.geteuid() == 0 else None)
    return find_programs(folder / "programs")


def _start(folder: Path, programs: Programs) -> tuple[subprocess.Popen[bytes], Server]:
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    if programs.account:
        os.chown(home, programs.account.uid, programs.account.gid)
    data = home / "data"
    made = programs.run(
        "initdb", "-D", str(data), "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"
    )
    if made.returncode != 0:
        raise RuntimeError(made.stdout.decode())
    port = free_port()
    settings = (
        "fsync=off",
        "full_page_writes=off",
        "synchronous_commit=off",
        "max_connections=200",
        "shared_buffers=64MB",
    )
    command = [str(programs.folder / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(home)]
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [*command, *(part for setting in settings for part in ("-c", setting))],
            stdout=log,
            stderr=log,
            start_new_session=True,
            **programs.circumstances(),
        )
    server = Server(port, folder)
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and child.poll() is None:
        try:
            server.run("select 1")
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return child, server
    child.kill()
    raise RuntimeError((folder / "log").read_text(errors="replace"))
