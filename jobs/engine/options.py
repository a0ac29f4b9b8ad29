"""How the operator wants this run to go: plain values, decided by the command line and settings."""

from __future__ import annotations

from dataclasses import dataclass

from queries.ledger import Ceilings
from queries.table import Key, Redo, Row, Slice


@dataclass(frozen=True, slots=True)
class Only:
    """These rows and no others; a few of them as they were read, for the plan. Of `free` only the mark is wrong."""

    keys: frozenset[Key]
    sample: tuple[Row, ...]
    free: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Options:
    """`among`: only rows whose key begins with one of these, whatever was selected before; a list is its own cursor.

    `picked` is how the job itself was told to choose: of another choice another run goes on.
    `is_proven`: this process has written such rows already, so that none has to be tried by itself first; `is_planned`:
    this is a part of what somebody has seen the plan of. `tries_most` rows may fail before one is proven.
    """

    dry_run: bool = False
    yes: bool = False
    fresh: bool = False
    limit: int | None = None
    where: tuple[tuple[str, str], ...] = ()
    slice: Slice = Slice()
    redo: Redo | None = None
    retry_failed: bool = False
    abandon_journal: bool = False
    allow_triggers: tuple[str, ...] = ()
    concurrency: int | None = None
    max_per_min: int | None = None
    db_load: float = 0.25
    ceilings: Ceilings = Ceilings()
    max_runtime_s: float | None = None
    max_outage_s: float = 600.0
    grace_s: float = 5.0
    min_characters: int = 50
    min_words: int = 10
    error_on_nothing: bool = False
    create_namespace: bool = False
    create_index: bool = False
    edited_if_small: bool = False
    only: Only | None = None
    among: tuple[str, ...] | None = None
    picked: tuple[tuple[str, str], ...] = ()
    is_proven: bool = False
    is_planned: bool = False
    tries_most: int = 5
    keep_answers_s: float | None = None
