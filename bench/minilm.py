"""Vectors without an account: loading, memory, speed and whether a title finds its own talk."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from queries.embed import EmbedAnswer, EmbedRequest
from queries.minilm import LocalEmbed
from queries.minilm_model import DIMENSIONS, usable_cores

ROOT = Path(__file__).resolve().parent.parent
TALKS = ROOT.parent / "shared" / "data" / "talks.jsonl"
ENGLISH = (None, "eng")


def measure() -> dict[str, Any]:
    """In a process of its own: its memory is the model's, not the other measurements'."""
    if not TALKS.exists():
        return {"skipped": "the corpus of talks is not here"}
    done = subprocess.run([sys.executable, "-m", "bench.minilm"], cwd=ROOT, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


async def run() -> dict[str, Any]:
    talks = read_talks(800)
    embed = LocalEmbed()
    before_mb = peak_mb()
    started = time.monotonic()
    await timed(embed, ["a"])
    load_s = time.monotonic() - started
    titles, title_speed = await timed(embed, list(talks))
    _, summary_speed = await timed(embed, [text[:300] for text in talks.values()])
    texts, _ = await timed(embed, [text[:600] for text in talks.values()])
    await embed.close()
    return {
        "cores": usable_cores(),
        "load_s": round(load_s, 2),
        "titles": title_speed,
        "300 characters": summary_speed,
        "recall@1 of 800 titles": recall(titles, texts),
        "peak_mb": round(peak_mb()),
        "peak_mb_before": round(before_mb),
    }


def read_talks(most: int) -> dict[str, str]:
    """Titles and descriptions worth comparing, each title once."""
    talks: dict[str, str] = {}
    for line in TALKS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        title, text = row.get("title") or "", row.get("description") or ""
        if len(title) >= 12 and len(text) >= 80 and row.get("language") in ENGLISH and len(talks) < most:
            talks.setdefault(title, text)
    return talks


async def timed(embed: LocalEmbed, texts: list[str]) -> tuple[EmbedAnswer, dict[str, int]]:
    wall, cpu = time.monotonic(), time.process_time()
    answer = await embed.ask(EmbedRequest("", tuple(texts), DIMENSIONS))
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    return answer, {"per_s": round(len(texts) / wall), "per_cpu_s": round(len(texts) / cpu), "tokens": answer.tokens_in}


def recall(asked: EmbedAnswer, found: EmbedAnswer) -> float:
    one, other = (np.frombuffer(b"".join(answer.vectors), "<f4").reshape(-1, DIMENSIONS) for answer in (asked, found))
    return round(float(((one @ other.T).argmax(axis=1) == np.arange(len(one))).mean()), 3)


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run())))
