"""The private local directory: who we are, which locks we hold, whether the disk can be trusted."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path

from jobs.engine import fault_points
from queries.errors import Misconfigured
from queries.ledger import Home

_NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs", "lustre")


class StateDir:
    """Journals and locks live here: 0700, on a local disk, proven writable before anything is paid."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: dict[str, int] = {}

    def prepare(self) -> None:
        """Creates the directory and proves that it can write, sync, rename and read."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
            for name in ("journals", "locks"):
                (self.path / name).mkdir(exist_ok=True, mode=0o700)
            write_whole(self.path / "probe", b"probe")
            if (self.path / "probe").read_bytes() != b"probe":
                raise OSError("what was written is not what was read")
            (self.path / "probe").unlink()
        except OSError as error:
            raise Misconfigured(
                f"the state directory {self.path} cannot be used: {error.strerror or error}",
                fix="set CATCHUP_STATE_DIR to a writable local directory with free space",
            ) from None
        kind = _filesystem(self.path)
        if kind.startswith(_NETWORK):
            raise Misconfigured(
                f"the state directory {self.path} is on a network file system ({kind})",
                fix="locks are not safe there; set CATCHUP_STATE_DIR to a local disk",
            )

    def home(self, lock_id: str) -> Home:
        """This process, such that another one here can prove it dead."""
        file = self.path / "home.json"
        if not file.exists():
            write_whole(file, json.dumps({"home_id": secrets.token_hex(8)}).encode())
        try:
            home_id = str(json.loads(file.read_bytes())["home_id"])
        except (ValueError, KeyError, TypeError):
            raise Misconfigured(
                f"{file} is damaged", fix="look at it; delete it only if no run is unfinished"
            ) from None
        return Home(
            host=socket.gethostname(),
            home_id=home_id,
            boot_id=_read("/proc/sys/kernel/random/boot_id"),
            pid=os.getpid(),
            process_start=_process_start(),
            lock_id=lock_id,
        )

    def lock(self, lock_id: str) -> bool:
        """Takes the lock for as long as this process lives; the kernel frees it at death."""
        if lock_id in self._held:
            return True
        handle = os.open(self.path / "locks" / lock_id, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._held[lock_id] = handle
        fault_points.reach("lock.acquired")
        return True

    def proves_dead(self, home_id: str, lock_id: str) -> bool:
        """A run that began here and whose lock nobody holds; of other homes nothing is known."""
        file = self.path / "home.json"
        if not file.exists() or json.loads(file.read_bytes()).get("home_id") != home_id:
            return False
        if lock_id in self._held or not (self.path / "locks" / lock_id).exists() or not self.lock(lock_id):
            return False
        self.unlock(lock_id)
        return True

    def unlock(self, lock_id: str) -> None:
        handle = self._held.pop(lock_id, None)
        if handle is not None:
            os.close(handle)

    def journal_path(self, run_id: str) -> Path:
        return self.path / "journals" / f"{run_id}.journal"

    def forget(self, run_ids: Iterable[str]) -> int:
        """Removes what runs that are over left behind: answers and their texts."""
        gone = 0
        for run_id in run_ids:
            path = self.journal_path(run_id)
            gone += path.exists()
            path.unlink(missing_ok=True)
            path.with_suffix(".mark").unlink(missing_ok=True)
        return gone


def lock_id(*parts: object) -> str:
    """A file name from anything: data never names a file."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:24]


def write_whole(path: Path, content: bytes) -> None:
    """All of it or nothing: written beside, synced, renamed over."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    fault_points.reach("state.tmp_written")
    beside.replace(path)
    fault_points.reach("state.renamed")


def _filesystem(path: Path) -> str:
    best, kind = "", ""
    for line in _read("/proc/mounts").splitlines():
        fields = line.split()
        mount = fields[1].replace("\\040", " ")
        if (str(path.resolve()) + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind


def _process_start() -> str:
    stat = _read(f"/proc/{os.getpid()}/stat")
    return stat.rpartition(")")[2].split()[19] if stat else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
