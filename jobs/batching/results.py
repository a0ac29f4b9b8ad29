"""The result files of one batch, by the row each line belongs to. Position and counts mean nothing here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from queries.batch_lines import Garbage, Line, read_lines

_AT_ONCE_BYTES = 32 << 20  # of vectors a whole file is several hundred megabytes


@dataclass(slots=True)
class Oddities:
    """What stands in the files beside one line for each row."""

    doubled: int = 0
    foreign: int = 0
    garbage: int = 0

    def said(self, chunk: str) -> str:
        parts = (
            (self.doubled, "lines for rows that had one already"),
            (self.foreign, "lines of nobody's"),
            (self.garbage, "lines that name no request"),
        )
        said = ", ".join(f"{count:,} {what}" for count, what in parts if count)
        return f"in the files of {chunk}: {said}" if said else ""


class Results:
    """Each row's best line: a paid one before any other, the first of several. Not all are in memory at a time."""

    def __init__(self, chunk: str, requests: int, paths: Sequence[Path]) -> None:
        self._chunk = chunk
        self._paths = [path for path in paths if path.exists()]
        parts = 1 + sum(path.stat().st_size for path in self._paths) // _AT_ONCE_BYTES
        self._rows_at_once = requests // parts + 1
        self._lines: dict[int, Line] = {}
        self._first = self._end = 0
        self._was_read = False
        self.odd = Oddities()

    def line_of(self, n: int) -> Line | None:
        if not self._first <= n < self._end:
            self._load(n)
        return self._lines.get(n)

    def _load(self, first: int) -> None:
        self._lines, self._first, self._end = {}, first, first + self._rows_at_once
        seen: set[int] = set()
        for path in self._paths:
            for line in read_lines(path):
                self._take(line, seen)
        self._was_read = True

    def _take(self, line: Line | Garbage, seen: set[int]) -> None:
        n = None if isinstance(line, Garbage) else self._number(line.custom_id)
        if not self._was_read:
            self.odd.garbage += isinstance(line, Garbage)
            self.odd.foreign += isinstance(line, Line) and n is None
            self.odd.doubled += n in seen
        if n is None or isinstance(line, Garbage):
            return
        seen.add(n)
        known = self._lines.get(n)
        if self._first <= n < self._end and (known is None or (line.is_paid and not known.is_paid)):
            self._lines[n] = line

    def _number(self, custom_id: str) -> int | None:
        """Of a line of ours; digits are compared as they are written, so that two ids are never one row."""
        chunk, _, number = custom_id.rpartition("-")
        is_number = number.isascii() and number.isdigit() and len(number) < 10
        return int(number) if chunk == self._chunk and is_number and str(int(number)) == number else None
