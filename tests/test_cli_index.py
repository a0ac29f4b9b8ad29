"""catchup index: the HNSW index of a space or a column, by one command or as SQL to paste."""

from __future__ import annotations

import pytest

from tests.servers.bench import Bench
from tests.servers.shell import Shell
from tests.test_cli_verify import _summarise, _vectorize


@pytest.fixture
async def filled(wired: Shell, bench: Bench) -> Shell:
    await _summarise(bench, 50)
    assert (await _vectorize(wired, "--create-namespace")).code == 0
    return wired


async def test_the_index_is_built_once(filled: Shell, bench: Bench) -> None:
    """It says how long it took; the second time it says that it is there."""
    ended = await filled.run("index", "summaries", "--store", "pgvector")
    assert (ended.code, ": built" in ended.out) == (0, True)
    (made,) = await bench.database.run("select count(*) from pg_indexes where indexdef like '%%hnsw%%'")
    again = await filled.run("index", "summaries", "--store", "pgvector")
    assert (made, again.code, again.out.startswith("-- it is there already")) == ((1,), 0, True)


async def test_print_builds_nothing(filled: Shell, bench: Bench) -> None:
    """The statement can be pasted, and nothing happened."""
    ended = await filled.run("index", "summaries", "--store", "pgvector", "--print")
    assert (ended.code, "using hnsw" in ended.out.lower()) == (0, True)
    assert await bench.database.run("select 1 from pg_indexes where indexdef like '%%hnsw%%'") == []


async def test_pinecone_needs_none(filled: Shell) -> None:
    """A target elsewhere is refused with the reason."""
    ended = await filled.run("index", "summaries")
    assert (ended.code, "in Pinecone" in ended.out + ended.err) == (10, True)
