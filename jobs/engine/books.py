"""The books of a run: every selected row ends in exactly one state, and the sum must balance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Books:
    """Counts of one session. `wrote` is what the database confirmed, never what was sent."""

    selected: int = 0
    wrote: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    changed: int = 0
    gone: int = 0
    to_do: int = 0

    def settled(self) -> int:
        return self.wrote + self.skipped.total() + self.failed.total() + self.changed + self.gone

    def balance(self) -> bool:
        return self.selected == self.settled() + self.to_do

    def as_json(self) -> dict[str, object]:
        return {
            "selected": self.selected,
            "wrote": self.wrote,
            "skipped": dict(self.skipped),
            "failed": dict(self.failed),
            "changed": self.changed,
            "gone": self.gone,
            "to_do": self.to_do,
            "balanced": self.balance(),
        }
