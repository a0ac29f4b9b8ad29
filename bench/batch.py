"""Planning and writing a batch's files against tiktoken alone on the same texts in memory (DECISIONS.md 35).

One invocation, in turns, best of each: other work on the machine then hits both alike. tiktoken has as many processes
as there are cores; ours is one, with a thread that counts. It starts with nothing, reads the rows over its road, and
ends with files that are on the disk.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from bench.world import World, cpu_of_children_s
from tests.servers.bench import VIDEOS
from tests.servers.lite import install_lite, running_postgrest

ROOT = Path(__file__).parents[1]
TEXT_BYTES = 2_300
"""As incident 2 of DOMAIN.md has it: 30,000 rows were 17 to 20 million tokens."""
TURNS = 3


def measure(world: World, rows: int, say: Callable[[str, dict[str, Any]], None]) -> None:
    asyncio.run(fill(world, rows))
    processes = len(os.sched_getaffinity(0))
    ours: list[dict[str, Any]] = []
    alone: list[dict[str, Any]] = []
    for _ in range(TURNS):
        alone.append(count_alone(world, rows, processes))
        say("batch, tiktoken alone", alone[-1])
        ours.append(plan_and_write(world, {"dsn": world.database.dsn}))
        say("batch, planned and written over the DSN road", ours[-1])
    say("batch, planned and written over the PostgREST road", asyncio.run(plan_over_postgrest(world)))
    best, truth = max(each["rows_per_s"] for each in ours), max(each["rows_per_s"] for each in alone)
    assert all(each["texts_tokens"] == alone[0]["tokens"] for each in ours), "the counts are not tiktoken's"
    say("batch, ratio", {
        "rows": rows, "processes": processes, "ours_rows_per_s": best, "tiktoken_rows_per_s": truth,
        "ratio": round(best / truth, 3),
        "ratio_of_each_turn": [round(o["rows_per_s"] / a["rows_per_s"], 3) for o, a in zip(ours, alone, strict=True)],
        "peak_mb": max(each["peak_mb"] for each in ours),
        "grew_mb_after_60000_rows": max(each["peak_mb"] - each["peak_mb_at_60000"] for each in ours),
    })  # fmt: skip


def plan_and_write(world: World, road: dict[str, str]) -> dict[str, Any]:
    """A process of its own that does what `catchup submit-batch` does before its first upload."""
    with tempfile.TemporaryDirectory(dir=world.folder) as folder:
        return run_child({**road, "folder": folder, "vocabularies": str(world.folder / "vocabularies")})


async def plan_over_postgrest(world: World) -> dict[str, Any]:
    """The stand-in for PostgREST is a node process of its own: a figure beside, not a claim."""
    async with running_postgrest(install_lite(), world.database.dsn, 1_000) as server:
        road = {"url": server.url, "key": server.secret_key}
        return await asyncio.to_thread(plan_and_write, world, road)


def count_alone(world: World, rows: int, processes: int) -> dict[str, Any]:
    """The same texts, in memory before the clock starts, shared out to processes that have loaded tiktoken."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        parts = [(world.database.dsn, n, processes, str(world.folder)) for n in range(processes)]
        found = pool.map(count_part, parts, chunksize=1)
    seconds = max(each[2] for each in found) - min(each[1] for each in found)
    tokens, cpu_s = sum(each[0] for each in found), sum(each[4] for each in found)
    assert sum(each[3] for each in found) == rows
    told = {"rows": rows, "seconds": round(seconds, 2), "rows_per_s": round(rows / seconds), "tokens": tokens}
    return {**told, "cpu_s": round(cpu_s, 2)}


def count_part(part: tuple[str, int, int, str]) -> tuple[int, float, float, int, float]:
    from queries.tokens import TokenCounter  # noqa: PLC0415 - the parent of the pool needs none of it

    dsn, which, of, folder = part
    encoding = TokenCounter(VIDEOS.model, Path(folder) / "vocabularies")._encoding
    assert encoding is not None
    with psycopg.connect(dsn) as connection:
        texts = [
            f"Title: {title}\nChannel: {channel}\n\n{description}"
            for title, channel, description in connection.execute(
                "select title, channel_name, description from videos where abs(hashtext(id)) %% %s = %s", [of, which]
            )
        ]
    meet(Path(folder), of)
    started, cpu_s = time.time(), time.process_time()
    tokens = sum(len(encoding.encode_ordinary(text)) for text in texts)
    return tokens, started, time.time(), len(texts), time.process_time() - cpu_s


def meet(folder: Path, of: int) -> None:
    """Nobody starts before all are there: else each would have the machine for itself for a while."""
    (folder / f"there-{os.getpid()}").touch()
    while len(list(folder.glob("there-*"))) % of:
        time.sleep(0.001)


def run_child(asked: dict[str, Any]) -> dict[str, Any]:
    # by -c: what a process spawned by it imports anew is then no more than the installed command's script
    words = [sys.executable, "-c", "from bench.batch_child import main; main()"]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaints:
        before = cpu_of_children_s()
        words.append(json.dumps({**asked, "started": time.time()}))
        done = subprocess.run(words, cwd=ROOT, stdout=said, stderr=complaints, check=False)
        for each in (said, complaints):
            each.seek(0)
        if done.returncode:
            raise RuntimeError(complaints.read())
        return {**json.loads(said.read().splitlines()[-1]), "cpu_s": round(cpu_of_children_s() - before, 2)}


async def fill(world: World, rows: int) -> None:
    """A fresh table of texts as people write them: sentences of this project's own pages, in any order."""
    await world.database.run("drop table if exists videos; drop schema if exists catchup cascade")
    await world.database.load("videos.sql")
    await world.database.migrate([VIDEOS])
    async with await psycopg.AsyncConnection.connect(world.database.dsn, autocommit=True) as connection:
        columns = "copy videos (id, title, channel_id, channel_name, description) from stdin"
        async with connection.cursor().copy(columns) as copy:
            for n, text in enumerate(tell(rows), start=1):
                await copy.write_row((f"v{n:08}", f"Talk number {n}", f"c{n % 7}", "Harbour talks", text))
    await world.database.run("vacuum analyze videos")
    await world.database.run("checkpoint")


def tell(rows: int) -> Iterator[str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    whole = " ".join(page.read_text(encoding="utf-8") for page in pages)
    sentences = [
        each for each in (" ".join(s.split()) for s in re.split(r"(?<=[.!?])\s+", whole)) if 30 < len(each) < 400
    ]
    chance = random.Random(1)  # noqa: S311 - the same texts every time
    for _ in range(rows):
        told: list[str] = []
        while sum(map(len, told)) < TEXT_BYTES:
            told.append(chance.choice(sentences))
        yield " ".join(told)
