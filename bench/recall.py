"""Does `catchup search` find what is meant? The demo's corpus, its local model, pgvector, and the command's own code.

Two kinds of question. Every title: is the summary of that very row the first, or among the first five? And twenty
sentences of questions.jsonl, each written for one row before anything was measured, in other words than the title's.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from cli.flags import VectorFlags
from cli.job_command import make_work
from cli.settings import load
from cli.view import open_view
from demo.load import load_sample
from jobs.engine.work import Work
from jobs.search import Question, search
from queries.dsn import DsnRoad
from queries.embedded import start
from queries.pgvector_space import PgvectorSpace
from queries.vector_index import build

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = Path(__file__).with_name("questions.jsonl")
TOP = 5
FILLED = ("migrate", "backfill-summaries --yes", "vectorize --target summaries", "vectorize --target titles")
# 300 rows are read faster than an index: without this the planner would never ask it.
BY_INDEX = "&options=-c%20enable_seqscan%3Doff%20-c%20enable_sort%3Doff"


def measure() -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="catchup-recall-") as folder, start(Path(folder) / ".catchup/db") as server:
        load_sample(server.dsn)
        for command in FILLED:
            _catchup(Path(folder), *command.split(), "--local", *(["--create-namespace"] * command.startswith("vec")))
        return asyncio.run(_measure(Path(folder), server.dsn))


def _catchup(folder: Path, *words: str) -> None:
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "CATCHUP_STATE_DIR": str(folder / "state")}
    command = [sys.executable, "-c", "from cli.main import main; main()", *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stdout + done.stderr)


async def _measure(folder: Path, dsn: str) -> dict[str, dict[str, Any]]:
    asked = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    keys = _keys(dsn)
    own = {title: title for title in keys}
    questions = {question["ask"]: question["title"] for question in asked}
    figures: dict[str, dict[str, Any]] = {}
    async with _searching(folder, dsn, "summaries") as work:
        figures["own title, exact"] = await _recall(work, own, keys)
        figures["questions, exact"] = await _recall(work, questions, keys)
    async with _searching(folder, dsn, "titles") as work:
        figures["questions, exact, vectors of titles only"] = await _recall(work, questions, keys)
    async with _searching(folder, dsn + BY_INDEX, "summaries") as work:
        assert isinstance(work.space, PgvectorSpace)
        await build(dsn, await work.space.column())
        figures["own title, hnsw"] = await _recall(work, own, keys)
        figures["questions, hnsw"] = await _recall(work, questions, keys)
    figures["questions, hnsw"]["scans of the index"] = _scans(dsn)
    return figures


@asynccontextmanager
async def _searching(folder: Path, dsn: str, target: str) -> AsyncIterator[Work]:
    """What `catchup search --local --target …` makes before it asks."""
    settings = load({"CATCHUP_STATE_DIR": str(folder / "state"), "HOME": str(folder)}, folder)
    road, flags, view = DsnRoad(dsn), VectorFlags(target=target, local=True), open_view(as_json=True, quiet=True)
    work = await make_work("vectorize", flags, "catchup vectorize", settings, view, road, "embedded")
    try:
        yield work
    finally:
        await work.service.close()
        await road.close()


async def _recall(work: Work, wanted: Mapping[str, str], keys: Mapping[str, str]) -> dict[str, Any]:
    """Share of the questions whose row is first, and among the first five; and how long one search takes."""
    ranks, started = [], time.monotonic()
    for ask, title in wanted.items():
        found = [nearest.key for nearest in (await search(work, Question(ask, TOP))).nearest]
        ranks.append(found.index(keys[title]) if keys[title] in found else TOP)
    took_s = time.monotonic() - started
    return {
        "asked": len(ranks),
        "recall@1": round(sum(rank == 0 for rank in ranks) / len(ranks), 3),
        f"recall@{TOP}": round(sum(rank < TOP for rank in ranks) / len(ranks), 3),
        "ms each": round(1000 * took_s / len(ranks), 1),
    }


def _keys(dsn: str) -> dict[str, str]:
    """The rows whose summary has a vector, by title."""
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute("select title, id from videos where llm_summary_embedding_synced").fetchall())


def _scans(dsn: str) -> int:
    """How often the index was really asked."""
    with psycopg.connect(dsn) as connection:
        chosen = "select sum(idx_scan)::int from pg_stat_user_indexes where indexrelname like '%hnsw'"
        return int(str(connection.execute(chosen).fetchall()[0][0]))
