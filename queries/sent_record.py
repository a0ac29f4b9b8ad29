"""Which messages the broker has confirmed and the ledger may not know yet: in a file, so that a kill forgets none."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

_ID_BYTES = 36
_KEPT_MOST = 5_000  # of processes that were killed, where the rows never came up again


class SentRecord:
    """Holds one request's ids at a time, and those of an earlier process until they have come up again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._known: set[str] = set()

    def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600)
        told = os.pread(self._file, os.fstat(self._file).st_size, 0).decode("ascii", "replace").split("\n")
        self._known = {
            line for line in told[-_KEPT_MOST:] if len(line) == _ID_BYTES
        }  # a torn last line is a message sent once more

    def has(self, id_: str) -> bool:
        return id_ in self._known

    def note(self, id_: str) -> None:
        """One write: the kernel has it, whatever becomes of this process."""
        os.write(self._file, f"{id_}\n".encode())
        self._known.add(id_)

    def forget(self, ids: Collection[str]) -> None:
        """These are in the journal by now."""
        self._known.difference_update(ids)
        os.ftruncate(self._file, 0)
        if self._known:
            os.write(self._file, "".join(f"{id_}\n" for id_ in self._known).encode())

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
