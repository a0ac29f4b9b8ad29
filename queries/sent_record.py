"""Which messages the broker has confirmed and the ledger may not know yet: in a file, so that a kill forgets none."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from queries.errors import Misconfigured

_LINE = 37  # an id and what ends it
_ROOM = 1_000 * _LINE  # reserved, so that a disk that is full is known before a message is out
_KEPT_MOST = 5_000  # of processes that were killed, where the rows never came up again


class SentRecord:
    """Holds one request's ids at a time, and those of an earlier process until they have come up again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._end = 0
        self._known: dict[str, None] = {}

    def open(self) -> None:
        if self._file >= 0:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            told = os.pread(self._file, os.fstat(self._file).st_size, 0).decode("ascii", "replace").split("\n")
            # a torn last line is a message that is sent once more, with the same id
            self._known = dict.fromkeys([line for line in told if len(line) == _LINE - 1][-_KEPT_MOST:])
            self._write_anew()
        except OSError as error:
            raise Misconfigured(
                f"{self._path} cannot be written: {error.strerror}",
                fix="make room or set another CATCHUP_STATE_DIR; nothing was sent that is not known to be",
            ) from error

    def has(self, id_: str) -> bool:
        return id_ in self._known

    def note(self, id_: str) -> None:
        """One write into reserved room: the kernel has it, whatever becomes of this process."""
        self._end += os.pwrite(self._file, f"{id_}\n".encode(), self._end)
        self._known[id_] = None

    def forget(self, ids: Collection[str]) -> None:
        """These are in the journal by now."""
        if self._file < 0:
            return
        for id_ in ids:
            self._known.pop(id_, None)
        self._write_anew()

    def _write_anew(self) -> None:
        kept = "".join(f"{id_}\n" for id_ in self._known).encode()
        os.pwrite(self._file, kept + b"\0" * _ROOM, 0)
        self._end = len(kept)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
