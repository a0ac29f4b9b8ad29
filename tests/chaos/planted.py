"""Bugs planted from outside, in a victim's process only, before its run starts. The harness must catch each of them.

Nothing here is in the product: each plant replaces one method of the engine by what a plausible mistake would do.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jobs.engine import lease
from jobs.engine.checkpoint import Checkpoint
from jobs.engine.journal import Journal
from jobs.engine.past import Paid
from jobs.engine.state_dir import StateDir
from queries.ledger import Lease, Ledger, RowVerdict
from queries.table import Key, Slice
from tests.chaos import planted_batches, planted_messages, planted_vectors, planted_views


def save_cursor_on_fetch() -> None:
    """The cursor moves when a page is read, not when its rows are settled."""
    opened = Checkpoint.opened

    def open_and_move(self: Checkpoint, keys: Iterable[Key]) -> None:
        rows = list(keys)
        opened(self, rows)
        if rows:
            self.key = rows[-1]

    def would_be(self: Checkpoint, settled: Iterable[Key]) -> Key | None:
        del settled
        return self.key

    Checkpoint.opened = open_and_move  # type: ignore[method-assign]
    Checkpoint.would_be = would_be  # type: ignore[method-assign]
    Checkpoint.settled = lambda self, keys: None  # type: ignore[method-assign]


def write_before_journal() -> None:
    """Paid answers reach the journal only after the database has them."""
    waiting: list[tuple[int, float, list[Paid], list[RowVerdict]]] = []
    answered, confirmed, writing = Journal.answered, Journal.confirmed, Journal.writing

    def keep(
        self: Journal, attempt: int, usd: float, paid: Sequence[Paid], verdicts: Sequence[RowVerdict] = ()
    ) -> None:
        del self
        waiting.append((attempt, usd, list(paid), list(verdicts)))

    def confirm(self: Journal, write_id: str) -> None:
        for each in waiting:
            answered(self, *each)
        waiting.clear()
        writing(self, write_id, intents.pop(write_id))
        confirmed(self, write_id)

    intents: dict[str, Mapping[str, object]] = {}
    Journal.answered = keep  # type: ignore[method-assign]
    Journal.writing = lambda self, write_id, facts: intents.update({write_id: facts})  # type: ignore[method-assign]
    Journal.confirmed = confirm  # type: ignore[method-assign]


def book_after_send() -> None:
    """An attempt is booked when its answer is there, not before it leaves."""
    numbers = itertools.count(1_000_000)
    tried: dict[int, tuple[list[Key], float]] = {}
    answered, ended, attempted = Journal.answered, Journal.ended, Journal.attempted

    def begin(self: Journal, keys: Sequence[Key], worst_usd: float) -> int:
        del self
        tried[number := next(numbers)] = (list(keys), worst_usd)
        return number

    def answer(
        self: Journal, attempt: int, usd: float, paid: Sequence[Paid], verdicts: Sequence[RowVerdict] = ()
    ) -> None:
        number = attempted(self, *tried.pop(attempt)) if attempt in tried else attempt
        answered(self, number, usd, paid, verdicts)

    def end(self: Journal, attempt: int, possibly_usd: float) -> None:
        number = attempted(self, *tried.pop(attempt)) if attempt in tried else attempt
        ended(self, number, possibly_usd)

    Journal.attempted = begin  # type: ignore[method-assign]
    Journal.answered = answer  # type: ignore[method-assign]
    Journal.ended = end  # type: ignore[method-assign]


def forget_locks() -> None:
    """No flock, and a lease that overlaps nobody: every start believes it is alone."""
    take_lease = Ledger.take_lease

    async def take_elsewhere(self: Ledger, **arguments: Any) -> Lease:
        nowhere = Slice(above=(f"~{os.getpid():09d}",), upto=(f"~{os.getpid():09d}~",))
        return await take_lease(self, **{**arguments, "slice_": nowhere})

    StateDir.lock = lambda self, lock_id: True  # type: ignore[method-assign]
    Ledger.take_lease = take_elsewhere  # type: ignore[method-assign]


def shorten_lease() -> None:
    """No bug: a lease of two seconds, so that a test can outwait it."""
    lease.TTL_S, lease.BEAT_S, lease.SILENT_S = 2.0, 0.3, 1.0


PLANTS: dict[str, Callable[[], None]] = {
    "cursor-saved-on-fetch": save_cursor_on_fetch,
    "write-before-journal": write_before_journal,
    "booked-after-send": book_after_send,
    "no-lock": forget_locks,
    "short-lease": shorten_lease,
    **planted_vectors.PLANTS,
    **planted_batches.PLANTS,
    **planted_views.PLANTS,
    **planted_messages.PLANTS,
}
