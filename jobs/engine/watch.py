"""What the engine tells whoever watches it. A watcher that fails never stops the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from jobs.engine.books import Books


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is about to do, shown before anything is paid. Totals are estimates and say so."""

    job: str
    target: str
    table: str
    where: str
    model: str
    provider: str
    cells: tuple[str, ...]
    pending_counted: int
    pending_is_floor: bool
    pending_estimate: int | None
    estimate_usd: float
    sampled_rows: int
    tokens_in_per_row: float
    rewrite_bytes: int
    last_time: int | None
    triggers: tuple[str, ...]
    new_triggers: tuple[str, ...]
    ceilings: str
    samples: tuple[tuple[str, str], ...] = ()
    would_skip: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    standing: tuple[tuple[str, int], ...] = ()
    own: tuple[tuple[str, str], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where the run stands now; cheap enough to take ten times a second."""

    phase: str  # preflight, replay, canary, counting, filling, running, waiting, draining, done
    books: Books
    in_flight: int
    per_min: float
    bound_by: str
    spent_usd: float
    possibly_usd: float
    ceiling_usd: float | None
    total_estimate: int | None
    seconds: float
    waiting_for: str = ""
    last_text: tuple[str, str] | None = None
    counted: int = 0
    """Rows that a phase which settles none has done."""

    @property
    def done(self) -> int:
        return self.counted or self.books.settled()


class Watcher(Protocol):
    def plan(self, plan: Plan) -> None: ...

    async def confirm(self, plan: Plan, why: str) -> bool:
        """Asks the operator; False where there is nobody to ask."""
        ...

    def notice(self, text: str) -> None: ...

    def progress(self, snapshot: Snapshot) -> None: ...
