"""catchup search as it is typed: the nearest rows over every kind of place, and what it refuses before it pays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from jobs.default_targets import JOB_POSTINGS, SUMMARIES, TITLES
from queries.dsn import DsnRoad
from queries.ledger import Ledger
from queries.pgvector_space import PgvectorSpace
from queries.vectors import VectorRecord
from tests.servers.bench import Bench
from tests.servers.fake_embeddings import fake_vector
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.postgres import Database
from tests.servers.shell import Ended, Shell
from tests.test_cli_views import NEVER

SMALL = "text-embedding-3-small"
SUMMARY = "Speaker {} tells how crane {} of the old harbour was built, moved and restored."
SPACE = ("--store", "pgvector")


@pytest.fixture
async def stocked(wired: Shell, bench: Bench) -> Shell:
    """Twelve talks whose summaries have their vectors in the table of a space, as a run leaves them."""
    await _fill(bench.database)
    road = DsnRoad(bench.database.dsn)
    try:
        space = PgvectorSpace(road, "llm-summaries", model=SMALL, target="summaries")
        await space.create(512, index=False)
        await space.put([_record(n) for n in range(1, 13)])
        await Ledger(road).places.claim(f"pgvector {space.where}", SMALL, 512, "summaries")
    finally:
        await road.close()
    return wired


async def _fill(database: Database) -> None:
    if not await database.run("select 1 from pg_available_extensions where name = 'vector'"):
        pytest.skip("this server has no pgvector")
    await database.run("create extension vector")
    await database.run(
        "insert into videos (id, title, channel_id, channel_name, view_count, published_at, llm_summary) "
        "select 'v' || n, 'Talk ' || n, 'c1', 'Harbour talks ' || n %% 2, n * 1000, '2026-01-01', "
        "replace(%s, '{}', n::text) from generate_series(1, 12) n",
        [SUMMARY],
    )
    await database.migrate([SUMMARIES, TITLES])


def _record(n: int) -> VectorRecord:
    text = SUMMARY.replace("{}", str(n))
    beside = {"title": f"Talk {n}", "channel": f"Harbour talks {n % 2}", "view_count": n * 1000, "summary": text}
    return VectorRecord(f"v{n}", fake_vector(text, SMALL, 512), beside)


def _objects(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.out.splitlines()]


async def test_the_nearest_rows_are_shown_with_score_title_and_snippet(stocked: Shell, bench: Bench) -> None:
    """The same text is at distance nothing; a pipe gets plain lines, and one embedding is paid."""
    ended = await stocked.run("search", SUMMARY.replace("{}", "7"), *SPACE, "--top", "3")
    assert ended.code == 0, ended.err
    first = ended.out.splitlines()[0]
    assert first.split() == ["1", "1.000", "Talk", "7"]
    assert SUMMARY.replace("{}", "7")[:60] in ended.out
    assert "v7 · channel=Harbour talks 1 · view_count=7000" in ended.out
    assert [line.split()[0] for line in ended.out.splitlines() if line[:2].strip()] == ["1", "2", "3"]
    assert not NEVER.search(ended.out + ended.err)
    assert bench.fake.world.requests == 1


async def test_a_search_leaves_no_trace(stocked: Shell, bench: Bench) -> None:
    """No run in the ledger, no lease, no budget, no journal."""
    assert (await stocked.run("search", "cranes", *SPACE)).code == 0
    for table in ("runs", "leases", "budget", "lumps", "provenance"):
        assert await bench.database.run(f"select count(*) from catchup.{table}") == [(0,)]
    assert not list(bench.state_dir.rglob("*.journal"))


async def test_json_is_a_match_a_line_and_a_summary(stocked: Shell) -> None:
    """For a program: every value beside the vector, then what was asked, of whom, and what it cost."""
    ended = await stocked.run("search", SUMMARY.replace("{}", "3"), *SPACE, "--top", "2", "--json")
    *matches, summary = _objects(ended)
    assert (matches[0]["type"], matches[0]["rank"], matches[0]["id"], matches[0]["key"]) == ("match", 1, "v3", "v3")
    assert matches[0]["metadata"]["view_count"] == 3000
    assert [summary[name] for name in ("type", "exit", "found", "model")] == ["search", 0, 2, SMALL]
    assert summary["tokens_in"] > 0
    assert 0 < summary["cost_usd"] < 0.0001


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        pytest.param(("view_count=3000",), {"v3"}, id="number"),
        pytest.param(("view_count=3e3",), {"v3"}, id="number written otherwise"),
        pytest.param(("channel=Harbour talks 0",), {f"v{n}" for n in range(2, 13, 2)}, id="text"),
        pytest.param(("channel=Harbour talks 1", "view_count=5000"), {"v5"}, id="both must hold"),
        pytest.param(("channel=none",), set(), id="nothing fits"),
    ],
)
async def test_a_filter_compares_as_the_value_is_stored(
    stocked: Shell, filters: Sequence[str], found: set[str]
) -> None:
    """A number is compared as a number, because its column is one. Nothing found is an answer: exit 0."""
    words = [word for text in filters for word in ("--filter", text)]
    ended = await stocked.run("search", "cranes", *SPACE, "--top", "100", "--json", *words)
    *matches, summary = _objects(ended)
    assert (ended.code, {match["key"] for match in matches}) == (0, found)
    assert bool(summary["text"]) != bool(found)


async def test_a_search_over_pinecone_finds_what_vectorize_stored(
    wired: Shell, bench: Bench, fake_pinecone: FakePinecone
) -> None:
    """The default store of the default target, both commands as typed; a filter goes over the wire as a number."""
    fake_pinecone.configure(dimension=512, index="youtube-titles-prod")
    fake_pinecone.reset()
    await _fill(bench.database)
    wired.env |= {"PINECONE_API_KEY": "pcsk_s3ntinel_0123456789", "PINECONE_INDEX_HOST": fake_pinecone.url}
    refused = await wired.run("search", "cranes")
    assert refused.code == 10
    assert "catchup vectorize --create-namespace" in refused.err
    assert bench.fake.world.requests == 0
    assert (await wired.run("vectorize", "--create-namespace")).code == 0
    ended = await wired.run("search", SUMMARY.replace("{}", "9"), "--top", "1", "--json")
    assert [found.get("key") for found in _objects(ended)] == ["v9", None]
    ended = await wired.run("search", "cranes", "--filter", "view_count=4000", "--json")
    assert [found.get("key") for found in _objects(ended)] == ["v4", None]


async def test_a_search_over_a_column_of_the_row(wired: Shell, bench: Bench) -> None:
    """The vectors stand in the users' table: key, title and the longest text come from the row itself."""
    await _fill(bench.database)
    await bench.database.run(
        "create table jobs (id bigint primary key, title text, company text, location text, description text, "
        "is_active boolean default true, embedding vector(1536))"
    )
    await bench.database.run(
        "insert into jobs (id, title, company, location, description) select n, 'Welder', 'Yard ' || n, 'Port', "
        "'Welds the hull of ship ' || n from generate_series(1, 4) n"
    )
    await bench.database.migrate([JOB_POSTINGS])
    unclaimed = await wired.run("search", "ships", "--target", "job-postings")
    assert unclaimed.code == 10
    assert "catchup vectorize --target job-postings" in unclaimed.err
    assert (await wired.run("vectorize", "--target", "job-postings")).code == 0
    text = "Welder\nYard 2\nPort\nWelds the hull of ship 2"
    ended = await wired.run("search", text, "--target", "job-postings", "--top", "2")
    assert ended.out.splitlines()[0].split() == ["1", "1.000", "Welder"]
    assert "Welds the hull of ship 2" in ended.out
    ended = await wired.run("search", text, "--target", "job-postings", "--filter", "company=Yard 3", "--json")
    assert [found.get("key") for found in _objects(ended)] == ["3", None]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        pytest.param(("--top", "0"), 2, "greater than or equal to 1", id="top of nothing"),
        pytest.param(("--top", "101"), 2, "less than or equal to 100", id="top of too many"),
        pytest.param(("--filter", "channel"), 2, "KEY=VALUE", id="filter without value"),
        pytest.param(("--filter", "author=x"), 10, "it keeps channel", id="filter by what is not kept"),
        pytest.param(("--filter", "view_count=many"), 10, "no number", id="filter of another type"),
        pytest.param(("--target", "nothing"), 10, "known are", id="unknown target"),
        pytest.param(("--target", "titles"), 10, "--target titles", id="namespace that nobody made"),
        pytest.param(("--store", "drawer"), 10, "no store", id="unknown store"),
        pytest.param(("--provider", "nobody"), 10, "no provider", id="unknown provider"),
        pytest.param(("--model", "text-embedding-3-large"), 10, f"--model {SMALL}", id="another model"),
        pytest.param(("--model", "my-own"), 10, "--price", id="no price"),
        pytest.param(("--provider", "local"), 10, "384", id="the local model over another's vectors"),
    ],
)
async def test_what_cannot_be_answered_is_refused_unpaid(
    stocked: Shell, bench: Bench, words: tuple[str, ...], code: int, said: str
) -> None:
    """Each with what to do; the provider was not asked."""
    ended = await stocked.run("search", "cranes", *(() if "--store" in words else SPACE), *words)
    assert ended.code == code, ended.err
    assert said in " ".join(ended.err.split())
    assert bench.fake.world.requests == 0


async def test_a_blank_question_is_a_usage_error(stocked: Shell) -> None:
    """Also where it holds nothing but what a terminal would obey."""
    assert (await stocked.run("search", " \x1b[2J ", *SPACE)).code == 2


async def test_the_local_model_does_not_ask_vectors_of_the_same_length(stocked: Shell, bench: Bench) -> None:
    """Two models of one dimension can be compared, and it means nothing."""
    await bench.database.run("update catchup.spaces set dimension = 384")
    ended = await stocked.run("search", "cranes", *SPACE, "--provider", "local")
    assert ended.code == 10
    assert f"--provider openai --model {SMALL}" in ended.err


async def test_vectors_whose_model_nobody_knows_are_not_asked(stocked: Shell, bench: Bench) -> None:
    """A run says whose a place is; before it, the answer of a search would be a guess."""
    await bench.database.run("delete from catchup.places")
    ended = await stocked.run("search", "cranes", *SPACE)
    assert ended.code == 10
    assert "catchup vectorize --store pgvector" in " ".join(ended.err.split())
    assert bench.fake.world.requests == 0


async def test_an_empty_space_is_said_to_be_empty_and_nothing_is_paid(stocked: Shell, bench: Bench) -> None:
    """Exit 0, and the command that fills it."""
    table = (await bench.database.run("select table_name from catchup.spaces"))[0][0]
    await bench.database.run(f"delete from catchup.{table}")
    ended = await stocked.run("search", "cranes", *SPACE, "--verbose")
    assert ended.code == 0
    assert "catchup vectorize --store pgvector" in " ".join(ended.out.split())
    assert bench.fake.world.requests == 0


async def test_without_the_ledger_nothing_is_known(wired: Shell, bench: Bench) -> None:
    """The next command is named."""
    await bench.database.run("drop schema catchup cascade")
    ended = await wired.run("search", "cranes")
    assert ended.code == 10
    assert "catchup migrate" in ended.err


async def test_without_the_extension_it_is_said_how_to_get_it(stocked: Shell, bench: Bench) -> None:
    """pgvector is the owner's decision."""
    await bench.database.run("drop extension vector cascade")
    ended = await stocked.run("search", "cranes", *SPACE)
    assert ended.code == 10
    assert "create extension vector" in ended.err


@pytest.mark.parametrize(
    ("action", "code"),
    [
        pytest.param({"kind": "status", "status": 429, "retry_after": 0.05, "times": 1}, 0, id="a passing throttle"),
        pytest.param({"kind": "zero_one"}, 10, id="a vector of zeros"),
    ],
)
async def test_the_provider_is_waited_for_and_not_believed_blindly(
    stocked: Shell, bench: Bench, action: dict[str, Any], code: int
) -> None:
    """A passing refusal is nobody's business; a vector that says nothing finds nothing."""
    bench.fake.script({"match": {"times": action.pop("times", 99)}, "action": action})
    ended = await stocked.run("search", "cranes", *SPACE)
    assert ended.code == code, ended.err


async def test_a_wrong_key_is_refused_with_the_services_words(stocked: Shell, bench: Bench) -> None:
    """Exit 10 as for a run, and as JSON where JSON was asked for."""
    bench.fake.configure(key="sk-another-key-0000000000")
    ended = await stocked.run("search", "cranes", *SPACE, "--json")
    assert (ended.code, _objects(ended)[-1]["exit"]) == (10, 10)
    assert "OPENAI_API_KEY" in ended.err


@pytest.mark.parametrize("columns", [20, 100])
async def test_titles_are_data_on_any_terminal(stocked: Shell, bench: Bench, columns: int) -> None:
    """R20: escapes, markup and marks of direction stay what somebody typed, at any width."""
    table = (await bench.database.run("select table_name from catchup.spaces"))[0][0]
    hostile = "\x1b[2J\x1b]0;pwn\x07[red]x[/b]\u202e"
    await bench.database.run(
        f"update catchup.{table} set metadata = metadata || jsonb_build_object('title', %s::text, 'summary', %s::text)",
        [hostile, hostile],
    )
    ended = await stocked.run_in_terminal("search", "cranes", *SPACE, "--top", "2", columns=columns)
    assert ended.code == 0
    assert "[red]x[/b]" in ended.out
    assert not any(sign in ended.out for sign in ("\x1b[2J", "\x1b]", "\x07", "\u202e"))
