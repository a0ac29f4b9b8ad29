"""Bugs of refresh-views, planted like those of tests.chaos.planted; and small requests for its victims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jobs import refresh_views
from jobs.engine.job import Packing
from jobs.metered_views import MeteredViews
from queries.ledger import WriteBatch, WriteResult
from queries.views_ledger import ViewsLedger


def make_small(ids: int) -> None:
    """No bug: requests of so many videos."""
    packing = Packing(texts_most=ids, tokens_most=ids, is_first_full=True)
    refresh_views.JOB = refresh_views.RefreshViews(packing=packing)


def count_units_alone() -> None:
    """Units are counted in this process and booked nowhere."""

    async def admit(self: MeteredViews, insist: Any) -> None:
        del insist
        self.units += 1

    MeteredViews.admit = admit  # type: ignore[method-assign]
    MeteredViews.readmit = lambda self: None  # type: ignore[method-assign]


def leave_snapshots_out() -> None:
    """The first row of each page is left out, and still counts as written. (The last one would be read back.)"""
    write = ViewsLedger.write

    async def write_less(self: ViewsLedger, batch: WriteBatch) -> WriteResult:
        if len(batch.rows) < 2:
            return await write(self, batch)
        result = await write(self, replace(batch, rows=batch.rows[1:]))
        changed = {index + 1: why for index, why in result.changed.items()}
        wrote, gone = (frozenset(index + 1 for index in found) for found in (result.wrote, result.gone))
        return replace(result, wrote=wrote | {0}, changed=changed, gone=gone)

    ViewsLedger.write = write_less  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "units-not-booked": count_units_alone,
    "snapshots-left-out": leave_snapshots_out,
}
