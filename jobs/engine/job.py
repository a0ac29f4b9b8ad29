"""What a job must say for the engine to run it. One file per job says all of this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jobs.engine.options import Options
from jobs.targets import Target
from queries.chat import ChatAnswer, ChatRequest
from queries.prices import Price
from queries.table import Row
from queries.tokens import TokenCounter


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing is asked for this row; the reason is a short stable word for the books."""

    row: Row
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """One paid request and the rows whose answer it brings."""

    rows: tuple[Row, ...]
    request: ChatRequest
    tokens_in: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Good:
    """A text that may be stored in this row's answer cell."""

    row: Row
    text: str


@dataclass(frozen=True, slots=True)
class Bad:
    """A paid answer that must not be stored. `again` is a changed request worth one more try."""

    row: Row
    reason: str
    detail: str = ""
    again: Ask | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What a job may use while preparing: it sees texts and prices, never a client."""

    target: Target
    model: str
    tokens: TokenCounter
    price: Price
    options: Options


class Job(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def example(self) -> str: ...

    @property
    def targets(self) -> tuple[Target, ...]: ...

    def prepare(self, row: Row, means: Means) -> Ask | Skip:
        """Content checks before any money."""
        ...

    def judge(self, ask: Ask, answer: ChatAnswer, means: Means) -> list[Good | Bad]:
        """Whether the answer may be stored: one verdict a row."""
        ...


def prepare(job: Job, row: Row, means: Means) -> Ask | Skip | Exception:
    """One odd row must not stop a run, or its plan: the bug is handed back, to be named with the row."""
    try:
        return job.prepare(row, means)
    except Exception as bug:
        return bug
