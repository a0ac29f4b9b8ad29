"""Paid answers kept for a while after they are stored, so that what is lost behind our back is not paid for again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jobs.engine.past import Paid, paid_json, read_paid
from queries.table import Key


class Answers:
    """One file a run, in a folder for each place and target; a line is a request's answers and how they were made."""

    def __init__(self, state_dir: Path, place: str, target: str) -> None:
        self._folder = state_dir / "answers" / hashlib.sha256(f"{place}\n{target}".encode()).hexdigest()[:16]

    def open(self, run_id: str, keep_s: float) -> None:
        """Files older than the time are removed whenever a new one begins."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in self._folder.glob("*.jsonl"):
            if old.stat().st_mtime < time.time() - keep_s:
                old.unlink()
        self._file = self._folder / f"{run_id}.jsonl"
        self._file.touch(mode=0o600)
        with self._file.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            if file.read(1) not in (b"", b"\n"):  # torn by a kill: the next line must not be joined to it
                file.write(b"\n")

    def keep(self, made_by: str, paid: Iterable[Paid]) -> None:
        line = json.dumps([made_by, [paid_json(each) for each in paid]], separators=(",", ":"))
        with self._file.open("a", encoding="ascii") as file:
            file.write(line + "\n")

    def find(self, made_by: str, keys: frozenset[Key]) -> Mapping[Key, Paid]:
        """The last answer for each of these rows, if it was made the same way. A torn line counts as none."""
        found: dict[Key, Paid] = {}
        for file in sorted(self._folder.glob("*.jsonl"), key=lambda each: each.stat().st_mtime):
            with file.open(encoding="ascii") as lines:
                for line in lines:
                    found |= {paid.key: paid for paid in _read(line, made_by) if paid.key in keys}
        return found


def _read(line: str, made_by: str) -> Sequence[Paid]:
    try:
        how, rows = json.loads(line)
        return [read_paid(row) for row in rows] if how == made_by else ()
    except (ValueError, KeyError, TypeError):  # torn by a kill or a full disk: such an answer is paid for again
        return ()
