"""Bugs planted on the way of a vector: what a plausible mistake between the answer and the flag would do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from jobs import vectorize
from jobs.engine import journal_lines, settling
from jobs.engine.delivery import Delivery
from jobs.engine.job import Ask, Bad, Good, Means
from jobs.engine.past import Paid
from jobs.engine.write_back import paid_entry
from jobs.vectorize import Vectorize
from queries.embed import EmbedAnswer
from queries.vectors import VectorRecord


def flag_before_put() -> None:
    """The row is called done as soon as its vectors are known, and they follow."""

    async def flag_and_put(self: Delivery, group: Any, rows: Sequence[Paid]) -> None:
        for paid in rows:
            _, recovered = group.rows.pop(paid.key)
            self.writer.put(paid_entry(paid, recovered=recovered))
        await self.writer.flush()
        await self._put([record for paid in rows for record in paid.vectors])

    Delivery._deliver = flag_and_put  # type: ignore[method-assign]


def believe_the_put() -> None:
    """What was acknowledged is taken as seen."""

    async def see(self: Delivery, records: Sequence[VectorRecord]) -> frozenset[str]:
        del self, records
        return frozenset()

    Delivery._see = see  # type: ignore[method-assign]


def journal_without_vectors() -> None:
    """The journal remembers the row and forgets what was bought for it."""
    paid_json = journal_lines.paid_json
    journal_lines.paid_json = lambda paid, *how: paid_json(replace(paid, vectors=(), drop=()), *how)


def shift_pairing() -> None:
    """Of a request for several rows each gets its neighbour's vectors."""
    judge = Vectorize.judge

    def judge_shifted(self: Vectorize, ask: Ask, answer: EmbedAnswer, means: Means) -> list[Good | Bad]:
        moved = answer if answer.bad else replace(answer, vectors=(*answer.vectors[1:], *answer.vectors[:1]))
        return judge(self, ask, moved, means)

    Vectorize.judge = judge_shifted  # type: ignore[method-assign]


def drop_before_put() -> None:
    """Chunks beyond the new count are deleted first, and while the new ones are late a reader finds neither."""
    deliver = Delivery._deliver

    async def drop_and_deliver(self: Delivery, group: Any, rows: Sequence[Paid]) -> None:
        drop = [id_ for paid in rows for id_ in paid.drop]
        if drop:
            await self.service.insist(lambda: self.space.delete(drop))
            await asyncio.sleep(0.05)
        await deliver(self, group, rows)

    Delivery._deliver = drop_and_deliver  # type: ignore[method-assign]


def keep_stale_chunks() -> None:
    """Nobody remembers how many chunks there were."""
    paid = settling._paid
    settling._paid = lambda good, cells: replace(paid(good, cells), drop=())


def make_small(texts_most: int, group_most: int) -> None:
    """No bug: small requests, groups and journals, so that forty rows meet every effect many times."""
    from jobs.engine import delivery, journal, moving  # noqa: PLC0415

    vectorize.JOB = replace(vectorize.JOB, packing=replace(vectorize.JOB.packing, texts_most=texts_most))
    delivery._GROUP_MOST = group_most
    journal._LARGE, moving.AT_ONCE = 4_000, 1_000


PLANTS: dict[str, Callable[[], None]] = {
    "flag-before-put": flag_before_put,
    "put-not-seen": believe_the_put,
    "journal-without-vectors": journal_without_vectors,
    "pairing-shifted": shift_pairing,
    "drop-before-put": drop_before_put,
    "stale-chunks-kept": keep_stale_chunks,
}
