"""Rows prepared by other processes are the rows prepared here: in order, each once, and no process outlives its use."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from jobs.backfill_summaries import JOB, BackfillSummaries
from jobs.batching import preparing as batching
from jobs.batching.preparing import Preparing, Ready
from jobs.engine.job import Ask, Means, Skip, prepare
from jobs.engine.options import Options
from queries.batch_requests import Encoded, write_body
from queries.page_rows import Told
from queries.prices import load_price
from queries.table import Row
from queries.tokens import TokenCounter
from tests.servers.bench import VIDEOS

ROOT = Path(__file__).parents[1]
WORDS = "explains how the harbour cranes of the old port were built, moved and finally restored by volunteers"


@dataclass(frozen=True, slots=True)
class Buggy(BackfillSummaries):
    """Fails on one row."""

    def prepare(self, row: Row, means: Means) -> Ask | Skip:
        if row.key == ("bug",):
            raise ZeroDivisionError
        return BackfillSummaries.prepare(self, row, means)


class Circle:
    """Only a sweep finds it."""

    def __init__(self) -> None:
        self.itself = self


def means_at(vocabularies: Path) -> Means:
    return Means(VIDEOS, VIDEOS.model, TokenCounter(VIDEOS.model, vocabularies), load_price(VIDEOS.model), Options())


@pytest.fixture(scope="module")
def means(vocabularies: Path) -> Means:
    return means_at(vocabularies)


@pytest.fixture(scope="module")
def preparing(means: Means) -> Iterator[Preparing]:
    """With a process that is there, whatever else this machine does."""
    with Preparing(Buggy(), means, processes=1, worth=1) as made:
        asyncio.run(begin(made))
        yield made


async def begin(preparing: Preparing) -> None:
    found = await all_of(preparing, rows_of(300))
    assert len(found) == 300
    assert found[0].item is None, "nobody waits for a process that starts"
    while not all(each.done() for each in preparing._starting):
        await asyncio.sleep(0.01)


def rows_of(count: int) -> list[Row]:
    """Some too short, some with values as they came from the database."""
    return [row_of(n) for n in range(count)]


def row_of(n: int) -> Row:
    text = "short" if n % 7 == 0 else f"Speaker {n} {WORDS} \u201cnumber {n}\u201d 😀"
    values = {"title": "", "channel_name": "Harbour talks", "description": text}
    told = Told(json.dumps(values))
    return Row((f"v{n:05}",), f"guard-{n}", told if n % 2 else values, {"llm_summary": None})


async def pages_of(rows: list[Row], size: int = 100, pause_s: float = 0.0) -> AsyncIterator[list[Row]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
        await asyncio.sleep(pause_s)


async def all_of(preparing: Preparing, rows: list[Row], pause_s: float = 0.0) -> list[Ready]:
    return [ready async for ready in preparing.ahead(pages_of(rows, pause_s=pause_s))]


def processes_of(preparing: Preparing) -> list[int]:
    return list(preparing._pool._processes) if preparing._pool is not None else []


async def test_another_process_prepares_what_this_one_would(preparing: Preparing, means: Means) -> None:
    """Bodies, tokens, skips and their reasons are equal; rows come in order, each once. It does its share."""
    rows = rows_of(1_500)
    found = await all_of(preparing, rows)
    assert [ready.row for ready in found] == rows
    made = [ready for ready in found if ready.item is not None]
    assert len(made) >= 300
    for ready in made:
        here, there = prepare(JOB, ready.row, means), ready.item
        if isinstance(here, Ask):
            assert isinstance(there, Ask)
            assert there.request == Encoded(write_body(here.request))
            assert (there.tokens_in, there.tokens_out_most, there.texts, there.rows) == (
                here.tokens_in, here.tokens_out_most, here.texts, (ready.row,),
            )  # fmt: skip
        else:
            assert isinstance(here, Skip)
            assert there == here


async def test_a_few_rows_start_no_process(means: Means) -> None:
    """Cron's fifty rows do not pay for what only a hundred thousand are worth."""
    with Preparing(JOB, means) as preparing:
        found = await all_of(preparing, rows_of(500))
        assert processes_of(preparing) == []
    assert [ready.item for ready in found] == [None] * 500


async def test_a_row_with_a_bug_is_for_this_process_to_see(preparing: Preparing) -> None:
    """The exception itself does not travel: it happens again where it is booked and named."""
    found = await all_of(preparing, [row_of(1), replace(row_of(2), key=("bug",)), row_of(3)])
    assert [ready.item is None for ready in found] == [False, True, False]


async def test_text_that_is_no_unicode_is_for_this_process_to_see(preparing: Preparing) -> None:
    """As live, the item's fault with its own reason."""
    odd = replace(row_of(1), values={"title": "", "channel_name": "", "description": f"{WORDS} half \ud800 {WORDS}"})
    (found,) = await all_of(preparing, [odd])
    assert found.item is None or b"\\ud800" not in found.item.request.body


async def test_only_so_many_pages_are_read_ahead(preparing: Preparing) -> None:
    """Memory does not follow the table: who takes slowly is read for slowly."""
    read = 0

    async def pages() -> AsyncIterator[list[Row]]:
        nonlocal read
        for _ in range(200):
            read += 1
            yield rows_of(20)

    ahead = preparing.ahead(pages())
    await anext(ahead)
    assert read <= 6
    await ahead.aclose()


async def test_what_a_page_leaves_in_circles_is_swept(preparing: Preparing, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer over REST is two megabytes that know each other: of 178,000 rows 400 MB stayed."""
    monkeypatch.setattr(batching, "_SWEPT_AFTER", 500)
    left: list[weakref.ref[Circle]] = []
    most = 0

    async def pages() -> AsyncIterator[list[Row]]:
        nonlocal most
        for _ in range(60):
            left.append(weakref.ref(Circle()))
            most = max(most, sum(1 for each in left if each() is not None))
            yield rows[:50]

    rows = rows_of(50)
    assert len([ready async for ready in preparing.ahead(pages())]) == 3_000
    assert most <= 12


async def test_a_process_that_dies_leaves_its_rows_to_this_one(preparing: Preparing) -> None:
    """Killed by a text, perhaps: each row still comes once, and is prepared where a crash is named."""
    for pid in processes_of(preparing):
        os.kill(pid, signal.SIGKILL)
    found = await all_of(preparing, rows_of(1_000))
    assert [ready.row.key for ready in found] == [row.key for row in rows_of(1_000)]
    assert found[-1].item is None


@pytest.fixture
def child(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has started another one and waits."""
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.test_job_batch_preparing import *\n"
        "async def main():\n"
        "    preparing = Preparing(JOB, means_at(Path(sys.argv[1])), processes=1, worth=1)\n"
        "    await begin(preparing)\n"
        "    print(*processes_of(preparing), flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as made:
        yield made
        made.kill()


def test_nobody_works_on_for_a_parent_that_was_killed(child: subprocess.Popen[str]) -> None:
    """After SIGKILL of the command no process of it is left: cron would pile them up."""
    assert child.stdout is not None
    pids = [int(word) for word in child.stdout.readline().split()]
    assert pids
    child.kill()
    child.wait()
    deadline = time.monotonic() + 30
    while any(_is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
