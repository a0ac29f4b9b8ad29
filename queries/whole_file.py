"""A file that is under its name only when it is whole and on the disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson


class WholeFile:
    """Write, then `keep`; left without that, nothing remains of it. Names what it would replace at once, never half."""

    def __init__(self, to: Path) -> None:
        self._to = to
        self.size = 0
        self._tail = b""
        self._sha = hashlib.sha256()
        handle, name = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}.", suffix=".part")
        self._path = Path(name)
        self._file = os.fdopen(handle, "wb", buffering=1 << 20)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self._sha.update(piece)
        self.size += len(piece)
        end = piece.rfind(b"\n")
        self._tail = self._tail + piece if end < 0 else piece[end + 1 :]

    def is_cut(self, announced: int | None) -> bool:
        """Fewer bytes than announced, or a last line of JSON that stops in its middle."""
        if announced is not None and self.size != announced:
            return True
        try:
            return bool(self._tail.strip()) and not orjson.loads(self._tail)
        except ValueError:
            return True

    def keep(self) -> str:
        """Its SHA-256; from now on it is there, and survives a loss of power."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._path.replace(self._to)
        folder = os.open(self._to.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return self._sha.hexdigest()


def remove_leftovers(folder: Path, beginning: str) -> None:
    """Halves, of files whose names begin so, that a killed process could not take away."""
    for each in folder.glob(f".{beginning}*.part"):
        each.unlink(missing_ok=True)
