"""catchup index: the HNSW index of a space or a column, by one command or as SQL to paste."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.servers.bench import Bench
from tests.servers.shell import Shell
from tests.servers.vector_shell import VectorShell, summarise


@pytest.fixture
async def filled(wired: Shell, bench: Bench) -> Shell:
    await summarise(bench, 50)
    assert (await VectorShell(wired, bench).vectorize("--create-namespace")).code == 0
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


async def test_a_load_of_many_ends_with_the_command_that_builds_it(filled: Shell, bench: Bench) -> None:
    """Search without it reads every vector; few are no matter."""
    own = VectorShell(filled, bench)
    table = await own.table()

    async def load_one(*more: str) -> dict[str, Any]:
        await bench.database.run("update videos set llm_summary_embedding_synced = false where id = 'v000001'")
        ended = await own.vectorize("--json", *more)
        verdict: dict[str, Any] = json.loads(ended.out.splitlines()[-1])
        return verdict

    few = await load_one()
    assert (few["wrote"], few["next"], [note for note in few["notes"] if "HNSW" in note]) == (1, "", [])
    await bench.database.run(
        f"insert into {table} select 'v000001' || n, embedding from {table}, generate_series(1, 10000) n "
        "where id = 'v000001'"
    )
    many = await load_one()
    assert many["next"] == "catchup index summaries --store pgvector"
    assert [note for note in many["notes"] if "no HNSW index" in note]
    await bench.database.run(f"delete from {table} where id like 'v000001_%%'")
    assert (await filled.run(*many["next"].split()[1:])).code == 0
