"""The embedded PostgreSQL: shared, never orphaned for long, whole after every kind of death."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from queries.embedded import Embedded, remove, start, stop
from queries.embedded_programs import ACCOUNTS, WHEEL, copy_for_others
from queries.errors import Misconfigured

CLIENT = str(Path(__file__).parent / "servers" / "embedded_client.py")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to step down to another user")


class Client:
    """Another command on the same directory, in a session of its own as a shell would start it."""

    def __init__(self, directory: Path, *more: str, env: dict[str, str] | None = None, wait: bool = True) -> None:
        self.process = subprocess.Popen(
            [sys.executable, CLIENT, str(directory), *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, env=env,
        )  # fmt: skip
        self.dsn = self.read_dsn() if wait else ""

    def read_dsn(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def leave(self) -> str:
        """Closes its stdin, as the end of its work would, and returns its last word."""
        out, error = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, error
        return out.strip()

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        os.killpg(self.process.pid, how)
        self.process.communicate(timeout=60)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A state directory as an operator has one, and nothing of it left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="cu-"))
    yield folder / "db"
    for lock in list(folder.rglob("clients.lock")):
        remove(lock.parent)
    shutil.rmtree(folder)


def ask(dsn: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def postmaster(directory: Path) -> int:
    return int((directory / "server" / "data" / "postmaster.pid").read_text().split()[0])


def wait_until_dead(pid: int) -> None:
    """Dead, reaped or not: the kernel lists a zombie as Z."""
    state = ["ps", "-o", "stat=", "-p", str(pid)]
    while subprocess.run(state, capture_output=True, text=True, check=False).stdout.strip()[:1] not in ("", "Z"):
        time.sleep(0.01)


def is_up(server: Embedded | Client) -> bool:
    try:
        return ask(server.dsn, "select 1") == [(1,)]
    except psycopg.OperationalError:
        return False


def test_a_first_start_makes_a_utf8_database_with_pgvector_that_syncs_and_takes_no_tcp(directory: Path) -> None:
    """A first start makes what production has: UTF-8, pgvector, fsync on; and no port is opened."""
    with start(directory) as server:
        assert ask(server.dsn, "select extname from pg_extension where extname = 'vector'") == [("vector",)]
        shown = (
            "select current_setting('server_encoding'), current_setting('fsync'), current_setting('listen_addresses')"
        )
        assert ask(server.dsn, shown) == [("UTF8", "on", "")]
        assert ask(server.dsn, "select upper('é'), current_database()") == [("É", "catchup")]


def test_rows_outlive_the_server_and_the_last_one_out_stops_it(directory: Path) -> None:
    """Two commands share one server; it stops with the last of them and not before; the rows stay."""
    first = start(directory)
    second = Client(directory)
    pid = postmaster(directory)
    assert second.dsn == first.dsn
    ask(first.dsn, "create table t(x int); insert into t values (7)")
    first.close()
    first.close()
    assert ask(second.dsn, "select x from t") == [(7,)]
    assert second.leave() == "left"
    assert not is_up(second)
    assert not Path(f"/proc/{pid}/cwd").exists()
    with start(directory) as again:
        assert ask(again.dsn, "select x from t") == [(7,)]


def test_a_killed_command_leaves_a_server_that_the_next_command_shares_and_stops(directory: Path) -> None:
    """After SIGKILL of its only user the server stays up until the next command ends."""
    client = Client(directory)
    pid = postmaster(directory)
    client.kill()
    assert is_up(client)
    with start(directory) as server:
        assert postmaster(directory) == pid
    assert not is_up(server)


def test_stop_ends_what_a_killed_command_left_and_nothing_that_is_used(directory: Path) -> None:
    """`catchup db stop` says what it found: nothing, a server in use, or one it stopped."""
    assert stop(directory) == "not running"
    client = Client(directory)
    assert stop(directory) == "in use"
    client.kill()
    assert stop(directory) == "stopped"
    assert stop(directory) == "not running"
    assert not is_up(client)


def test_acknowledged_rows_survive_a_killed_postmaster_that_nobody_reaps(directory: Path) -> None:
    """kill -9 of the postmaster loses no acknowledged row, even where its zombie keeps the pid."""
    parent = Client(directory)
    ask(parent.dsn, "create table t(x int)")
    pid = postmaster(directory)
    with psycopg.connect(parent.dsn, autocommit=True) as connection:
        for n in range(50):
            connection.execute("insert into t values (%s)", (n,))
        os.kill(parent.process.pid, signal.SIGSTOP)  # a parent that does not wait() for its children
        os.kill(pid, signal.SIGKILL)
        wait_until_dead(pid)
        with start(directory) as server:
            assert ask(server.dsn, "select count(*) from t") == [(50,)]
            os.kill(parent.process.pid, signal.SIGCONT)
            assert parent.leave() == "left"
            assert is_up(server)


def test_a_left_over_pid_file_that_names_a_living_process_is_not_believed(directory: Path) -> None:
    """Pids are reused: a postmaster.pid with our own pid in it does not keep the server from starting."""
    start(directory).close()
    folder = (directory / "server").resolve()
    (folder / "data" / "postmaster.pid").write_text(
        f"{os.getpid()}\n{folder}/data\n1\n5432\n{folder}/run\n\n1 1\nready\n"
    )
    with start(directory) as server:
        assert is_up(server)


def test_commands_that_start_at_the_same_moment_get_one_server(directory: Path) -> None:
    """Four first starts at once: one database is made, one server runs, all four use it."""
    clients = [Client(directory, wait=False) for _ in range(4)]
    dsns = {client.read_dsn() for client in clients}
    assert len(dsns) == 1
    assert dsns != {""}
    assert [client.leave() for client in clients] == ["left"] * 4
    assert stop(directory) == "not running"


@pytest.mark.parametrize("after_s", [0.2, 0.5])
def test_a_first_start_that_is_killed_half_way_is_begun_again(directory: Path, after_s: float) -> None:
    """SIGKILL while the database is being made: the next command finds nothing half made."""
    client = Client(directory, wait=False)
    time.sleep(after_s)  # the moment of a real kill, in real time
    client.kill()
    with start(directory) as server:
        assert ask(server.dsn, "select extname from pg_extension where extname = 'vector'") == [("vector",)]
    assert not list((directory / "server").resolve().glob("new-*"))


def test_a_directory_too_long_for_a_socket_path_works(directory: Path) -> None:
    """Socket paths hold 104 to 108 bytes; a longer directory puts the socket elsewhere and leaves nothing there."""
    with start(directory / ("long name, 'quoted' " * 8)) as server:
        assert is_up(server)
        folder = Path(str(psycopg.conninfo.conninfo_to_dict(server.dsn)["host"]))
        assert folder.is_dir()
    assert not list(folder.glob("*"))
    assert folder.name == "run" or not folder.exists()


def test_the_terminals_interrupt_reaches_the_command_and_not_the_server(directory: Path) -> None:
    """Ctrl-C goes to the whole process group of the terminal: the server is not in it."""
    client = Client(directory)
    with start(directory) as keeper:
        client.kill(signal.SIGINT)
        assert client.process.returncode not in (0, -signal.SIGKILL)
        assert is_up(keeper)
        assert os.getsid(postmaster(directory)) not in (os.getsid(0), client.process.pid)
    assert not is_up(keeper)


def test_a_server_that_cannot_start_says_so_in_its_own_words(directory: Path) -> None:
    """The error is for a person: what failed, the log's last lines, where the log is."""
    start(directory).close()
    (directory / "server" / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(Misconfigured, match="did not start") as caught:
        start(directory)
    assert "initialized by PostgreSQL version 15" in caught.value.words
    assert "server.log" in caught.value.fix


def test_data_that_are_gone_are_never_replaced_by_an_empty_database(directory: Path) -> None:
    """A link whose data have vanished stops the run: an empty database would look like work done."""
    directory.mkdir()
    (directory / "server").symlink_to(directory / "elsewhere")
    with pytest.raises(Misconfigured, match="data are gone"):
        start(directory)


def test_removing_a_database_leaves_nothing_and_never_takes_one_that_is_used(directory: Path) -> None:
    """As root the data lie outside the directory: `remove` finds them there too."""
    with start(directory):
        home = (directory / "server").resolve()
        with pytest.raises(Misconfigured, match="in use"):
            remove(directory)
        assert home.exists()
    remove(directory)
    assert not home.exists()
    assert not directory.exists()


def test_without_the_wheel_both_ways_on_are_named(directory: Path) -> None:
    """A toolkit installed without its local extra says what to install or what to set."""
    bare = [sys.executable, "-I", "-S", CLIENT, str(directory)]
    said = subprocess.run(bare, capture_output=True, text=True, check=False).stderr
    assert "catchup[local]" in said
    assert "DATABASE_URL" in said


@as_root
def test_as_root_the_server_runs_as_an_existing_user_outside_our_private_directory(directory: Path) -> None:
    """As root: an account that was there before, data of its own, and no parent folder opened up."""
    directory.mkdir(mode=0o700)
    with start(directory):
        owner = pwd.getpwuid(Path(f"/proc/{postmaster(directory)}").stat().st_uid).pw_name
        assert owner in ACCOUNTS
        assert not (directory / "server").resolve().is_relative_to(directory)
        assert directory.stat().st_mode & 0o777 == 0o700


@as_root
def test_an_ordinary_user_with_an_empty_environment_has_a_server_of_their_own() -> None:
    """No HOME, no LANG, no rights: the same server, its data inside the directory."""
    place = Path(tempfile.mkdtemp(prefix="cu-"))
    place.chmod(0o777)
    package = next(Path(entry) / WHEEL for entry in sys.path if (Path(entry) / WHEEL).is_dir())
    wheel = copy_for_others(package, place / "programs")
    assert copy_for_others(package, place / "programs") == wheel
    try:
        client = Client(place / "db", "nobody", str(wheel), env={})
        assert ask(client.dsn, "select upper('é')") == [("É",)]
        assert Path(f"/proc/{postmaster(place / 'db')}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        assert (place / "db" / "server").resolve() == place / "db" / "server"
        assert client.leave() == "left"
    finally:
        stop(place / "db")
        shutil.rmtree(place)
