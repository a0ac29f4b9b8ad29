"""A file of requests while it is written: rows are added until something is full, and cut off where money ends."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jobs.batching.folder import hash_of, open_private
from jobs.batching.options import BatchOptions
from jobs.batching.spool import Spool
from jobs.engine.job import Ask
from queries.batch_requests import write_line
from queries.batches import EMBED, Endpoint
from queries.prices import Price
from queries.table import Key, Row

_WRITTEN_AT_ONCE = 1 << 20


class Drafted(NamedTuple):
    """One row of a draft: where its line ends in the file, and what all up to it may cost."""

    n: int
    key: Key
    guard: str
    was: str | None
    end: int
    tokens: int
    worst_usd: float


_NOTHING = Drafted(-1, (), "", None, 0, 0, 0.0)


@dataclass(slots=True)
class Draft:
    """`tokens_most` is the room there is; None is all of it. One model and one endpoint to a file, by construction."""

    chunk: str
    path: Path
    endpoint: Endpoint
    price: Price
    options: BatchOptions
    tokens_most: int | None
    cell: str
    rows: list[Drafted] = field(default_factory=list)
    few: list[Row] = field(default_factory=list)
    """The first of them, for the case that they are so few that they are asked live."""
    full: str = ""
    _inputs: int = 0
    _spool: Spool | None = None
    _waiting: list[bytes] = field(default_factory=list)
    _waiting_bytes: int = 0

    @property
    def tokens(self) -> int:
        return self.rows[-1].tokens if self.rows else 0

    @property
    def size_bytes(self) -> int:
        return self.rows[-1].end if self.rows else 0

    @property
    def worst_usd(self) -> float:
        return self.rows[-1].worst_usd if self.rows else 0.0

    def add(self, ask: Ask) -> bool:
        """False where it does not fit any more: then it is for the next file, and `full` says why."""
        line = write_line(f"{self.chunk}-{len(self.rows)}", self.endpoint, ask.request)
        self.full = self._why_full(ask, len(line))
        if self.full:
            return False
        row, before = ask.rows[0], self.rows[-1] if self.rows else _NOTHING
        self.rows.append(
            Drafted(
                before.n + 1,
                row.key,
                row.guard,
                row.was[self.cell] if self.cell else None,
                before.end + len(line),
                before.tokens + ask.tokens_in,
                before.worst_usd + self.price.worst_usd(max(ask.tokens_in, ask.tokens_worst), ask.tokens_out_most),
            )
        )
        if len(self.few) < self.options.tail_live:
            self.few.append(row)
        self._inputs += ask.texts
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        if self._waiting_bytes >= _WRITTEN_AT_ONCE:
            self._write()
        return True

    def _why_full(self, ask: Ask, size: int) -> str:
        limits = self.options
        if len(self.rows) >= limits.requests_most:
            return f"{limits.requests_most:,} requests"
        if self.size_bytes + size > limits.bytes_most:
            return f"{limits.bytes_most:,} bytes"
        if self.endpoint == EMBED and self._inputs + ask.texts > limits.inputs_most:
            return f"{limits.inputs_most:,} texts"
        if self.tokens_most is not None and self.tokens + ask.tokens_in > self.tokens_most:
            return f"{self.tokens_most:,} tokens"
        return ""

    def _write(self) -> Spool:
        if self._spool is None:
            self._spool = Spool(self.path)
        lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if lines:
            self._spool.put(b"".join(lines))  # not in its thread, which would keep memory of its own for it
        return self._spool

    def cut(self, usd: float) -> int:
        """Leaves out the last rows until the rest costs no more than this at worst; returns how many those were."""
        kept = [row for row in self.rows if row.worst_usd <= usd]
        out = len(self.rows) - len(kept)
        self.rows = kept
        self._write().cut(self.size_bytes)
        return out

    def finish(self) -> str:
        """On the disk; its SHA-256."""
        sha256 = self._write().close()
        self._spool = None
        return sha256

    def leave_out(self, lost: frozenset[int]) -> str:
        """Without the lines of rows that are somebody else's; the others keep their numbers."""
        beside = self.path.with_suffix(".part")
        with self.path.open("rb") as old, os.fdopen(open_private(beside), "wb") as new:
            for row, line in zip(list(self.rows), old, strict=True):
                if row.n not in lost:
                    new.write(line)
            new.flush()
            os.fsync(new.fileno())
        beside.replace(self.path)
        self.rows = [row for row in self.rows if row.n not in lost]
        return hash_of(self.path)

    def discard(self) -> None:
        if self._spool is not None:
            self._spool.discard()
            self._spool = None
        self.path.unlink(missing_ok=True)
