"""Rows whose mark was lost though their vectors are there: found page by page, so that nothing is paid for twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from queries.table import Row

if TYPE_CHECKING:
    from jobs.engine.delivery import Delivery
    from jobs.engine.work import Work


async def find_kept(rows: Sequence[Row], work: Work, delivery: Delivery) -> list[Row]:
    """The same rows; `is_kept` where the ledger and the space agree that nothing is missing."""
    means = work.means
    expected = {row.key: work.job.expects(row, means) for row in rows}
    wanted = sorted({id_ for ids in expected.values() for id_ in ids})
    if not wanted:
        return list(rows)
    seen = await delivery.service.insist(lambda: delivery.space.seen(wanted))
    return [replace(row, is_kept=bool(ids := expected.get(row.key, ())) and seen.issuperset(ids)) for row in rows]
