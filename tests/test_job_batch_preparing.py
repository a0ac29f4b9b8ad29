"""Rows prepared ahead are the rows that would be prepared one by one: in order, each once; and nothing stays."""

from __future__ import annotations

import json
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from jobs.backfill_summaries import JOB, BackfillSummaries
from jobs.batching import preparing as batching
from jobs.batching.preparing import Preparing, Ready
from jobs.chunking import Chunking, Kind
from jobs.default_targets import SUMMARIES
from jobs.engine.job import Ask, Means, Skip, prepare
from jobs.engine.options import Options
from jobs.vectorize import JOB as VECTORIZE
from queries.batch_requests import Encoded, write_body
from queries.page_rows import Told
from queries.prices import load_price
from queries.table import Row
from queries.tokens import TokenCounter
from tests.servers.bench import VIDEOS

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


@pytest.fixture
def preparing(means: Means) -> Iterator[Preparing]:
    """For which two rows are many."""
    with Preparing(Buggy(), means, worth=2) as made:
        yield made


def rows_of(count: int) -> list[Row]:
    """Some too short, some with values as they came from the database."""
    return [row_of(n) for n in range(count)]


def row_of(n: int) -> Row:
    text = "short" if n % 7 == 0 else f"Speaker {n} {WORDS} \u201cnumber {n}\u201d 😀"
    return described(n, text)


def described(n: int, text: str) -> Row:
    values = {"title": "", "channel_name": "Harbour talks", "description": text}
    told = Told(json.dumps(values))
    return Row((f"v{n:05}",), f"guard-{n}", told if n % 2 else values, {"llm_summary": None})


async def each_of(rows: Iterable[Row]) -> AsyncIterator[Row]:
    for row in rows:
        yield row


async def all_of(preparing: Preparing, rows: list[Row]) -> list[Ready]:
    return [ready async for ready in preparing.ahead(each_of(rows))]


async def test_what_is_prepared_ahead_is_what_would_be_prepared_one_by_one(preparing: Preparing, means: Means) -> None:
    """Bodies, tokens, skips and their reasons are equal; rows come in order, each once."""
    rows = rows_of(2_500)
    found = await all_of(preparing, rows)
    assert [ready.row for ready in found] == rows
    for ready in found:
        here, ahead = prepare(JOB, ready.row, means), ready.item
        if isinstance(here, Ask):
            assert ahead == replace(here, request=Encoded(write_body(here.request)))
        else:
            assert isinstance(here, Skip)
            assert ahead == here


@pytest.mark.parametrize("kind", ["whole", "fixed"])
async def test_so_it_is_with_embeddings(vocabularies: Path, kind: Kind) -> None:
    """Whole texts are counted all at once, pieces where they are cut; an empty one is skipped."""
    assert SUMMARIES.embedding is not None
    target = replace(SUMMARIES, embedding=replace(SUMMARIES.embedding, chunking=Chunking(kind), vector_id="{key}#{n}"))
    means = replace(means_at(vocabularies), target=target, is_plan=True)
    rows = [replace(row_of(n), values={"llm_summary": WORDS * (n % 5)}) for n in range(50)]
    with Preparing(VECTORIZE, means, worth=2) as preparing:
        found = await all_of(preparing, rows)
    for row, ready in zip(rows, found, strict=True):
        here, ahead = prepare(VECTORIZE, row, means), ready.item
        if isinstance(here, Ask):
            assert isinstance(ahead, Ask)
            assert (ahead.request, ahead.tokens_in, ahead.tokens_worst, ahead.texts) == (
                Encoded(write_body(here.request)), here.tokens_in, here.tokens_worst, here.texts,
            )  # fmt: skip
        else:
            assert ahead == here


async def test_a_text_that_may_not_fit_is_counted_and_cut_as_ever(preparing: Preparing, means: Means) -> None:
    """Whether it fits must be known before its request is written."""
    rows = [described(n, "漢字 " * (means.price.window // times)) for n, times in enumerate((4, 2))]
    fits, cut = [ready.item for ready in await all_of(preparing, rows)]
    assert isinstance(fits, Ask)
    assert isinstance(cut, Ask)
    assert fits.tokens_in < cut.tokens_in
    for row, item in zip(rows, (fits, cut), strict=True):
        here = prepare(JOB, row, means)
        assert isinstance(here, Ask)
        assert item == replace(here, request=Encoded(write_body(here.request)))
    assert "longer than the model's window" in cut.source
    assert "longer than the model's window" not in fits.source


async def test_a_few_rows_start_no_thread(means: Means) -> None:
    """Cron's fifty rows do not pay for what only a hundred thousand are worth."""
    with Preparing(JOB, means) as preparing:
        found = await all_of(preparing, rows_of(500))
        assert preparing._thread is None
    assert [ready.item for ready in found] == [None] * 500


async def test_a_small_limit_reads_no_row_ahead(means: Means) -> None:
    """--limit 10 of ten million rows looks at ten."""
    read: list[Row] = []

    def rows() -> Iterator[Row]:
        for row in rows_of(5_000):
            read.append(row)
            yield row

    with Preparing(JOB, replace(means, options=Options(limit=10))) as preparing:
        ahead = preparing.ahead(each_of(rows()))
        for _ in range(10):
            assert (await anext(ahead)).item is None
    assert len(read) == 10


async def test_a_row_with_a_bug_is_for_whoever_takes_it_to_see(preparing: Preparing) -> None:
    """The exception itself is not kept: it happens again where it is booked and named."""
    found = await all_of(preparing, [row_of(1), replace(row_of(2), key=("bug",)), row_of(3)])
    assert [ready.item is None for ready in found] == [False, True, False]


async def test_text_that_is_no_unicode_is_for_whoever_takes_it_to_see(preparing: Preparing) -> None:
    """As live, the item's fault with its own reason; its neighbours are counted all the same."""
    odd = replace(row_of(1), values={"title": "", "channel_name": "", "description": f"{WORDS} half \ud800 {WORDS}"})
    found = await all_of(preparing, [row_of(1), odd, row_of(2)])
    assert [isinstance(ready.item, Ask) for ready in found] == [True, isinstance(found[1].item, Ask), True]
    assert found[1].item is None or b"\\ud800" not in found[1].item.request.body


@pytest.mark.parametrize(("weight", "most"), [(100, 3_600), (100_000, 160)], ids=["rows", "bytes"])
async def test_only_so_much_is_read_ahead(means: Means, weight: int, most: int) -> None:
    """Memory does not follow the table: who takes slowly is read for slowly, and heavy rows are fewer at a time."""
    read = 0

    def rows() -> Iterator[Row]:
        nonlocal read
        for n in range(20_000):
            read += 1
            yield described(n, ("harbour " * weight)[:weight])

    with Preparing(JOB, means) as preparing:
        ahead = preparing.ahead(each_of(rows()))
        await anext(ahead)
        assert read <= most


async def test_what_a_page_leaves_in_circles_is_swept(preparing: Preparing, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer over REST is two megabytes that know each other: of 178,000 rows 400 MB stayed."""
    monkeypatch.setattr(batching, "_SWEPT_AFTER", 500)
    left: list[weakref.ref[Circle]] = []
    most = 0

    def rows() -> Iterator[Row]:
        nonlocal most
        for _ in range(100):
            left.append(weakref.ref(Circle()))
            most = max(most, sum(1 for each in left if each() is not None))
            yield from page

    page = rows_of(50)
    assert len([ready async for ready in preparing.ahead(each_of(rows()))]) == 5_000
    assert most <= 60


async def test_after_a_death_at_counting_each_row_is_taken_by_itself(means: Means, tmp_path: Path) -> None:
    """A text that kills is then named on the disk by whoever takes it: it costs that row, and not every run."""
    trace = tmp_path / "run.counting"
    died = Preparing(JOB, means, trace, worth=2)
    ahead = died.ahead(each_of(rows_of(3_000)))
    await anext(ahead)
    assert trace.exists()
    with Preparing(JOB, means, trace, worth=2) as careful:
        found = await all_of(careful, rows_of(100))
    assert [ready.item for ready in found] == [None] * 100
    assert not trace.exists()
    with Preparing(JOB, means, trace, worth=2) as quick:
        assert isinstance((await all_of(quick, rows_of(100)))[1].item, Ask)
    assert not trace.exists()
    await ahead.aclose()
    died.close()
