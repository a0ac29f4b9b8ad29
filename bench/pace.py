"""How much of a provider's limit is used, how often it refuses, and whether a refusal costs a row."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.world import World
from tests.servers.fake_process import run_fake_openai

RPM, TPM = 6_000, 3_000_000


def measure(world: World, *, seconds: int, count_factor: float, tokens_bind: bool, fixed: bool) -> dict[str, Any]:
    """No hint is given: --concurrency auto, limits from the headers of the first answer."""
    sentences = 60 if tokens_bind else 6
    world.fill(int(RPM / 60 * (seconds + 20)), sentences)
    how: dict[str, Any] = {"fixed_windows": True} if fixed else {}
    with run_fake_openai(
        rpm=RPM, tpm=TPM, window=1.0, latency=0.3, jitter=0.2, count_factor=count_factor, **how
    ) as fake:
        done = world.catchup(fake.url, "--max-runtime", f"{seconds}s")
        stats = fake.stats(log=True)
    accepted = sorted(at for at, _, status in stats["log"] if status == 200)
    start = accepted[0]
    after = [at for at in accepted if at - start >= 10]
    span = after[-1] - after[0]
    mean_tokens = (stats["tokens_in"] + stats["tokens_out"]) / max(1, stats["paid_calls"])
    return {
        "seconds": round(span, 1),
        "requests_per_min": round(60 * (len(after) - 1) / span),
        "tokens_per_min_billed": round(60 * (len(after) - 1) / span * mean_tokens),
        "share_of_requests": round((len(after) - 1) / span / (RPM / 60), 4),
        "refused_share": round(stats["refused"] / max(1, stats["requests"]), 5),
        "refused": stats["refused"],
        "statuses": dict(Counter(status for _, _, status in stats["log"])),
        "failed_rows": sum(done.verdict["failed"].values()),
        "cpu_ms_per_row": round(1000 * done.cpu_s / max(1, done.verdict["wrote"]), 2),
        "peak_mb": round(done.peak_mb),
        "exit": done.code,
        "bound_by": done.verdict["bound_by"],
    }
