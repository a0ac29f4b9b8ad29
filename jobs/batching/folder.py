"""Where the files of batches lie: in the private state directory, named by us and never by data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from queries.batch_ledger import Chunk
from queries.whole_file import remove_leftovers

_KINDS = ("input", "output", "error")


class Folder:
    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "batches"

    def prepare(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)

    def input(self, chunk: str) -> Path:
        return self.path / f"{chunk}.jsonl"

    def counting(self, run_id: str) -> Path:
        """There while texts are counted for this run."""
        return self.path / f"{run_id}.counting"

    def result(self, chunk: str, kind: str) -> Path:
        return self.path / f"{chunk}.{kind}.jsonl"

    def hash_of(self, chunk: str, kind: str) -> str:
        """Empty where it is not there."""
        path = self.result(chunk, kind)
        return hash_of(path) if path.exists() else ""

    def forget(self, before: float, keep: Collection[str]) -> int:
        """Removes what is older than this Unix time, except for chunks that are not collected yet."""
        found = [*self.path.glob("*.jsonl"), *self.path.glob("*.counting")]
        old = [path for path in found if path.name.split(".")[0] not in keep]
        old = [path for path in old if path.stat().st_mtime < before]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def sweep(self, run_id: str, keep: Iterable[str]) -> None:
        """Files that a killed process had not finished writing."""
        known = {self.input(chunk).name for chunk in keep}
        for path in self.path.glob(f"{run_id}-*.jsonl"):
            if path.name.count(".") == 1 and path.name not in known:
                path.unlink(missing_ok=True)
        remove_leftovers(self.path, f"{run_id}-")

    def drop_input(self, chunk: str) -> None:
        self.input(chunk).unlink(missing_ok=True)


def remote_name(chunk: Chunk) -> str:
    """By this name an upload whose answer was lost is found again: the chunk, and the hash of what is in it."""
    return f"catchup-{chunk.chunk}-{chunk.sha256[:16]}.jsonl"


def hash_of(path: Path) -> str:
    """SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_private(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
