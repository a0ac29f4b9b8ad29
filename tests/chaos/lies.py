"""submit-batch against a provider that lies, world after world: what nobody accounts for, what was paid for nothing."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.servers.batch_bench import BatchBench
from tests.servers.batch_seeds import run_seed
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.postgres import Database, running_server


async def try_seeds(seeds: int) -> int:
    """One line of JSON at the end; every broken promise is named with its seed."""
    began, broken, rows, visits, delivered = time.monotonic(), Counter[str](), 0, 0, 0
    with running_server() as server, tempfile.TemporaryDirectory() as folder:
        name = "lies"
        server.run(f"create database {name}")
        async with FakeOpenAI() as fake:
            bench = BatchBench(Database(server, name), fake, Path(folder) / "state", Path(folder) / "vocabularies")
            await bench.database.load("videos.sql")
            await bench.migrate()
            for seed in range(1, seeds + 1):
                found = await run_seed(bench, seed)
                for promise, said in found.broken().items():
                    broken[promise] += len(said)
                    print(f"BROKEN  seed {seed}, {promise}: {'; '.join(said[:5])}", flush=True)
                rows += 40
                visits += len(found.verdicts)
                delivered += sum(len(batch.delivered) for batch in fake.batches.batches.values())
                if seed % 20 == 0:
                    print(f"{seed} seeds, {broken.total()} broken", flush=True)
    said = {"seeds": seeds, "rows": rows, "visits": visits, "paid_lines": delivered, "broken": dict(broken)}
    print(json.dumps({**said, "wall_s": round(time.monotonic() - began, 1)}))
    return 1 if broken else 0
