"""What a job counts beside money: units of a quota, taken before an attempt is booked, and its words about itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from jobs.engine.books import Books

Insist = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Told:
    """Lines for people, with their labels, and the same facts for --json."""

    lines: tuple[tuple[str, str], ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Account(Protocol):
    async def admit(self, insist: Insist) -> None:
        """One more call is about to leave: takes what it costs, or raises what ends the run."""
        ...

    def readmit(self) -> None:
        """The call that was admitted last did not leave after all."""
        ...

    async def forecast(self, insist: Insist, pending: int) -> Told:
        """What the plan says of it; `pending` rows are known of. Reads only."""
        ...

    def report(self, books: Books) -> Told:
        """What the verdict says of it."""
        ...

    async def close(self) -> None:
        """Gives back what was taken and not used."""
        ...
