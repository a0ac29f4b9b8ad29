"""submit-batch against an organisation's limit of enqueued tokens: a whole table through a queue that is too small."""

from __future__ import annotations

import json
import time
from collections import Counter

from jobs.engine.verdict import Verdict
from tests.chaos.lies import open_bench
from tests.servers.batch_bench import BatchBench
from tests.servers.batch_seeds import is_unfinished, judge

LIMIT = 20_000_000
TEXT = "explains how the harbour cranes of the old port were built, moved and finally restored by volunteers. " * 23
"""As incident 2 of DOMAIN.md has it: 30,000 rows are 17 to 20 million tokens."""
DONE_S = 7_200.0


async def try_enqueued(rows: int) -> int:
    """Nobody says what the limit is; one line of JSON at the end."""
    began = time.monotonic()
    async with open_bench("enqueued") as bench:
        bench.fake.batches.configure(
            enqueued_limit=LIMIT, counts_in_progress=True, validating_s=600.0, working_s=3_600.0
        )
        await bench.fill(rows, text=TEXT)
        await bench.database.run("analyze videos")
        visits = await visit_all(bench)
        found = await judge(bench, visits)
        ends = Counter(batch.status for batch in bench.fake.batches.batches.values())
        wrote = sum(bool(text) for text in (await bench.cells()).values())
        peak, tokens = bench.fake.batches.enqueued_peak, sum(b.tokens for b in bench.fake.batches.batches.values())
    said = {
        "rows": rows, "wrote": wrote, "limit": LIMIT, "tokens": tokens, "visits": len(visits), "batches": dict(ends),
        "refusals": ends["failed"], "peak_share": round(peak / LIMIT, 3), "broken": found.broken(),
        "wall_s": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print(json.dumps(said))
    return 0 if wrote == rows and ends["failed"] <= 1 and not found.broken() else 1


async def visit_all(bench: BatchBench) -> list[Verdict]:
    """As cron does; by the next visit a batch that is in is done."""
    verdicts: list[Verdict] = []
    while True:
        verdicts.append(await bench.visit())
        print(f"visit {len(verdicts)}: {verdicts[-1].headline}", flush=True)
        if not await is_unfinished(bench):
            return verdicts
        bench.fake.batches.advance(DONE_S)
