"""What a job must say for the engine to run it. One file per job says all of this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from jobs.engine.options import Options
from jobs.targets import Target
from queries.errors import RateLimits
from queries.prices import Price
from queries.record import record
from queries.table import Row
from queries.tokens import TokenCounter
from queries.vectors import VectorRecord


@record(frozen=True, slots=True)
class Skip:
    """Nothing is asked for this row; the reason is a short stable word for the books."""

    row: Row
    reason: str
    detail: str = ""


@record(frozen=True, slots=True)
class Keep:
    """Everything this row should have is already there, in so many parts: it is only marked as done."""

    row: Row
    parts: int = 1


@record(frozen=True, slots=True)
class Ask:
    """One paid request and the rows whose answer it brings.

    `request` is for the job's service, `about` for the job itself: the engine only hands them on. `source` is the
    text the answer is made from. `tokens_worst` is for the reservation, where `tokens_in` may be too few. Where
    requests are packed, `parts` are the ones this was made of, one a row. The tokens of `uncounted` are still to be
    added to `tokens_in`.
    """

    rows: tuple[Row, ...]
    request: Any
    tokens_in: int
    source: str
    tokens_out_most: int = 0
    tokens_worst: int = 0
    answer_bytes: int = 4_096
    texts: int = 1
    about: Any = None
    parts: tuple[Ask, ...] = ()
    is_again: bool = False
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Packing:
    """How much the service takes in one request, and how large its answer may be: several are in memory.

    `is_first_full`: a request costs the same whatever is in it, so the first one, which proves the setup, is whole.
    """

    texts_most: int
    tokens_most: int
    bytes_most: int = 16 << 20
    is_first_full: bool = False


@record(frozen=True, slots=True)
class Good:
    """A text that may be stored in this row's answer cell, or vectors that may be stored beside the table.

    `drop` are ids of vectors that an earlier, longer text of this row has left behind. `more` are the further parts of
    an answer that has several, by name: a target's cell takes one as `answer.NAME`. `is_sent`: a message about the row
    is out, and stays so whatever becomes of the row.
    """

    row: Row
    text: str
    vectors: tuple[VectorRecord, ...] = ()
    drop: tuple[str, ...] = ()
    more: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_sent: bool = False


@record(frozen=True, slots=True)
class Bad:
    """A paid answer that must not be stored. `again` is a changed request worth one more try."""

    row: Row
    reason: str
    detail: str = ""
    again: Ask | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What a job may use while preparing: it sees texts and prices, never a client. A plan is to count exactly.

    `counts_later`: a text that fits whatever its tokens are may be left uncounted, for many to be counted at once.
    """

    target: Target
    model: str
    tokens: TokenCounter
    price: Price
    options: Options
    is_plan: bool = False
    counts_later: bool = False


class Answer(Protocol):
    """What the engine books of any answer; the rest is between the job and its service."""

    @property
    def model(self) -> str: ...

    @property
    def tokens_in(self) -> int: ...

    @property
    def tokens_out(self) -> int: ...

    @property
    def text(self) -> str | None: ...

    @property
    def limits(self) -> RateLimits | None: ...


class Service(Protocol):
    """Who is paid: makes exactly one attempt and raises only what queries.errors names."""

    name: str
    is_local: bool

    @property
    def note(self) -> str:
        """What an operator should know about what it did so far; as a rule nothing."""
        ...

    async def ask(self, request: Any) -> Answer: ...

    async def close(self) -> None: ...


class Job(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def service(self) -> Literal["chat", "embed", "publish", "views"]: ...

    @property
    def example(self) -> str: ...

    @property
    def targets(self) -> tuple[Target, ...]: ...

    @property
    def packing(self) -> Packing | None:
        """None: one row, one request."""
        ...

    def expects(self, row: Row, means: Means) -> tuple[str, ...]:
        """Ids that the space must have if nothing about this row has changed since it was last done; else none."""
        ...

    def prepare(self, row: Row, means: Means) -> Ask | Skip | Keep:
        """Content checks before any money."""
        ...

    def pack(self, asks: Sequence[Ask]) -> Ask:
        """One request for all of them."""
        ...

    def judge(self, ask: Ask, answer: Any, means: Means) -> Sequence[Good | Bad | Skip]:
        """Whether the answer may be stored: one verdict a row."""
        ...


def prepare(job: Job, row: Row, means: Means) -> Ask | Skip | Keep | Exception:
    """One odd row must not stop a run, or its plan: the bug is handed back, to be named with the row."""
    try:
        return job.prepare(row, means)
    except Exception as bug:
        return bug
