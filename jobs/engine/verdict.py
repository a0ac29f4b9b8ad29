"""What a run says of itself at the end, and the exit code that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from jobs.engine.books import Books


class Exit(IntEnum):
    """Stable and documented; an unknown code is a failure."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    SOME_NAMED = 3
    STOPPED = 4
    BREAKER = 5
    CEILING = 8
    NOTHING_TO_DO = 9
    REFUSED = 10
    LEASE_HELD = 11
    SIGINT = 130
    SIGTERM = 143


@dataclass(frozen=True, slots=True)
class Named:
    """One row that was not written, and why: shown to the operator, kept in the ledger."""

    key: str
    state: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Money:
    """What the plan said, what was paid, and what may have been billed for calls without an answer."""

    estimate_usd: float | None = None
    actual_usd: float = 0.0
    possibly_usd: float = 0.0
    reserve_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    run_id: str
    job: str
    target: str
    model: str
    where: str
    exit: Exit
    headline: str
    books: Books
    money: Money = Money()
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    throttled: int = 0
    recovered: int = 0
    per_min: float = 0.0
    bound_by: str = ""
    seconds: float = 0.0
    stop_reason: str = ""
    fix: str = ""
    next_command: str = ""
    dry_run: bool = False
    pending_beyond: bool = False
    cells_enforced_by: str = ""
    in_journal: int = 0
    notes: tuple[str, ...] = ()
    named: tuple[Named, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    own: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The verdict line of --json: stable names, nothing an operator could not share."""
        return {
            "type": "verdict",
            "run": self.run_id,
            "job": self.job,
            "target": self.target,
            "model": self.model,
            "database": self.where,
            "exit": int(self.exit),
            "headline": self.headline,
            **self.books.as_json(),
            "calls": self.calls,
            "throttled": self.throttled,
            "recovered": self.recovered,
            "in_journal": self.in_journal,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "estimate_usd": None if self.money.estimate_usd is None else round(self.money.estimate_usd, 6),
            "actual_usd": round(self.money.actual_usd, 6),
            "possibly_usd": round(self.money.possibly_usd, 6),
            "reserve_usd": round(self.money.reserve_usd, 6),
            "per_min": round(self.per_min, 1),
            "bound_by": self.bound_by,
            "seconds": round(self.seconds, 3),
            "stop_reason": self.stop_reason,
            "fix": self.fix,
            "next": self.next_command,
            "dry_run": self.dry_run,
            "pending_beyond": self.pending_beyond,
            "cells_enforced_by": self.cells_enforced_by,
            "notes": list(self.notes),
            "named": [{"key": n.key, "state": n.state, "reason": n.reason, "detail": n.detail} for n in self.named],
            **self.facts,
        }
