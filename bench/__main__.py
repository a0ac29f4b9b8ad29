"""python -m bench [pace|memory|start|minilm|recall|vectors|views|batch|workers|messages] [--seconds 180] [--rows N]"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from bench import batch, memory, messages, minilm, pace, recall, vectors, views, workers
from bench.world import World, world

WITHOUT_WORLD = ("start", "minilm", "recall", "messages")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        default="all",
        choices=("all", *WITHOUT_WORLD, "pace", "memory", "vectors", "views", "batch", "workers"),
    )
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument(
        "--rows", help="memory: 10000,100000; vectors: 20000; views: 178376; batch: 178000; workers: 40"
    )
    parser.add_argument("--latency", type=float, default=views.LATENCY_S, help="views: of the stub, in seconds")
    parser.add_argument("--fixed", action="store_true", help="whole windows instead of a bucket of one second")
    asked = parser.parse_args()
    measure_without_world(asked.what, asked.rows)
    if asked.what in WITHOUT_WORLD:
        return
    with world() as place:
        if asked.what in ("all", "pace"):
            measure_pace(place, asked.seconds, fixed=asked.fixed)
        if asked.what in ("all", "memory"):
            for rows in (asked.rows or "10000,100000").split(","):
                say("memory", memory.measure(place, int(rows)))
        if asked.what == "vectors":  # not among all: it makes an environment for the peers
            vectors.measure(place, int(asked.rows or 20_000), say)
        if asked.what == "batch":
            batch.measure(place, int(asked.rows or 178_000), say)
        if asked.what == "workers":
            say("workers", workers.measure(place, videos=int(asked.rows or 40)))
        if asked.what == "views":
            say("views", views.measure(place, int(asked.rows or views.VIDEOS), asked.latency))


def measure_without_world(what: str, rows: str | None) -> None:
    if what in ("all", "start"):
        say("start", measure_start())
    if what in ("all", "minilm"):
        say("minilm", minilm.measure())
    if what in ("all", "recall"):
        for each, figures in recall.measure().items():
            say(f"recall, {each}", figures)
    if what == "messages":  # not among all: it needs two brokers
        messages.measure(int(rows or 10_000), say)


def measure_pace(place: World, seconds: int, *, fixed: bool) -> None:
    for tokens_bind in (False, True):
        for factor in (1.0, 1.15, 0.87):
            figures = pace.measure(place, seconds=seconds, count_factor=factor, tokens_bind=tokens_bind, fixed=fixed)
            say(f"pace, {'tokens' if tokens_bind else 'requests'} bind, counted x{factor}", figures)


def measure_start() -> dict[str, float]:
    """`catchup --help` against `import typer`, in turns, medians of eleven."""
    commands = {"typer": ["-c", "import typer"], "help": ["-c", "from cli.main import main; main()", "--help"]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(11):
        for name, words in commands.items():
            started = time.monotonic()
            subprocess.run([sys.executable, *words], capture_output=True, check=True)
            times[name].append(time.monotonic() - started)
    typer, help_ = (statistics.median(times[name]) for name in ("typer", "help"))
    return {"typer_s": round(typer, 3), "help_s": round(help_, 3), "ratio": round(help_ / typer, 2)}


def say(what: str, figures: Mapping[str, Any]) -> None:
    print(json.dumps({"measured": what, **figures}), flush=True)


if __name__ == "__main__":
    main()
