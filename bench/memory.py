"""Peak memory at ten thousand and at a hundred thousand rows, against a provider without limits."""

from __future__ import annotations

from typing import Any

from bench.world import World
from tests.servers.fake_process import run_fake_openai


def measure(world: World, rows: int) -> dict[str, Any]:
    world.fill(rows)
    with run_fake_openai() as fake:
        done = world.catchup(fake.url, "--db-load", "1")
    return {
        "rows": rows,
        "wrote": done.verdict["wrote"],
        "peak_mb": round(done.peak_mb, 1),
        "rows_per_s": round(rows / done.seconds),
        "cpu_ms_per_row": round(1000 * done.cpu_s / rows, 2),
        "exit": done.code,
    }
