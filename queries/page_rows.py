"""A page that came row by row: keys and guards are read at once, a row's values only by whoever looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from queries.ledger_json import parse_known
from queries.table import Page, Row, TableSpec

_ANY = msgspec.json.Decoder()
_KEY = msgspec.json.Decoder(list[str])
_WAS = msgspec.json.Decoder(dict[str, str | None])


class Told(Mapping[str, Any]):
    """A row's values as the database wrote them; parsed when first asked for, as another process may do instead."""

    __slots__ = ("_values", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._values: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return (self._values or self._parsed())[name]

    def get(self, name: str, default: Any = None) -> Any:
        return (self._values or self._parsed()).get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def _parsed(self) -> dict[str, Any]:
        if self._values is None:
            self._values = parse_values(self.text)
        return self._values


def parse_values(text: str) -> dict[str, Any]:
    found = _ANY.decode(text)
    if not isinstance(found, dict):
        raise TypeError("no values")
    return found


def parse_page_rows(found: Sequence[tuple[Any, ...]], spec: TableSpec, *, in_window: bool = False) -> Page:
    """In the order of catchup_page_rows' columns; the last row of a window tells how far it reached."""
    end = None
    if in_window:
        *found, (end, *_) = found
    rows = [_parse_row(each) for each in found]
    if any(len(row.key) != len(spec.key) for row in rows):
        raise ValueError("a key of another length")
    if in_window:
        return Page(rows, None if end is None else tuple(_KEY.decode(end)))
    return Page(rows, rows[-1].key if rows else None)


def _parse_row(told: tuple[Any, ...]) -> Row:
    key, guard, values, was, joined, known, is_due, _ = told
    if not isinstance(guard, str) or not isinstance(values, str):
        raise TypeError("no row")
    return Row(
        key=tuple(_KEY.decode(key)),
        guard=guard,
        values=Told(values),
        was=_WAS.decode(was),
        joined=() if joined is None else tuple(_ANY.decode(joined)),
        known=None if known is None else parse_known(_ANY.decode(known)),
        is_due=is_due is True,
    )
