"""No file breaks a limit, no id or row is in two of them, and memory does not follow their size."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.batching.draft import Draft
from jobs.batching.options import BatchOptions
from jobs.engine.job import Ask
from queries.batch_ledger import BatchLedger, Chunk
from queries.batch_requests import Encoded
from queries.batches import BYTES_MOST, CHAT, EMBED, REQUESTS_MOST, Endpoint
from queries.prices import load_price
from queries.table import Row
from tests.servers.fake_batch_lines import find_faults
from tests.servers.fake_batches import BatchSettings
from tests.servers.lite import StartPostgrest
from tests.servers.postgres import Database
from tests.servers.roads import FINGERPRINT, VIDEOS, World, begin

PRICE = load_price("gpt-4o-mini")


def ask_for(n: int, *, size: int = 100, tokens: int = 10, texts: int = 1) -> Ask:
    """Of these measures, whatever it says."""
    row = Row((f"v{n:06}",), "00000000-0000-0000-0000-000000000000", {}, {"llm_summary": None})
    body = {"model": "gpt-4o-mini", "input": ["x"] * texts, "filler": ""}
    missing = size - len(json.dumps(body))
    return Ask((row,), Encoded(json.dumps({**body, "filler": "x" * missing}).encode()), tokens, "", 100, texts=texts)


def write_all(
    asks: list[Ask], folder: Path, options: BatchOptions, tokens_most: int | None = None, endpoint: Endpoint = EMBED
) -> list[Draft]:
    """As a visit does: what does not fit any more begins the next file."""
    numbers = count(1)

    def begin_file() -> Draft:
        name = f"run-1-{next(numbers)}"
        return Draft(name, folder / f"{name}.jsonl", endpoint, PRICE, options, tokens_most, "llm_summary")

    drafts = [begin_file()]
    for ask in asks:
        if not drafts[-1].add(ask):
            drafts.append(begin_file())
            assert drafts[-1].add(ask)
    for draft in drafts:
        draft.finish()
    return drafts


def line_bytes(ask: Ask, folder: Path) -> int:
    (draft,) = write_all([ask], folder, BatchOptions())
    return draft.path.stat().st_size


@pytest.mark.parametrize("beyond", [-1, 0, 1])
@pytest.mark.parametrize("limit", ["requests", "bytes", "texts", "tokens"])
def test_a_file_is_full_at_its_limit_and_not_a_unit_later(limit: str, beyond: int, tmp_path: Path) -> None:
    """B4: one below and exactly at each limit is one file, one above is two; the service accepts each."""
    asks = [ask_for(n, texts=3, tokens=7, size=300) for n in range(5)]
    size = line_bytes(asks[0], tmp_path)
    most = {"requests": 5 - beyond, "bytes": 5 * size - beyond, "texts": 15 - beyond, "tokens": 35 - beyond}[limit]
    given_ = {"requests": "requests_most", "bytes": "bytes_most", "texts": "inputs_most"}
    options = BatchOptions(**({given_[limit]: most} if limit in given_ else {}))
    drafts = write_all(asks, tmp_path, options, most if limit == "tokens" else None)
    assert [len(draft.rows) for draft in drafts] == ([5] if beyond <= 0 else [4, 1])
    strict = BatchSettings(**({given_[limit]: most} if limit in given_ else {}))
    for draft in drafts:
        data = draft.path.read_bytes()
        assert find_faults(data, EMBED, strict)[1] == []
        assert len(data) == draft.size_bytes <= strict.bytes_most
        assert limit != "tokens" or draft.tokens <= most


@pytest.mark.parametrize("rows", [REQUESTS_MOST - 1, REQUESTS_MOST, REQUESTS_MOST + 1])
def test_the_services_own_limit_of_requests_is_kept(rows: int, tmp_path: Path) -> None:
    """50,000 requests are one file and 50,001 are two."""
    drafts = write_all([ask_for(n) for n in range(rows)], tmp_path, BatchOptions(), endpoint=CHAT)
    assert [len(draft.rows) for draft in drafts] == ([rows] if rows <= REQUESTS_MOST else [REQUESTS_MOST, 1])
    assert all(find_faults(draft.path.read_bytes(), CHAT, BatchSettings())[1] == [] for draft in drafts)
    assert all(draft.size_bytes <= BYTES_MOST for draft in drafts)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(100, 400), st.integers(1, 50), st.integers(1, 5)), min_size=1, max_size=60),
    st.integers(1, 20), st.integers(600, 3_000), st.integers(5, 40), st.integers(50, 300),
)  # fmt: skip
def test_whatever_the_rows_weigh_every_file_keeps_every_limit(
    tmp_path: Path, weights: list[tuple[int, int, int]], requests: int, size: int, texts: int, tokens: int
) -> None:
    """All rows, in order, each in one file; all ids different; no limit broken by any."""
    asks = [ask_for(n, size=s, tokens=t, texts=x) for n, (s, t, x) in enumerate(weights)]
    options = BatchOptions(requests_most=requests, bytes_most=size, inputs_most=texts)
    drafts = write_all(asks, tmp_path, options, tokens)
    assert [row.key for draft in drafts for row in draft.rows] == [ask.rows[0].key for ask in asks]
    ids = [json.loads(line)["custom_id"] for draft in drafts for line in draft.path.read_bytes().splitlines()]
    assert len(set(ids)) == len(asks) == len(ids)
    strict = BatchSettings(requests_most=requests, inputs_most=texts)
    for draft in drafts:
        data = draft.path.read_bytes()
        assert find_faults(data, EMBED, strict)[1] == []
        assert len(data) <= size
        assert draft.tokens <= tokens


@pytest.fixture
async def world(database: Database, start_postgrest: StartPostgrest) -> AsyncIterator[World]:
    made = World("dsn", database, start_postgrest)
    yield made
    await made.close()


async def test_a_row_is_in_one_file_however_often_it_is_read(world: World) -> None:
    """Incident 1, B3: pages that overlap, in one file and across files: each row is claimed once."""
    ledger = await world.videos(10)
    lease = await begin(ledger, VIDEOS)
    desk = BatchLedger(ledger.road)
    keys = [(f"v{n:04}",) for n in range(1, 11)]
    guard = "00000000-0000-0000-0000-000000000000"
    for chunk, read, claimed in (
        ("c1", [0, 1, 2, 1, 3, 0], {0, 1, 2, 4}),
        ("c2", [3, 4, 5, 4, 2], {1, 2}),
        ("c1", [0, 1, 2, 1, 3, 0], {0, 1, 2, 4}),
    ):
        made = Chunk(
            chunk, lease.run_id, VIDEOS.name, FINGERPRINT, "gpt-4o-mini", "here", CHAT, len(read), 1, 1, "", 0.0
        )
        await desk.open(lease, made)
        assert await desk.claim(lease, made, [(n, keys[k], guard, None) for n, k in enumerate(read)]) == claimed


def test_writing_a_large_file_holds_a_small_part_of_it(tmp_path: Path) -> None:
    """50 MB are written in the memory of a few of them."""
    options = BatchOptions(tail_live=100)
    draft = Draft("run-1-1", tmp_path / "f.jsonl", CHAT, PRICE, options, None, "llm_summary")
    tracemalloc.start()
    for n in range(20_000):
        assert draft.add(ask_for(n, size=2_500))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    draft.finish()
    assert draft.size_bytes > 50_000_000
    assert peak < 16 << 20
