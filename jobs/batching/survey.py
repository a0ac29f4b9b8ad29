"""A dry run's walk over every candidate: what is counted here is counted, not guessed. Nothing is written."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from jobs.batching.options import BatchWork
from jobs.batching.preparing import Preparing
from jobs.engine.database import Database
from jobs.engine.job import Ask, Skip, prepare
from jobs.engine.scan import Scan
from queries.batch_ledger import Room
from queries.batch_requests import write_line
from queries.batches import EMBED
from queries.errors import CatchupError, ItemPermanent
from queries.table import PageQuery

_WINDOW_H = 24
_OUT_SHARE = 0.4  # of the allowed answer, as every plan guesses
_SAMPLES = 3


@dataclass(slots=True)
class Survey:
    """Rows as the real run would select them, and the files it would make of them."""

    rows: int = 0
    requests: int = 0
    tokens: int = 0
    tokens_out_most: int = 0
    size_bytes: int = 0
    files: int = 0
    full_by: Counter[str] = field(default_factory=Counter)
    skips: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[str, str]] = field(default_factory=list)
    _in_file: tuple[int, int, int, int] = (0, 0, 0, 0)

    def add(self, ask: Ask, size: int, errand: BatchWork, tokens_most: int | None) -> None:
        options = errand.options
        most = (options.requests_most, options.bytes_most, options.inputs_most, tokens_most or math.inf)
        texts = ask.texts if errand.endpoint == EMBED else 0
        new = (1, size, texts, ask.tokens_in)
        grown = tuple(a + b for a, b in zip(self._in_file, new, strict=True))
        over = next((i for i, (have, limit) in enumerate(zip(grown, most, strict=True)) if have > limit), None)
        if over is not None and self._in_file[0]:
            self.full_by[("requests", "bytes", "texts", "tokens")[over]] += 1
            self.files += 1
            grown = new
        self._in_file = (grown[0], grown[1], grown[2], grown[3])
        self.requests += 1
        self.tokens += ask.tokens_in
        self.tokens_out_most += ask.tokens_out_most
        self.size_bytes += size
        if len(self.samples) < _SAMPLES:
            self.samples.append((" ".join(ask.rows[0].key), ask.source))

    @property
    def files_made(self) -> int:
        return self.files + (1 if self._in_file[0] else 0)

    def waves(self, tokens_most: int | None) -> int:
        """How often the whole limit has to be filled; without a limit all files go at once."""
        if not self.requests:
            return 0
        return max(1, math.ceil(self.tokens / tokens_most)) if tokens_most else 1


async def survey(
    found: Survey, errand: BatchWork, database: Database, query: PageQuery, tokens_most: int | None
) -> None:
    """Walks as the run would, up to --limit; `found` grows meanwhile, for whoever watches."""
    means, limit = errand.means, errand.work.options.limit
    scan = Scan(errand.work.ledger, database, query, errand.work.clock)
    with Preparing(errand.work.job, means) as preparing:
        async for ready in preparing.ahead(scan.rows_from(query.above)):
            if limit is not None and found.requests >= limit:
                return
            found.rows += 1
            item = ready.item if ready.item is not None else prepare(errand.work.job, ready.row, means)
            if isinstance(item, Ask):
                try:
                    size = len(write_line("0123456789-12-12345", errand.endpoint, item.request))
                except ItemPermanent as odd:
                    found.skips[odd.reason] += 1
                    continue
                found.add(item, size, errand, tokens_most)
            elif isinstance(item, Skip):
                found.skips[item.reason] += 1
            elif isinstance(item, Exception):
                found.skips["internal error"] += 1


def usd_of(found: Survey, errand: BatchWork) -> tuple[float, float]:
    """By Batch and live; answers are guessed as in any plan."""
    out = round(found.tokens_out_most * _OUT_SHARE)
    return errand.price.worst_usd(found.tokens, out), errand.work.price.worst_usd(found.tokens, out)


def lines_of(found: Survey, errand: BatchWork, room: Room | None, queued: str) -> tuple[tuple[str, str], ...]:
    """What an operator wants to know before a file is written."""
    batch, live = usd_of(found, errand)
    limit = tokens_most(errand, room)
    full = ", ".join(f"{count:,} full by {what}" for what, count in found.full_by.most_common())
    hours = found.waves(limit) * _WINDOW_H
    exact = "counted" if errand.work.tokens.exact else "counted as bytes, which is never too few"
    made = f"{found.requests:,} in {found.files_made} files, {found.size_bytes / 1e6:,.1f} MB"
    waves = f" ({found.waves(limit)} after another, for the limit)" if found.waves(limit) > 1 else ""
    return (
        (
            "requests",
            f"{made}; {full or 'none full'}",
        ),
        ("tokens", f"{found.tokens:,} in, {exact}; at most {found.tokens_out_most:,} out"),
        ("price", f"~${batch:,.2f} by Batch, ~${live:,.2f} live"),
        ("longest", f"{hours} h{waves}: the provider promises each batch within 24 h, mostly it is sooner"),
        ("enqueued", say_limit(errand, room)),
        ("queued", queued),
    )


def facts_of(found: Survey, errand: BatchWork, room: Room | None) -> dict[str, Any]:
    batch, live = usd_of(found, errand)
    return {
        "requests": found.requests,
        "files": found.files_made,
        "tokens_in": found.tokens,
        "bytes": found.size_bytes,
        "batch_usd": round(batch, 6),
        "live_usd": round(live, 6),
        "longest_h": found.waves(tokens_most(errand, room)) * _WINDOW_H,
        "enqueued_limit": tokens_most(errand, room),
    }


def tokens_most(errand: BatchWork, room: Room | None) -> int | None:
    return errand.options.enqueued_limit or (room.tokens if room else None)


def say_limit(errand: BatchWork, room: Room | None) -> str:
    if errand.options.enqueued_limit:
        return f"at most {errand.options.enqueued_limit:,} tokens, by --enqueued-limit"
    if room is None or room.tokens is None:
        return "the organisation's limit is unknown; a refusal tells it, once"
    age_h = (room.age_s or 0.0) / 3600
    return f"at most {room.tokens:,} tokens, as a refusal said {age_h:.1f} h ago"


async def say_queued(errand: BatchWork, is_ours: set[str]) -> str:
    """Ours and everybody else's in the organisation; the provider may be away, and a plan is a plan all the same."""
    ours = others = 0
    try:
        async for remote in errand.batches.list_all():
            if not remote.has_ended:
                ours += remote.id in is_ours
                others += remote.id not in is_ours
    except CatchupError as error:
        return f"unknown: {error.what}"
    return f"{ours} of ours, {others} of others in the organisation"
