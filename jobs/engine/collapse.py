"""Notices a provider that answers many different rows with the same text; such texts are not results."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from queries.table import Row

_SAME_MOST = 4  # four different rows may share a sentence by chance; the fifth makes it a pattern
_REMEMBERED = 2_000
_RECENT = 40


@dataclass(slots=True)
class _Seen:
    sources: set[int] = field(default_factory=set)
    rows: list[tuple[Row, str]] = field(default_factory=list)


class Collapse:
    """Remembers the last texts and which rows they went to, so that the first few can be taken back."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._recent: deque[bool] = deque(maxlen=_RECENT)

    def note(self, row: Row, text: str, source: str) -> list[tuple[Row, str]] | None:
        """None: fine. A list: this text is a pattern; the list is what was accepted before we knew.

        Rows with the same source may well have the same text: only different sources count.
        """
        digest = hashlib.sha256(" ".join(text.lower().split()).encode("utf-8", "replace")).digest()[:12]
        seen = self._seen.setdefault(digest, _Seen())
        self._seen.move_to_end(digest)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        seen.sources.add(hash(source))
        is_pattern = len(seen.sources) > _SAME_MOST
        self._recent.append(is_pattern)
        if not is_pattern:
            seen.rows.append((row, text))
            return None
        earlier, seen.rows = seen.rows, []
        return earlier

    @property
    def is_general(self) -> bool:
        """More than half of the recent answers say the same: the provider is not working."""
        return len(self._recent) == _RECENT and sum(self._recent) > _RECENT / 2
