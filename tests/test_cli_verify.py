"""catchup verify: the difference between rows and vectors is the true one, and its repair is exactly that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.default_targets import SUMMARIES
from tests.servers.bench import Bench
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.shell import Ended, Shell

TARGET = ("summaries", "--store", "pgvector")
WRONG = ("missing", "stale", "other_model", "denied", "unverified", "orphans")


@pytest.fixture
async def filled(wired: Shell, bench: Bench) -> Shell:
    """300 summarised rows with their vectors in a space of the same database."""
    await _summarise(bench, 300)
    assert (await _vectorize(wired, "--create-namespace", "--keep-answers", "7d")).code == 0
    return wired


async def _summarise(bench: Bench, rows: int) -> None:
    await bench.database.run("create extension if not exists vector")
    bench.target = SUMMARIES
    await bench.migrate()
    await bench.fill(rows)
    await bench.database.run("update videos set llm_summary = 'How crane ' || id || ' of the old port was restored'")


async def _vectorize(shell: Shell, *more: str) -> Ended:
    return await shell.run("vectorize", "--target", *TARGET, "--yes", "--db-load", "100%", *more)


async def _difference(shell: Shell, *more: str) -> dict[str, Any]:
    """The object that --json prints; a run of the repair may print more after it."""
    ended = await shell.run("verify", *TARGET, "--json", "--db-load", "100%", *more)
    found = [json.loads(line) for line in ended.out.splitlines()]
    (difference,) = [each for each in found if each["type"] == "difference"]
    return {**difference, "code": ended.code, "verdict": found[-1]}


async def _table(bench: Bench) -> str:
    ((name,),) = await bench.database.run("select table_name from catchup.spaces")
    return f"catchup.{name}"


async def test_nothing_differs_after_a_run(filled: Shell) -> None:
    """Exit 0, every row good, nothing to name."""
    found = await _difference(filled)
    assert (found["code"], found["good"], [found[name] for name in WRONG]) == (0, 300, [[]] * 6)


async def test_vectors_deleted_behind_our_back_are_listed_and_restored_exactly(filled: Shell, bench: Bench) -> None:
    """DOMAIN 2, the 3,721: the flags deny it, the list is exact both ways, and kept answers are not paid for again."""
    table = await _table(bench)
    gone = {
        key
        for (key,) in await bench.database.run(f"delete from {table} where id like '%%7' or id like '%%3' returning id")
    }
    found = await _difference(filled)
    assert (set(found["missing"]), set(found["claimed"]), found["code"]) == (gone, gone, 3)
    paid = bench.fake.world.embedded.total()
    repaired = await _difference(filled, "--repair", "--yes")
    assert repaired["code"] == 0
    assert bench.fake.world.embedded.total() == paid
    assert (await _difference(filled))["good"] == 300


async def test_without_kept_answers_exactly_the_missing_are_paid_for(wired: Shell, bench: Bench) -> None:
    """The price of a repair is the price of what is missing."""
    await _summarise(bench, 60)
    await _vectorize(wired, "--create-namespace")
    await bench.database.run(f"delete from {await _table(bench)} where id < 'v000011'")
    before = bench.fake.world.embedded.total()
    assert (await _difference(wired, "--repair", "--yes"))["code"] == 0
    assert bench.fake.world.embedded.total() - before == 10


async def test_flags_that_lie_in_either_direction_are_set_right(wired: Shell, bench: Bench) -> None:
    """Where the vector is there nothing is paid; where it is not, it is made."""
    await _summarise(bench, 200)
    await _vectorize(wired, "--create-namespace", "--limit", "100")
    await bench.database.run("update videos set llm_summary_embedding_synced = not llm_summary_embedding_synced")
    found = await _difference(wired)
    assert (len(found["denied"]), len(found["claimed"]), len(found["missing"])) == (100, 100, 100)
    before = bench.fake.world.embedded.total()
    assert (await _difference(wired, "--repair", "--yes"))["code"] == 0
    assert bench.fake.world.embedded.total() - before == 100
    true = await bench.database.run("select count(*) from videos where llm_summary_embedding_synced")
    assert (true, (await _difference(wired))["good"]) == ([(200,)], 200)


async def test_stale_texts_and_orphans_are_named_and_put_right(filled: Shell, bench: Bench) -> None:
    """An edited text is embedded again; a vector of no row is deleted only when that is said."""
    await bench.database.run("update videos set llm_summary = 'Something else entirely' where id = 'v000005'")
    await bench.database.run("delete from videos where id in ('v000007', 'v000008')")
    found = await _difference(filled)
    assert (found["stale"], found["orphans"]) == (["v000005"], ["v000007", "v000008"])
    kept = await _difference(filled, "--repair", "--yes")
    assert (kept["code"], kept["verdict"]["type"], kept["verdict"]["exit"]) == (3, "verdict", 3)
    assert (await _difference(filled))["orphans"] == ["v000007", "v000008"]
    await _difference(filled, "--repair", "--yes", "--delete-orphans")
    found = await _difference(filled)
    assert (found["code"], found["good"], found["orphans"]) == (0, 298, [])


async def test_vectors_of_unknown_origin_are_adopted_when_that_is_said(filled: Shell, bench: Bench) -> None:
    """DOMAIN 1, incident 7: vectors that the flags deny and nobody's ledger knows."""
    await bench.database.run("delete from catchup.provenance")
    await bench.database.run("update videos set llm_summary_embedding_synced = false")
    found = await _difference(filled)
    assert (len(found["unverified"]), found["missing"]) == (300, [])
    before = bench.fake.world.embedded.total()
    await _difference(filled, "--repair", "--yes")
    assert len((await _difference(filled))["unverified"]) == 300
    await _difference(filled, "--repair", "--adopt", "--yes")
    assert ((await _difference(filled))["good"], bench.fake.world.embedded.total()) == (300, before)


async def test_the_lists_are_written_to_files(filled: Shell, bench: Bench) -> None:
    """One key a line, a file for each kind."""
    await bench.database.run(f"delete from {await _table(bench)} where id = 'v000009'")
    await filled.run("verify", *TARGET, "--out", "found")
    folder = Path(filled.directory) / "found"
    assert (folder / "missing.txt").read_text() == "v000009\n"
    assert {file.stem for file in folder.iterdir()} == set(WRONG)


async def test_another_targets_vectors_are_not_deleted(filled: Shell, bench: Bench) -> None:
    """What belongs to another is not even compared."""
    await bench.database.run("delete from videos where id = 'v000007'")
    await bench.database.run("update catchup.places set target = 'titles'")
    ended = await filled.run("verify", *TARGET, "--repair", "--delete-orphans", "--yes")
    assert await bench.database.run(f"select count(*) from {await _table(bench)}") == [(300,)]
    assert (ended.code, "titles" in ended.err + ended.out) == (10, True)


async def test_a_reader_that_lags_is_no_difference(wired: Shell, bench: Bench, fake_pinecone: FakePinecone) -> None:
    """What is only late is not missing; vectors that vanish from Pinecone are."""
    await _summarise(bench, 40)
    fake_pinecone.configure(dimension=512, lag_s=0.3)
    fake_pinecone.reset()
    wired.env |= {
        "PINECONE_API_KEY": fake_pinecone.settings.key or "pcsk_test",
        "PINECONE_INDEX_HOST": fake_pinecone.url,
    }
    ended = await wired.run("vectorize", "--target", "summaries", "--create-namespace", "--yes", "--db-load", "100%")
    assert ended.code == 0, ended.out + ended.err
    fake_pinecone.space("llm-summaries").forget(["v000001", "v000002"])
    ended = await wired.run("verify", "summaries", "--json")
    found = json.loads(ended.out.splitlines()[-1])
    assert (found["missing"], found["good"]) == (["v000001", "v000002"], 38)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        pytest.param(("--repair", "--delete-orphans", "--where", "channel_id=c1"), "whole table", id="where"),
        pytest.param(("--repair", "--delete-orphans", "--slice", "..v000100"), "whole table", id="slice"),
        pytest.param(("--delete-orphans",), "without --repair", id="no-repair"),
    ],
)
async def test_what_would_delete_too_much_is_refused(
    filled: Shell, bench: Bench, flags: tuple[str, ...], said: str
) -> None:
    """Of a part of the table nobody can say which vectors are too many: those of the others are not orphans."""
    ended = await filled.run("verify", *TARGET, *flags, "--yes")
    assert (ended.code, said in ended.out + ended.err) == (10, True)
    assert await bench.database.run(f"select count(*) from {await _table(bench)}") == [(300,)]
    part = await _difference(filled, "--where", "channel_id=c1")
    assert (part["code"], part["orphans"]) == (0, [])


async def test_a_dry_run_deletes_nothing(filled: Shell, bench: Bench) -> None:
    """It says how many it would delete."""
    await bench.database.run("delete from videos where id = 'v000007'")
    ended = await filled.run("verify", *TARGET, "--repair", "--delete-orphans", "--dry-run")
    assert "1 orphaned vectors would be deleted" in ended.out + ended.err
    assert await bench.database.run(f"select count(*) from {await _table(bench)}") == [(300,)]


async def test_a_vector_of_a_text_that_is_gone_is_an_orphan(filled: Shell, bench: Bench) -> None:
    """Search must not find what nobody wrote any more."""
    await bench.database.run("update videos set llm_summary = '' where id = 'v000005'")
    assert (await _difference(filled))["orphans"] == ["v000005"]
    await _difference(filled, "--repair", "--delete-orphans", "--yes")
    assert await bench.database.run(f"select 1 from {await _table(bench)} where id = 'v000005'") == []


async def test_a_torn_line_of_kept_answers_is_no_answer(filled: Shell, bench: Bench) -> None:
    """The rows of it are paid for again, and the others are not."""
    (file,) = bench.state_dir.glob("answers/*/*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole[:1_500] + b"\n" + whole)
    await bench.database.run(f"delete from {await _table(bench)} where id < 'v000011'")
    paid = bench.fake.world.embedded.total()
    assert (await _difference(filled, "--repair", "--yes"))["code"] == 0
    assert bench.fake.world.embedded.total() == paid
