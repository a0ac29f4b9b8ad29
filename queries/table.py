"""What the engine knows of a table: names, keys, conditions, rows and pages. No SQL stands here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from queries.record import record

Key = tuple[str, ...]
Op = Literal["is null", "is not null", "is true", "is not true", "=", "<>", "<", ">"]
# These take no value. A flag is false or null before it is set, hence `is not true`.
UNARY: frozenset[Op] = frozenset({"is null", "is not null", "is true", "is not true"})


@dataclass(frozen=True, slots=True)
class Condition:
    column: str
    op: Op
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """Rows of another table that belong to each row and are read with it, in order."""

    table: str
    on: str
    columns: tuple[str, ...]
    order_by: str


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table as one target uses it. `cells[0]` is the cell whose value is the proof of being done (a flag: true).

    Without cells nothing is written into the table, and only the ledger knows what is done.
    `beside` is read with a row but does not belong to its guard: counters that move while we work.
    """

    table: str
    key: tuple[str, ...]
    read: tuple[str, ...]
    cells: tuple[str, ...]
    pending: tuple[Condition, ...]
    filters: tuple[str, ...] = ()
    joined: Joined | None = None
    schema: str = "public"
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ViewTables:
    """Beside a table of videos: a snapshot a video and day, when each is due (if there is such a table), its age."""

    snapshots: str = "view_snapshots"
    priorities: str = "view_tracking_priority"
    published: str = "published_at"


@dataclass(frozen=True, slots=True)
class Slice:
    """Keys above `above` (exclusive) up to `upto` (inclusive); None is open. Where both are one key, that key alone."""

    above: Key | None = None
    upto: Key | None = None

    @property
    def is_one_key(self) -> bool:
        return self.above is not None and self.above == self.upto


@dataclass(frozen=True, slots=True)
class Redo:
    """Rows that have a value, but an old one: by the model or prompt that wrote it, or edited since.

    `cell` names the column that holds the model, if there is one: rows older than our provenance have only that.
    `and_pending` adds the rows that have no value at all. `any` is every row that should have one, whatever it has;
    `outdated` those written from another text, by another model (`value`) or another way (`cell`); `unmade` are those
    too, and all that the ledger does not know. `unsent` are all but those about which a message is out and that are
    still as they were then; one sent more than `value` seconds ago does not count.
    """

    by: Literal["model", "prompt", "edited", "outdated", "any", "unmade", "unsent"]
    value: str = ""
    cell: str = ""
    and_pending: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger says wrote a row last, in how many parts and which run, and if its text is still the same."""

    model: str
    prompt_hash: str
    parts: int
    same_text: bool
    run_id: str = ""


@record(frozen=True, slots=True)
class Row:
    """One candidate as it was read. `guard` is the database's own hash of what was read.

    `is_kept`: all that should exist for it exists, and only its mark is missing. `is_due`: its cells say that it is
    still to do, which only those are told who ask what is known of it.
    """

    key: Key
    guard: str
    values: Mapping[str, Any]
    was: Mapping[str, str | None]
    joined: tuple[Mapping[str, Any], ...] = ()
    known: Known | None = None
    is_kept: bool = False
    is_due: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Candidates, and how far was looked: a window may hold none and not be the last. None is the end."""

    rows: list[Row]
    last: Key | None


@dataclass(frozen=True, slots=True)
class PageQuery:
    """One keyset page of candidates, in key order. `in_window` looks at `limit` keys and returns those among them.

    `among` are the only values that the first column of the key may have.
    """

    spec: TableSpec
    target: str
    fingerprint: str
    above: Key | None
    upto: Key | None
    limit: int
    where: tuple[tuple[str, str], ...] = ()
    among: tuple[str, ...] | None = None
    redo: Redo | None = None
    retry_failed: bool = False
    with_known: bool = False
    in_window: bool = False


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    type: str
    not_null: bool
    selectable: bool
    updatable: bool


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What the catalogs say of a table, as the connected role sees it."""

    columns: Mapping[str, ColumnFacts]
    unique_keys: tuple[tuple[str, ...], ...]
    row_security: bool
    role: str
    bypasses_row_security: bool
    has_update_policy: bool
    triggers: tuple[str, ...]
    publications: tuple[str, ...]
    estimated_rows: int
    pending_index: bool


def write_array(parts: Iterable[str]) -> str:
    """A text[] as the text that Postgres reads it from: every part quoted, so that none can end it."""
    escaped = (part.replace("\\", "\\\\").replace('"', '\\"') for part in parts)
    return "{" + ",".join(f'"{part}"' for part in escaped) + "}"
