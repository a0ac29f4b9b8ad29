"""The server process behind queries.embedded: made, started, waited for and stopped. Only under `start.lock`.

Whether a server lives is asked of `server.lock`, which its processes inherit, never of its pid file: a dead postmaster
that nobody reaps, as in a container without init, still has its pid, and so has whoever got that pid next.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from queries.embedded_programs import Programs, find_programs
from queries.errors import Misconfigured
from queries.flock import open_lock, take_lock

DATABASE, OWNER = "catchup", "postgres"
ROOTS_SHELF = Path(
    "/var/lib/catchup"
)  # as root: data and programs lie here, since the server's account may not enter our home
LONGEST_SOCKET_PATH = 103  # sun_path holds 104 bytes on macOS, 108 on Linux, both with the final NUL
SOCKET = ".s.PGSQL.5432"
START_WAIT_S = 60.0
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "log_checkpoints": "off",
}
INITDB = (
    f"--username={OWNER}", "--auth=trust", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8", "--set=timezone=UTC", "--set=log_timezone=UTC", "--no-sync", "--no-instructions",
)  # fmt: skip
FIRST_SQL = f"create extension vector;\ncreate database {DATABASE};\n".encode()  # the new database copies template1


def ensure_server(directory: Path) -> Path:
    """Returns the socket's folder of a server that accepts connections."""
    server = open_lock(directory / "server.lock")
    try:
        running = _wait_for_server(directory / "server", server)
        if running is not None:
            return running
        programs = find_programs(ROOTS_SHELF)
        home = _make_home(directory, programs)
        if not (home / "data").is_dir():
            _make_database(home, programs)
        return _launch(home, programs, server)
    finally:
        os.close(server)


def _wait_for_server(home: Path, server: int) -> Path | None:
    """A server somebody started, once it is ready; None, with the lock taken, when none of its processes is left.

    In between: it is recovering, or its postmaster died and its backends have yet to notice. Two servers on one data
    folder would destroy it, so there is no third way out but an error.
    """
    deadline = time.monotonic() + START_WAIT_S
    while time.monotonic() < deadline:
        if take_lock(server):
            return None
        seen = _read_pid_file(home)
        if seen.ready and seen.run and seen.pid and _is_postmaster(seen.pid, home) and (seen.run / SOCKET).exists():
            return seen.run
        time.sleep(0.02)
    raise _did_not_start(home, "a server is there that neither takes connections nor ends")


def _launch(home: Path, programs: Programs, server: int) -> Path:
    """Starts the server in a session of its own: Ctrl-C in our terminal must not reach it."""
    _forget_dead_server(home)
    run = _make_socket_folder(home, programs)
    settings = SETTINGS | {"unix_socket_directories": f'"{run}"'}
    command = [str(programs.folder / "postgres"), "-D", str(home / "data")]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with (home / "server.log").open("wb") as log:
        child = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            pass_fds=(server,), **programs.circumstances(),
        )  # fmt: skip
    threading.Thread(target=child.wait, name="embedded-postgres", daemon=True).start()  # leaves no zombie behind
    deadline = time.monotonic() + START_WAIT_S
    while time.monotonic() < deadline and child.poll() is None:
        if _read_pid_file(home).ready:
            return run
        time.sleep(0.01)
    raise _did_not_start(home, "it exited" if child.poll() is not None else f"not ready within {START_WAIT_S:.0f} s")


def stop_server(directory: Path) -> bool:
    """A fast shutdown, then an immediate one (the next start recovers); False when nothing ran."""
    server, home = open_lock(directory / "server.lock"), directory / "server"
    try:
        if take_lock(server):
            return False
        run = _read_pid_file(home).run  # an orderly end takes the pid file with it
        for how, wait_s in ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
            pid = _read_pid_file(home).pid
            if pid is not None and _is_postmaster(pid, home):
                os.kill(pid, how)
            if take_lock(server, wait_s=wait_s):
                _forget_dead_server(home, run)
                return True
        raise Misconfigured(f"the embedded PostgreSQL in {home} does not stop", fix=f"see {home / 'server.log'}")
    finally:
        os.close(server)


def _make_home(directory: Path, programs: Programs) -> Path:
    """The folder of data, socket and log: inside the directory, or as root on a shelf its account may enter."""
    link = directory / "server"
    if link.is_symlink() and not link.exists():
        raise Misconfigured(
            f"the embedded database's data are gone: {link} points to {os.readlink(link)}",
            fix=f"bring them back, or remove {link} to begin with an empty database",
        )
    if link.exists():
        return link.resolve()
    if programs.account is None:
        link.mkdir(mode=0o700)
        return link
    ROOTS_SHELF.mkdir(mode=0o755, parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="server-", dir=ROOTS_SHELF))
    os.chown(home, programs.account.uid, programs.account.gid)
    link.symlink_to(home)
    return home


def _make_database(home: Path, programs: Programs) -> None:
    """initdb and our database, under another name until both are whole: a kill half way leaves nothing half."""
    for left_over in home.glob("new-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    new = home / f"new-{os.getpid()}"
    made = programs.run("initdb", "-D", str(new), *INITDB)
    if made.returncode == 0:
        single = ("--single", "-D", str(new), "-c", "log_checkpoints=off", "-c", "exit_on_error=on", "template1")
        made = programs.run("postgres", *single, input=FIRST_SQL)
    if made.returncode != 0:
        (home / "server.log").write_bytes(made.stdout)
        raise _did_not_start(home, "its database could not be made")
    new.rename(home / "data")


def _make_socket_folder(home: Path, programs: Programs) -> Path:
    """A folder whose socket path fits the kernel's limit: at home, else a private one where temporary files go."""
    run = home / "run"
    if len(os.fsencode(run / SOCKET)) > LONGEST_SOCKET_PATH or "," in str(run) or '"' in str(run):
        short = Path(tempfile.mkdtemp(prefix="catchup-"))
        if len(os.fsencode(short / SOCKET)) > LONGEST_SOCKET_PATH:
            short.rmdir()
            short = Path(tempfile.mkdtemp(prefix="catchup-", dir="/tmp"))  # mkdtemp makes it ours alone
        run = short
    run.mkdir(mode=0o700, exist_ok=True)
    if programs.account:
        os.chown(run, programs.account.uid, programs.account.gid)
    return run


def _forget_dead_server(home: Path, run: Path | None = None) -> None:
    """Called only under server.lock: whatever the pid file says, its server is dead."""
    run = run or _read_pid_file(home).run
    if run and run.name.startswith("catchup-"):
        shutil.rmtree(run, ignore_errors=True)
    for stale in (home / "data" / "postmaster.pid", home / "run" / SOCKET, home / "run" / f"{SOCKET}.lock"):
        stale.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _PidFile:
    pid: int | None = None
    run: Path | None = None
    ready: bool = False


def _read_pid_file(home: Path) -> _PidFile:
    """Lines 1, 5 and 8 of postmaster.pid: pid, socket folder, state (src/include/utils/pidfile.h)."""
    try:
        lines = (home / "data" / "postmaster.pid").read_text().splitlines()
    except OSError:
        return _PidFile()
    pid = int(lines[0]) if lines and lines[0].isdigit() else None
    ready = len(lines) > 7 and lines[7].strip() == "ready"
    return _PidFile(pid, Path(lines[4]) if len(lines) > 4 and lines[4] else None, ready)


def _is_postmaster(pid: int, home: Path) -> bool:
    """Alive and in its data folder, as far as this system can tell: pids are reused."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if not Path("/proc/self").exists():
        return True
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", home / "data")
    except OSError:  # a zombie has no cwd
        return False


def _did_not_start(home: Path, why: str) -> Misconfigured:
    log = home / "server.log"
    said = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
    return Misconfigured(
        f"the embedded PostgreSQL did not start: {why}",
        fix=f"see {log}" if said else "check the folder's owner and the disk's space",
        service="embedded PostgreSQL",
        words="\n".join(said),
    )
