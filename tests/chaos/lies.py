"""submit-batch against a provider that lies, world after world: what nobody accounts for, what was paid for nothing."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.servers.batch_bench import BatchBench
from tests.servers.batch_seeds import run_seed
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.postgres import Database, running_server


@asynccontextmanager
async def open_bench(name: str) -> AsyncIterator[BatchBench]:
    """A table, a ledger and a provider with batches, and nothing in any of them."""
    with running_server() as server, tempfile.TemporaryDirectory() as folder:
        server.run(f"create database {name}")
        async with FakeOpenAI() as fake:
            bench = BatchBench(Database(server, name), fake, Path(folder) / "state", Path(folder) / "vocabularies")
            await bench.database.load("videos.sql")
            await bench.migrate()
            yield bench


async def try_seeds(first: int, seeds: int) -> int:
    """One line of JSON at the end; every broken promise is named with its seed."""
    began, broken, rows, visits, delivered = time.monotonic(), Counter[str](), 0, 0, 0
    ends: Counter[str] = Counter()
    async with open_bench("lies") as bench:
        fake = bench.fake
        for seed in range(first, first + seeds):
            found = await run_seed(bench, seed)
            for promise, said in found.broken().items():
                broken[promise] += len(said)
                print(f"BROKEN  seed {seed}, {promise}: {'; '.join(said[:5])}", flush=True)
            rows += 40
            visits += len(found.verdicts)
            delivered += sum(len(batch.delivered) for batch in fake.batches.batches.values())
            ends.update(batch.status for batch in fake.batches.batches.values())
            if seed % 20 == 0:
                print(f"seed {seed}, {broken.total()} broken", flush=True)
    figures = {
        "seeds": seeds,
        "first": first,
        "rows": rows,
        "visits": visits,
        "batches": dict(ends),
        "paid_lines": delivered,
        "broken": dict(broken),
    }
    print(json.dumps({**figures, "wall_s": round(time.monotonic() - began, 1)}))
    return 1 if broken else 0
