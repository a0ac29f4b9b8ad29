"""One process that plans and writes files of requests, and tells what it took; `bench.batch` starts it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from jobs.backfill_summaries import JOB
from jobs.batching.draft import Draft
from jobs.batching.options import BatchOptions, at_batch_price
from jobs.batching.preparing import Preparing
from jobs.default_targets import VIDEO_SUMMARIES as VIDEOS
from jobs.engine.clock import Clock
from jobs.engine.database import Database
from jobs.engine.database_load import DatabaseLoad
from jobs.engine.job import Ask, Means, prepare
from jobs.engine.options import Options
from jobs.engine.scan import Scan
from queries.batches import CHAT
from queries.ledger import Ledger
from queries.prices import load_price
from queries.road import Road
from queries.table import PageQuery
from queries.tokens import CHAT_OVERHEAD, TokenCounter

MEMORY_LOOKED_AT = 60_000
"""Rows after which the peak is read for the first time: what more rows add to it should be nothing."""


async def plan(asked: dict[str, Any]) -> dict[str, Any]:
    """The clock runs since before this process was started: its imports are part of what an operator waits for."""
    started = asked["started"]
    folder = Path(asked["folder"])
    model = VIDEOS.model
    tokens = TokenCounter(model, Path(asked["vocabularies"]))
    means = Means(VIDEOS, model, tokens, at_batch_price(load_price(model)), Options(db_load=1.0))
    road = _road(asked)
    ledger, clock = Ledger(road), Clock()
    database = Database(DatabaseLoad(1.0, clock), ledger, clock, 60.0)
    query = PageQuery(VIDEOS.spec, VIDEOS.name, "bench", None, None, 1_000)
    written: list[tuple[int, int, int]] = []
    rows = peak_mb_then = 0
    draft = _draft(folder, means, 0)
    with Preparing(JOB, means) as preparing:
        async for ready in preparing.ahead(Scan(ledger, database, query, clock).rows_from(None)):
            item = ready.item or prepare(JOB, ready.row, means)
            assert isinstance(item, Ask), item
            if not draft.add(item):
                written.append(_finish(draft))
                draft = _draft(folder, means, len(written))
                assert draft.add(item)
            rows += 1
            if rows == MEMORY_LOOKED_AT:
                peak_mb_then = _peak_mb()
        written.append(_finish(draft))
        seconds, peak_mb = time.time() - started, _peak_mb()
    await road.close()
    assert rows == sum(each[0] for each in written)
    prompt = tokens.count(VIDEOS.prompt)
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "rows_per_s": round(rows / seconds),
        "files": len(written),
        "mb": round(sum(each[2] for each in written) / 1e6),
        "texts_tokens": sum(each[1] for each in written) - rows * (prompt + CHAT_OVERHEAD),
        "peak_mb": peak_mb,
        f"peak_mb_at_{MEMORY_LOOKED_AT}": peak_mb_then,
    }


def _road(asked: dict[str, Any]) -> Road:
    """As the command does, only what the road needs is imported."""
    if "dsn" in asked:
        from queries.dsn import DsnRoad  # noqa: PLC0415

        return DsnRoad(asked["dsn"])
    from queries.postgrest import PostgrestRoad  # noqa: PLC0415

    return PostgrestRoad(asked["url"], asked["key"])


def _peak_mb() -> int:
    """Not ru_maxrss, which begins with what the parent had when it started this one."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return round(int(found[1]) / 1024) if found else 0


def _draft(folder: Path, means: Means, number: int) -> Draft:
    return Draft(
        chunk=f"bench-{number}",
        path=folder / f"bench-{number}.jsonl",
        endpoint=CHAT,
        price=means.price,
        options=BatchOptions(),
        tokens_most=20_000_000,
        cell=VIDEOS.spec.cells[0],
    )


def _finish(draft: Draft) -> tuple[int, int, int]:
    draft.finish()
    return len(draft.rows), draft.tokens, draft.size_bytes


def main() -> None:
    print(json.dumps(asyncio.run(plan(json.loads(sys.argv[1])))), flush=True)
