"""A file that a thread writes, hashes and brings to the disk: whoever fills it counts the next rows meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from jobs.batching.folder import hash_of, open_private

_BEHIND_MOST = 4  # pieces: where the disk is slower than we are, memory stays flat
_ON_DISK_EVERY = 16 << 20  # so that at the end there is little left to wait for


class Spool:
    """What the disk says, a full one above all, is raised by the next call. Close it, or discard it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = open_private(path)
        self._thread = ThreadPoolExecutor(1, "spool")
        self._behind: deque[Future[None]] = deque()
        self._hash = hashlib.sha256()
        self._since_on_disk = 0
        self._is_cut = False

    def put(self, data: bytes) -> None:
        self._behind.append(self._thread.submit(self._write, data))
        while self._behind[0].done() or len(self._behind) > _BEHIND_MOST:
            self._behind.popleft().result()
            if not self._behind:
                return

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        left = memoryview(data)
        while left:
            left = left[os.write(self._handle, left) :]
        self._since_on_disk += len(data)
        if self._since_on_disk >= _ON_DISK_EVERY:
            os.fdatasync(self._handle)
            self._since_on_disk = 0

    def cut(self, size_bytes: int) -> None:
        """Nothing of what comes after so many bytes stays."""
        self._catch_up()
        os.ftruncate(self._handle, size_bytes)
        self._is_cut = True

    def close(self) -> str:
        """All of it is on the disk; its SHA-256."""
        self._catch_up()
        os.fsync(self._handle)
        self._let_go()
        return hash_of(self._path) if self._is_cut else self._hash.hexdigest()

    def discard(self) -> None:
        self._let_go()

    def _catch_up(self) -> None:
        while self._behind:
            self._behind.popleft().result()

    def _let_go(self) -> None:
        self._thread.shutdown()  # a piece that is being written is written to the end: the handle is still its own
        os.close(self._handle)
