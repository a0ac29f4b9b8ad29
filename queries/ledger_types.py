"""The nouns of the ledger: runs, leases, guarded writes, verdicts, money."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from queries.record import record
from queries.table import Key, Slice, TableSpec

SCHEMA_VERSION = 3


@dataclass(frozen=True, slots=True)
class Hello:
    """`schema_version` is None before `catchup migrate`."""

    schema_version: int | None
    role: str
    registered_cells: tuple[str, ...]
    least_privilege: bool


@dataclass(frozen=True, slots=True)
class Home:
    """Where a journal lives: a process can prove another's death only in the same home."""

    host: str
    home_id: str
    boot_id: str
    pid: int
    process_start: str
    lock_id: str


@dataclass(frozen=True, slots=True)
class Holder:
    run_id: str
    generation: int
    home: Home
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Lease:
    run_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the ledger keeps it. `books` counts final states over all its sessions."""

    run_id: str
    job: str
    target: str
    fingerprint: str
    params: Mapping[str, Any]
    slice: Slice
    state: Literal["running", "stopped", "finished", "cancelled"]
    home_host: str
    home_id: str
    checkpoint: Key | None
    upper: Key | None
    unconfirmed: int
    unconfirmed_usd: float
    books: Mapping[str, int]
    spent_usd: float
    possibly_usd: float
    calls: int
    stop_reason: str
    cancel_asked: bool
    started_at: str
    updated_at: str


@record(frozen=True, slots=True)
class WriteRow:
    """`elsewhere`: its parts are vectors that lie in a space already, whatever becomes of the row. `is_sent`: a message
    about it is out, so it counts as wrote even if its worker has changed the row already."""

    key: Key
    guard: str
    was: Mapping[str, str | None]
    cells: Mapping[str, str | None]
    parts: int = 1
    elsewhere: bool = False
    is_sent: bool = False


@record(frozen=True, slots=True)
class RowVerdict:
    """An exception worth remembering: this row, with this text, is no candidate again."""

    key: Key
    guard: str
    state: Literal["failed", "skipped"]
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Spend:
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0
    possibly_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Results, exceptions, money and checkpoint that become true in one transaction or not at all."""

    write_id: str
    run_id: str
    generation: int
    target: str
    fingerprint: str
    spec: TableSpec
    rows: Sequence[WriteRow] = ()
    verdicts: Sequence[RowVerdict] = ()
    books: Mapping[str, int] = field(default_factory=dict)
    checkpoint: Key | None = None
    spend: Spend = Spend()
    unconfirmed: int = 0
    unconfirmed_usd: float = 0.0
    model: str = ""
    prompt_hash: str = ""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Indexes into the batch's rows: what the database confirmed, and why the others were left alone."""

    wrote: frozenset[int]
    changed: Mapping[int, str]
    gone: frozenset[int]
    cancel_asked: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """The model that a place of vectors belongs to, and the target that was the first to write there."""

    model: str
    dimensions: int
    target: str


@dataclass(frozen=True, slots=True)
class Ceilings:
    run_usd: float | None = None
    hour_usd: float | None = None
    day_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Lump:
    """A grant of money to spend without asking again; `refused_by` names the ceiling that left nothing."""

    granted_usd: float
    refused_by: Literal["", "run", "hour", "day"] = ""
    clears_in_s: float | None = None
