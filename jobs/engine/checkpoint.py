"""Where the cursor is: the highest key below which every selected row is settled and confirmed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from queries.table import Key


class Checkpoint:
    """Pages in flight, in key order. It moves only when the first of them has no open row left."""

    def __init__(self, start: Key | None) -> None:
        self.key = start
        self._pages: deque[tuple[Key, set[Key]]] = deque()
        self._page_of: dict[Key, set[Key]] = {}

    def opened(self, keys: Iterable[Key]) -> None:
        rows = list(keys)
        if not rows:
            return
        open_rows = set(rows)
        self._pages.append((rows[-1], open_rows))
        for key in rows:
            self._page_of[key] = open_rows

    def would_be(self, settled: Iterable[Key]) -> Key | None:
        """The cursor that is true once these rows are settled: it is written together with them."""
        leaving = set(settled)
        key = self.key
        for last, open_rows in self._pages:
            if not open_rows <= leaving:
                break
            key = last
        return key

    def settled(self, keys: Iterable[Key]) -> None:
        for key in keys:
            page = self._page_of.pop(key, None)
            if page is not None:
                page.discard(key)
        while self._pages and not self._pages[0][1]:
            self.key = self._pages.popleft()[0]

    @property
    def open_rows(self) -> int:
        return len(self._page_of)
