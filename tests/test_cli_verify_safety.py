"""catchup verify against an unkind world: no good vector is lost, no difference is a lie, nothing is paid twice."""

from __future__ import annotations

import json

import pytest

from tests.servers.bench import Bench
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.fake_script import rule
from tests.servers.postgres import Database
from tests.servers.shell import Shell
from tests.servers.vector_shell import VectorShell, summarise

STATUS = """[targets.by-status]
job = "vectorize"
table = "videos"
key = ["id"]
read = ["llm_summary"]
pending = ["state <> DONE", "llm_summary is not null"]
cells = { state = "DONE" }
model = "text-embedding-3-small"
store = "pgvector"
dimensions = 512
"""
CHUNKS = """[targets.by-chunk]
job = "vectorize"
table = "videos"
key = ["id"]
read = ["description"]
pending = ["llm_summary_embedding_synced is not true", "description is not null"]
cells = { llm_summary_embedding_synced = "true" }
model = "text-embedding-3-small"
store = "pgvector"
dimensions = 64
chunks = { kind = "sentences", tokens_most = 40 }
"""


async def test_done_is_what_a_run_would_not_select(wired: Shell, bench: Bench) -> None:
    """A flag that is a word: NEW is not done though it is a value, and DONE is."""
    await summarise(bench, 20)
    await bench.database.run("alter table videos add column state text not null default 'NEW'")
    (wired.directory / "catchup.toml").write_text(STATUS)
    assert (await wired.run("migrate")).code == 0
    own = VectorShell(wired, bench, ("by-status",))
    ended = await own.vectorize("--create-namespace")
    assert ended.code == 0, ended.out + ended.err
    await bench.database.run("update videos set state = 'NEW' where id <= 'v000003'")
    await bench.database.run(f"delete from {await own.table()} where id between 'v000003' and 'v000005'")
    found = await own.difference()
    assert (found["denied"], found["claimed"]) == (["v000001", "v000002"], ["v000004", "v000005"])
    assert (len(found["missing"]), found["good"]) == (3, 15)
    assert (await own.repair()).code == 0
    assert (await own.difference())["good"] == 20


@pytest.fixture
async def chunked(wired: Shell, bench: Bench) -> VectorShell:
    """12 rows of four sentences, in chunks that the ledger has forgotten."""
    await summarise(bench, 12)
    await bench.database.run(
        "update videos set description = (select string_agg('Sentence ' || n || ' tells of crane ' || id || ' which "
        "was moved along the quay of the old port by forty men and a horse.', ' ') from generate_series(1, 4) n)"
    )
    (wired.directory / "catchup.toml").write_text(CHUNKS)
    assert (await wired.run("migrate")).code == 0
    own = VectorShell(wired, bench, ("by-chunk",))
    ended = await own.vectorize("--create-namespace")
    assert ended.code == 0, ended.out + ended.err
    assert len(await own.ids()) > 12
    await bench.database.run("delete from catchup.provenance")
    await bench.database.run("update videos set llm_summary_embedding_synced = false")
    return own


async def test_chunks_of_unknown_making_are_adopted_where_their_number_is_that_of_the_text(
    chunked: VectorShell, bench: Bench
) -> None:
    """All chunks and no other: trusted when that is said, for nothing. Too many or too few are not of this text."""
    table = await chunked.table()
    await bench.database.run(f"insert into {table} select 'v000002#9', embedding from {table} where id = 'v000002#0'")
    await bench.database.run(f"delete from {table} where id = 'v000003#1'")
    found = await chunked.difference()
    assert (len(found["unverified"]), found["other_model"], found["missing"]) == (10, ["v000002"], ["v000003"])
    assert found["orphans"] == []
    before = chunked.paid
    ended = await chunked.repair("--adopt")
    assert ended.code == 0, ended.out + ended.err
    texts = chunked.paid - before
    ids = len([id_ for id_ in await chunked.ids() if id_.startswith("v000003#")])
    assert texts == 2 * ids, (texts, ids)
    found = await chunked.difference()
    assert (found["good"], found["orphans"]) == (12, ["v000002#9"])
    assert (await chunked.repair("--delete-orphans")).code == 0
    assert (await chunked.difference())["code"] == 0
    parts = await bench.database.run("select count(*) from catchup.provenance where parts > 1")
    assert parts == [(12,)]


async def test_a_late_row_is_compared_as_it_is_now(
    forty_pinecone: VectorShell, bench: Bench, fake_pinecone: FakePinecone
) -> None:
    """Listed late, and of an older text: that it is there does not make it good."""
    fake_pinecone.settle()
    await bench.database.run("update videos set llm_summary = 'Edited since' where id = 'v000007'")
    await bench.database.run("update videos set llm_summary_embedding_synced = false where id = 'v000008'")
    shown = [{"id": f"v{n:06}"} for n in range(1, 41) if n not in (7, 8, 9)]
    fake_pinecone.script(rule("malformed", on={"item": "list"}, body=json.dumps({"vectors": shown})))
    found = await forty_pinecone.difference()
    assert (found["missing"], found["stale"], found["denied"]) == ([], ["v000007"], ["v000008"])
    assert (found["good"], found["claimed"], found["orphans"]) == (38, [], [])


async def test_a_row_that_failed_is_not_forgotten_by_the_repair(forty: VectorShell, bench: Bench) -> None:
    """A repair takes exactly what was found, whatever failed before; twice it says the same."""
    await bench.database.run("update videos set llm_summary = '[[item:bad]] ' || id where id = 'v000004'")
    bench.fake.script(rule("zero_one", on={"item": "bad"}))
    await bench.database.run(f"delete from {await forty.table()} where id = 'v000004'")
    for _ in range(2):
        ended = await forty.repair()
        assert (ended.code, "v000004" in ended.out) == (3, True), ended.out


async def test_a_flagged_row_with_nothing_to_embed_is_no_difference(forty: VectorShell, bench: Bench) -> None:
    """No vector is there and none is wanted: a repair could change nothing, and would be asked for again for ever."""
    await bench.database.run("update videos set llm_summary = '' where id = 'v000005'")
    await bench.database.run(f"delete from {await forty.table()} where id = 'v000005'")
    found = await forty.difference()
    assert (found["code"], found["missing"], found["not_wanted"]) == (0, [], {"empty": 1})


async def test_the_price_of_a_repair_leaves_out_what_is_only_marked(forty: VectorShell, bench: Bench) -> None:
    """Flags alone are free, and that is said before anything is done."""
    await bench.database.run("update videos set llm_summary_embedding_synced = false")
    ended = await forty.verify("--repair", "--dry-run", "--json")
    assert json.loads(ended.out.splitlines()[-1])["estimate_usd"] == 0
    assert "40 of these have their vectors" in ended.out + ended.err
    await bench.database.run(f"delete from {await forty.table()} where id <= 'v000010'")
    before = forty.paid
    ended = await forty.verify("--repair", "--yes", "--json", "--limit", "5")
    verdict = json.loads(ended.out.splitlines()[-1])
    assert (verdict["wrote"], forty.paid - before, verdict["pending_beyond"]) == (5, 5, True)


async def test_only_answers_of_the_same_text_are_promised(wired: Shell, bench: Bench) -> None:
    """A kept answer of an older text is of no use to the repair, and is not counted."""
    await summarise(bench, 10)
    own = VectorShell(wired, bench)
    await own.vectorize("--create-namespace", "--keep-answers", "7d")
    await bench.database.run("update videos set llm_summary = 'Edited since' where id <= 'v000004'")
    await bench.database.run(f"delete from {await own.table()} where id <= 'v000006'")
    before = own.paid
    ended = await own.repair()
    assert "2 of these are kept" in ended.out + ended.err
    assert own.paid - before == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--adopt",), "without --repair"),
        (("--redo-where", "edited"), "--redo-where"),
        (("--pending-only",), "--edited"),
        (("--out", "/proc/nowhere"), "--out"),
        (("--target", "titles"), "two targets"),
    ],
    ids=["adopt alone", "redo", "pending only", "a folder that cannot be", "two names"],
)
async def test_what_means_nothing_is_refused(forty: VectorShell, words: tuple[str, ...], said: str) -> None:
    """Rather than done in some other way, or found out after an hour."""
    ended = await forty.verify(*words)
    assert (ended.code in (2, 10), said in ended.err + ended.out) == (True, True), ended.err + ended.out
    assert "Traceback" not in ended.err


async def test_rows_that_policies_hide_do_not_make_their_vectors_orphans(
    forty: VectorShell, bench: Bench, database: Database
) -> None:
    """A role that sees half of the table may not delete the vectors of the other half."""
    await bench.database.run("alter table videos enable row level security")
    await bench.database.run("create policy half on videos as restrictive using (id <= 'v000020')")
    await bench.database.migrate([bench.target], worker=True)
    ended = await forty.repair("--delete-orphans", DATABASE_URL=database.dsn_as("catchup_worker"))
    assert (ended.code, "row level security" in ended.err + ended.out) == (10, True), ended.err + ended.out
    assert len(await forty.ids()) == 40


async def test_an_emptied_table_does_not_empty_its_namespace(forty: VectorShell, bench: Bench) -> None:
    """The wrong database looks like that too: --yes is not enough."""
    await bench.database.run("delete from videos")
    ended = await forty.repair("--delete-orphans")
    assert (ended.code, "no row that wants" in ended.err + ended.out) == (10, True), ended.err + ended.out
    assert len(await forty.ids()) == 40


async def test_orphans_whose_row_is_there_are_told_apart(forty: VectorShell, bench: Bench) -> None:
    """`belongs to no row` would be a lie of a row that the target's conditions leave out."""
    await bench.database.run("update videos set llm_summary = null where id = 'v000002'")
    await bench.database.run("update videos set llm_summary = ' ' where id = 'v000003'")
    await bench.database.run("delete from videos where id = 'v000004'")
    found = await forty.difference()
    assert found["orphans"] == ["v000002", "v000003", "v000004"]
    assert found["left_behind"] == ["v000002", "v000003"]
    assert (await forty.repair("--delete-orphans")).code == 0
    assert len(await forty.ids()) == 37


async def test_vectors_that_this_ledger_never_wrote_are_not_deleted_with_the_others(
    forty: VectorShell, bench: Bench
) -> None:
    """One namespace, two databases: what the copy does not have is the other one's, until somebody says otherwise."""
    table = await forty.table()
    await bench.database.run("delete from videos where id = 'v000004'")
    await bench.database.run(f"insert into {table} select 'other-' || id, embedding from {table} where id < 'v000004'")
    others = {"other-v000001", "other-v000002", "other-v000003"}
    found = await forty.difference()
    assert (len(found["orphans"]), set(found["strangers"])) == (4, others)
    ended = await forty.repair("--delete-orphans")
    assert (ended.code, "3 were left" in ended.out + ended.err) == (3, True), ended.out + ended.err
    assert ("v000004" in await forty.ids(), others <= await forty.ids()) == (False, True)
    assert (await forty.repair("--delete-orphans", "--adopt")).code == 0
    assert len(await forty.ids()) == 39


async def test_a_key_that_is_no_line_is_one_in_the_files(forty: VectorShell, bench: Bench) -> None:
    """One key a line whatever it holds, and nothing that drives a terminal on it."""
    text = "\x1b[2Jtwo\nlines"
    await bench.database.run("update videos set id = %s where id = 'v000007'", [text])
    await forty.verify("--out", "found")
    assert (forty.shell.directory / "found" / "missing.txt").read_text() == json.dumps(text) + "\n"
    assert "\x1b" not in (await forty.verify()).out
