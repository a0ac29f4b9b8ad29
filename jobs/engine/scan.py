"""Walks a slice of a target page by page: keyset only, and only an empty page ends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

from jobs.engine import fault_points
from jobs.engine.clock import Clock
from jobs.engine.database import Database
from jobs.engine.database_load import PieceSize
from queries.errors import StatementTimeout
from queries.ledger import Ledger
from queries.page_rows import Told
from queries.table import Key, Page, PageQuery, Row

_FIRST_PAGE, _PAGE_MOST = 50, 2_000  # of small rows; of large ones as many as weigh 2 MB
_OTHER_BYTES = 20
_LISTED_MOST = 60  # keys a request: servers cut a URL at 8 kB


class Scan:
    """One page ahead of the work, sized by what the rows weigh and how fast the database answers."""

    def __init__(self, ledger: Ledger, database: Database, query: PageQuery, clock: Clock) -> None:
        self._look = ledger.look_quickly
        self._database = database
        self._query = query
        self._clock = clock
        self._size = PieceSize(start=_FIRST_PAGE, most=_PAGE_MOST)

    async def page(self, above: Key | None) -> Page:
        """The next page, in as many attempts and as small as the database needs."""
        while True:
            asked = self._size.rows
            query = replace(self._query, above=above, limit=asked)
            started = self._clock.now()
            try:
                page = await self._database.insist(lambda query=query: self._look(query), shrinks=True)  # type: ignore[misc]
            except StatementTimeout as timeout:
                if not self._size.timed_out():
                    timeout.fix = "create the partial index that `catchup migrate --print` suggests"
                    raise
                continue
            fault_points.reach("page.read")
            looked_at = asked if query.in_window and page.last else len(page.rows)
            weight = sum(weigh(row) for row in page.rows)
            self._size.worked(looked_at, self._clock.now() - started, weight)
            return page

    async def pages_from(self, above: Key | None) -> AsyncIterator[list[Row]]:
        """A long list of keys is asked for in parts: over REST it travels in a URL."""
        listed = self._query.among
        if listed is None or len(listed) <= _LISTED_MOST:
            async for rows in self._pages_of_query(above):
                yield rows
            return
        whole = self._query
        for start in range(0, len(listed), _LISTED_MOST):
            self._query = replace(whole, among=listed[start : start + _LISTED_MOST])
            async for rows in self._pages_of_query(above):
                yield rows

    async def rows_from(self, above: Key | None) -> AsyncIterator[Row]:
        """Each by itself."""
        async for page in self.pages_from(above):
            for row in page:
                yield row

    async def _pages_of_query(self, above: Key | None) -> AsyncIterator[list[Row]]:
        ahead = asyncio.ensure_future(self.page(above))
        try:
            while True:
                page = await ahead
                if page.last is not None:
                    ahead = asyncio.ensure_future(self.page(page.last))
                if page.rows:
                    yield page.rows
                if page.last is None:
                    return
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)


def weigh(row: Row) -> int:
    """About its bytes on the way."""
    if isinstance(row.values, Told):
        return len(row.values.text) + sum(_size(value) for each in row.joined for value in each.values())
    size = 0
    for each in (row.values, *row.joined):
        for value in each.values():
            size += _OTHER_BYTES + len(value) if type(value) is str else _size(value)
    return size


def _size(value: object) -> int:
    """About its bytes on the way: of a text its characters, of structures what they print as."""
    match value:
        case str():
            return _OTHER_BYTES + len(value)
        case dict() | list():
            return len(json.dumps(value, default=str))
        case _:
            return _OTHER_BYTES
