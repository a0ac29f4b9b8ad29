"""catchup vectorize --reembed: a new place is filled while the old one serves, compared, and switched to."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from cli.toml_file import change
from jobs.default_targets import SUMMARIES
from queries.errors import Misconfigured
from tests.servers.bench import Bench
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.fake_script import rule
from tests.servers.shell import Ended, Shell

PGVECTOR = """# Ours, since 2024.
[targets.summaries]   # what people search in
store = "pgvector"
namespace = "old"     # the first one

[limits]
max_outage = "5s"  # nobody waits longer
"""
LARGE = ("--reembed", "--into", "new", "--model", "text-embedding-3-large", "--dimensions", "256")
WRONG = ("missing", "stale", "other_model", "denied", "unverified", "orphans")


@pytest.fixture
async def served(wired: Shell, bench: Bench) -> Shell:
    """60 summarised rows with their vectors in the space `old` of the same database."""
    await _summarise(bench, 60)
    (wired.directory / "catchup.toml").write_text(PGVECTOR)
    ended = await _vectorize(wired, "--create-namespace")
    assert ended.code == 0, ended.out + ended.err
    return wired


async def _summarise(bench: Bench, rows: int) -> None:
    await bench.database.run("create extension if not exists vector")
    bench.target = SUMMARIES
    await bench.migrate()
    await bench.fill(rows)
    await bench.database.run("update videos set llm_summary = 'How crane ' || id || ' of the old port was restored'")


async def _vectorize(shell: Shell, *more: str, **env: str) -> Ended:
    return await shell.run("vectorize", "--target", "summaries", "--yes", "--db-load", "100%", *more, **env)


async def _reembed(shell: Shell, *more: str) -> dict[str, Any]:
    """The verdict, which is the last line."""
    ended = await _vectorize(shell, *LARGE, "--json", *more)
    verdict = json.loads(ended.out.splitlines()[-1])
    assert verdict["exit"] == ended.code
    return {**verdict, "all": ended.out + ended.err}


async def _difference(shell: Shell, name: str = "summaries") -> dict[str, Any]:
    ended = await shell.run("verify", name, "--json", "--db-load", "100%")
    found: dict[str, Any] = json.loads(ended.out.splitlines()[-1])
    return found


async def _space(bench: Bench, name: str) -> dict[str, int]:
    """Ids and the dimensions of their vectors."""
    found = await bench.database.run("select table_name from catchup.spaces where name = %s", [name])
    if not found:
        return {}
    return dict(await bench.database.run(f"select id, vector_dims(embedding) from catchup.{found[0][0]}"))


async def _flags(bench: Bench) -> int:
    ((count,),) = await bench.database.run("select count(*) from videos where llm_summary_embedding_synced")
    return int(count)


def _toml(shell: Shell) -> str:
    return (shell.directory / "catchup.toml").read_text()


async def test_filled_while_the_old_one_serves_then_switched(served: Shell, bench: Bench) -> None:
    """First nothing but the new space changes; the switch changes the ledger and three lines of catchup.toml."""
    await bench.database.run("update videos set llm_summary_embedding_synced = false where id <= 'v000005'")
    before = await bench.database.run("select xmin::text, id from videos order by id")
    old = await _space(bench, "old")
    filled = await _reembed(served)
    assert (filled["exit"], filled["wrote"], filled["next"].endswith("--switch")) == (0, 60, True), filled["all"]
    assert set((await _space(bench, "new")).items()) == {(id_, 256) for id_ in old}
    assert await bench.database.run("select xmin::text, id from videos order by id") == before
    assert (await _space(bench, "old"), _toml(served)) == (old, PGVECTOR)

    paid = bench.fake.world.embedded.total()
    switched = await _reembed(served, "--switch")
    assert (switched["exit"], bench.fake.world.embedded.total()) == (0, paid), switched["all"]
    assert switched["switched"] == {"namespace": "new", "model": "text-embedding-3-large", "dimensions": 256}
    text = _toml(served)
    for line in PGVECTOR.splitlines():
        assert line in text or line.startswith("namespace"), line
    assert '"new"     # the first one' in text
    assert tomllib.loads(text)["targets"]["summaries"] == {"store": "pgvector", **switched["switched"]}
    assert await _space(bench, "old") == old

    ended = await _vectorize(served)
    assert (ended.code, bench.fake.world.embedded.total(), await _flags(bench)) == (0, paid, 60), ended.out
    found = await _difference(served)
    assert (found["exit"], found["good"], [found[name] for name in WRONG]) == (0, 60, [[]] * 6)
    ended = await served.run("search", "How crane v000007 of the old port was restored", "--json", "--top", "1")
    match, summary = map(json.loads, ended.out.splitlines())
    assert (match["key"], summary["model"]) == ("v000007", "text-embedding-3-large")


async def test_a_second_switch_has_nothing_to_do(served: Shell, bench: Bench) -> None:
    """Exit 0, not a call, not a byte of catchup.toml."""
    assert (await _reembed(served, "--switch"))["exit"] == 0
    text, requests = _toml(served), bench.fake.world.requests
    again = await _reembed(served, "--switch")
    assert (again["exit"], again["headline"].startswith("nothing to do")) == (0, True), again["all"]
    assert (_toml(served), bench.fake.world.requests) == (text, requests)


async def test_the_way_back_embeds_only_what_was_edited_since(served: Shell, bench: Bench) -> None:
    """The verdict says the command; the old place has kept its ledger."""
    switched = await _reembed(served, "--switch")
    (way_back,) = [note for note in switched["notes"] if "The way back" in note]
    await bench.database.run("update videos set llm_summary = 'Another text' where id = 'v000003'")
    before = bench.fake.world.embedded.total()
    words = way_back.rpartition("catchup ")[2].split()
    ended = await served.run(*words, "--yes", "--db-load", "100%")
    assert ended.code == 0, ended.out + ended.err
    assert bench.fake.world.embedded.total() - before == 1
    assert tomllib.loads(_toml(served))["targets"]["summaries"]["namespace"] == "old"
    await _vectorize(served)
    assert ((await _difference(served))["good"], bench.fake.world.embedded.total() - before) == (60, 1)


async def test_what_was_edited_or_lost_meanwhile_is_made_up_for(served: Shell, bench: Bench) -> None:
    """The comparison finds it; the same command pays for exactly that."""
    await _reembed(served)
    (table,) = (await bench.database.run("select table_name from catchup.spaces where name = 'new'"))[0]
    await bench.database.run(f"delete from catchup.{table} where id = 'v000004'")
    await bench.database.run("update videos set llm_summary = 'Something else' where id = 'v000009'")
    await bench.database.run("delete from videos where id = 'v000011'")
    before = bench.fake.world.embedded.total()
    kept = await _reembed(served, "--switch")
    assert (kept["exit"], [row["key"] for row in kept["named"]]) == (3, ["v000011"]), kept["all"]
    assert (kept["next"].endswith("--delete-orphans"), _toml(served)) == (True, PGVECTOR)
    assert bench.fake.world.embedded.total() - before == 2
    done = await _reembed(served, "--switch", "--delete-orphans")
    assert (done["exit"], "switched" in done) == (0, True), done["all"]
    assert set(await _space(bench, "new")) == {key for (key,) in await bench.database.run("select id from videos")}


async def test_a_dry_run_says_the_price_and_does_nothing(served: Shell, bench: Bench) -> None:
    """No space, no row of the ledger, no call."""
    requests = bench.fake.world.requests
    ended = await _vectorize(served, *LARGE, "--dry-run")
    assert (ended.code, "and nothing in the table" in ended.out, "60 pending" in ended.out) == (0, True, True), (
        ended.out
    )
    assert "every row of videos that space new (pgvector) does not have yet is embedded into it" in " ".join(
        ended.out.split()
    )
    assert (await _space(bench, "new"), bench.fake.world.requests) == ({}, requests)
    assert await bench.database.run("select 1 from catchup.targets where target like '%%@%%'") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("--reembed",), "--into NAMESPACE", id="no place"),
        pytest.param(("--into", "new"), "without --reembed", id="a place alone"),
        pytest.param((*LARGE, "--switch", "--limit", "5"), "part of it", id="a switch of a part"),
        pytest.param((*LARGE, "--edited"), "leave out", id="edited alone"),
        pytest.param(("--reembed", "--into", "old", "--model", "text-embedding-3-large"), "belongs", id="same place"),
        pytest.param(("--reembed", "--into", "new", "--model", "text-embedding-ada-002"), "1536", id="dimensions"),
    ],
)
async def test_what_is_not_meant_is_refused(served: Shell, bench: Bench, words: tuple[str, ...], said: str) -> None:
    """Exit 10 before anything is paid."""
    requests = bench.fake.world.requests
    ended = await _vectorize(served, *words)
    assert (ended.code, said in ended.err + ended.out) == (10, True), ended.err + ended.out
    assert bench.fake.world.requests == requests


async def test_a_column_is_refused_with_the_way_that_there_is(wired: Shell, bench: Bench) -> None:
    """The row has one such column, and it serves."""
    await bench.database.run("create extension if not exists vector; alter table videos add column v vector(512)")
    (wired.directory / "catchup.toml").write_text(
        '[targets.inside]\njob = "vectorize"\ntable = "videos"\nkey = ["id"]\nread = ["title"]\n'
        'cells = { v = "answer" }\npending = ["v is null"]\n'
        'model = "text-embedding-3-small"\nstore = "column"\ndimensions = 512\n'
    )
    ended = await wired.run("vectorize", "--target", "inside", *LARGE)
    assert (ended.code, "second column" in ended.err) == (10, True), ended.err


async def test_a_file_that_cannot_be_written_switches_nothing(wired: Shell, bench: Bench) -> None:
    """Found out before the run, so before anything is paid."""
    await _summarise(bench, 5)
    (wired.directory / "catchup.toml").symlink_to("not-mounted/catchup.toml")
    ended = await _vectorize(wired, *LARGE, "--switch", "--store", "pgvector")
    assert (ended.code, "cannot be written" in " ".join(ended.err.split())) == (10, True), ended.err
    assert (await _space(bench, "new"), bench.fake.world.requests) == ({}, 0)


async def test_a_switch_cut_off_before_the_file_is_finished_unpaid(served: Shell, bench: Bench) -> None:
    """A kill between ledger and file: the old place is not written to any more, and the same command does the rest."""
    await _reembed(served)
    ended = await _vectorize(served, *LARGE, "--switch", CATCHUP_FAULTS="switch.ledger:1:kill")
    assert (ended.code, _toml(served)) == (-9, PGVECTOR)
    ended = await _vectorize(served)
    assert (ended.code, "--reembed --into" in ended.out) == (10, True), ended.out
    requests = bench.fake.world.requests
    told = await _reembed(served)
    assert (told["exit"], told["next"].endswith("--switch")) == (10, True), told["all"]
    done = await _reembed(served, "--switch")
    assert (done["exit"], bench.fake.world.requests) == (0, requests), done["all"]
    assert (await _vectorize(served)).code == 0
    assert (await _difference(served))["good"] == 60


async def test_pinecone_is_switched_the_same_way(wired: Shell, bench: Bench, fake_pinecone: FakePinecone) -> None:
    """In one index, whose dimension stays; catchup.toml is made where there was none. The second time over REST."""
    await _summarise(bench, 40)
    fake_pinecone.configure(dimension=512, lag_s=0.2)
    fake_pinecone.reset()
    wired.env |= {
        "PINECONE_API_KEY": fake_pinecone.settings.key or "pcsk_test",
        "PINECONE_INDEX_HOST": fake_pinecone.url,
    }
    assert (await _vectorize(wired, "--create-namespace")).code == 0
    requests = bench.fake.world.requests
    refused = await _reembed(wired)
    assert (refused["exit"], "holds 512 dimensions" in refused["headline"]) == (10, True), refused["all"]
    assert bench.fake.world.requests == requests
    assert list(next(iter(fake_pinecone.indexes.values())).namespaces) == ["", "llm-summaries"]
    by_grpc = fake_pinecone.requests["upsert"]
    wired.env["PINECONE_GRPC"] = "off"
    switched = await _reembed(wired, "--dimensions", "512", "--switch")
    assert switched["exit"] == 0, switched["all"]
    assert tomllib.loads(_toml(wired)) == {"targets": {"summaries": switched["switched"]}}
    old, new = fake_pinecone.vectors("llm-summaries"), fake_pinecone.vectors("new")
    assert (len(old), set(old)) == (40, set(new))
    await _vectorize(wired)
    found = await _difference(wired)
    assert (found["good"], found["exit"]) == (40, 0)
    assert fake_pinecone.requests["upsert"] > by_grpc == fake_pinecone.grpc_upserts > 0


@pytest.mark.parametrize(
    ("words", "host", "said"),
    [
        (("--index", "another"), True, "PINECONE_INDEX_HOST"),
        (("--index", "another", "--store", "pgvector"), False, "do not go to Pinecone"),
    ],
    ids=["an address of one index", "not in Pinecone"],
)
async def test_another_index_is_found_by_its_name(
    wired: Shell, bench: Bench, words: tuple[str, ...], host: bool, said: str
) -> None:
    """An address that is set would lead to the old one."""
    await _summarise(bench, 1)
    more = {"PINECONE_INDEX_HOST": "http://127.0.0.1:9"} if host else {}
    ended = await _vectorize(wired, *LARGE, *words, **more)
    assert (ended.code, said in ended.err + ended.out) == (10, True), ended.err + ended.out


VALUES: dict[str, str | int] = {"namespace": "new", "dimensions": 256}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '[targets.summaries]\nnamespace = "new"\ndimensions = 256\n'),
        (
            "# ours\n[limits]\ngrace = 3\n",
            '# ours\n[limits]\ngrace = 3\n\n[targets.summaries]\nnamespace = "new"\ndimensions = 256\n',
        ),
        (
            "[targets.summaries] # a\nnamespace = 'old' # b\n# c\n[targets.titles]\nindex = 'x'\n",
            "[targets.summaries] # a\nnamespace = \"new\" # b\n# c\ndimensions = 256\n[targets.titles]\nindex = 'x'\n",
        ),
        (
            "targets.summaries.namespace = 'old'\r\n",
            'targets.summaries.namespace = "new"\r\ntargets.summaries.dimensions = 256\r\n',
        ),
        (
            "[targets]\nsummaries = { namespace = 'old' }\n",
            '[targets]\nsummaries = { namespace = "new", dimensions = 256}\n',
        ),
        (
            "[targets.titles]\nindex = 'x'\n[limits]\ngrace = 3 # s\n[targets.summaries.chunks]\nkind = 'whole'\n",
            None,
        ),
    ],
    ids=["no file", "other tables", "comments", "dotted keys, CRLF", "inline", "tables apart"],
)
def test_only_the_keys_that_are_meant_change(before: str, after: str | None) -> None:
    """However the file is written, the rest of it stays byte for byte."""
    changed = change(before, "summaries", VALUES)
    wanted = tomllib.loads(before)
    wanted.setdefault("targets", {}).setdefault("summaries", {}).update(VALUES)
    assert tomllib.loads(changed) == wanted
    if after is None:
        assert [line for line in before.splitlines() if line not in changed.splitlines()] == []
    else:
        assert changed == after


def test_a_file_that_is_no_toml_is_left_alone() -> None:
    """The refusal says what to write by hand."""
    with pytest.raises(Misconfigured, match="could not be changed") as refusal:
        change("[targets\n", "summaries", VALUES)
    assert "namespace = 'new'" in refusal.value.fix


async def test_a_row_that_fails_every_time_holds_the_switch_up_until_that_is_accepted(
    served: Shell, bench: Bench
) -> None:
    """Never in silence: named, with the words that go over without it, and no more rows than were said."""
    bad = "update videos set llm_summary = '[[item:bad]] ' || id where id in ('v000004', 'v000005')"
    await bench.database.run(bad)
    bench.fake.script(rule("zero_one", on={"item": "bad"}))
    for _ in range(2):
        held = await _reembed(served, "--switch")
        assert (held["exit"], sorted(row["key"] for row in held["named"])) == (3, ["v000004", "v000005"]), held["all"]
        assert "--accept-missing 2" in held["fix"]
    too_few = await _reembed(served, "--switch", "--accept-missing", "1")
    assert (too_few["exit"], "switched" in too_few, _toml(served)) == (3, False, PGVECTOR), too_few["all"]
    done = await _reembed(served, "--switch", "--accept-missing", "2")
    assert (done["exit"], done["switched"]["namespace"]) == (3, "new"), done["all"]
    assert "2 rows failed and have none there" in done["headline"]
    assert sorted(row["key"] for row in done["named"]) == ["v000004", "v000005"]
    assert (await _difference(served))["missing"] == ["v000004", "v000005"]


async def test_what_is_lost_is_not_accepted_as_failed(served: Shell, bench: Bench) -> None:
    """The number is for rows that cannot be embedded: an orphan, or a vector that vanishes again, still holds it up."""
    await _reembed(served)
    await bench.database.run("delete from videos where id = 'v000011'")
    held = await _reembed(served, "--switch", "--accept-missing", "100")
    assert (held["exit"], "switched" in held, _toml(served)) == (3, False, PGVECTOR), held["all"]
    ended = await _vectorize(served, *LARGE, "--accept-missing", "3")
    assert (ended.code, "--switch" in ended.err) == (10, True), ended.err


async def test_another_index_is_made_filled_and_gone_over_to(
    wired: Shell, bench: Bench, fake_pinecone: FakePinecone
) -> None:
    """An index has one dimension: --index names the one that is to be, --create-index makes it; the old one stays."""
    await _summarise(bench, 30)
    fake_pinecone.configure(index="youtube-titles-prod", dimension=512, lag_s=0.1)
    fake_pinecone.reset()
    wired.env |= {
        "PINECONE_API_KEY": fake_pinecone.settings.key or "pcsk_test",
        "PINECONE_CONTROLLER_HOST": fake_pinecone.url,
    }
    ended = await _vectorize(wired, "--create-namespace")
    assert ended.code == 0, ended.out + ended.err
    refused = await _reembed(wired, "--index", "videos-256")
    assert (refused["exit"], "--create-index" in refused["fix"]) == (10, True), refused["all"]
    switched = await _reembed(wired, "--index", "videos-256", "--create-index", "--switch")
    assert switched["exit"] == 0, switched["all"]
    assert switched["switched"]["index"] == "videos-256"
    assert (fake_pinecone.indexes["videos-256"].dimension, len(fake_pinecone.vectors("new", "videos-256"))) == (256, 30)
    assert len(fake_pinecone.vectors("llm-summaries", "youtube-titles-prod")) == 30
    assert (await _vectorize(wired)).code == 0
    found = await _difference(wired)
    assert (found["exit"], found["good"]) == (0, 30)
    (way_back,) = [note for note in switched["notes"] if "The way back" in note]
    before = bench.fake.world.embedded.total()
    ended = await wired.run(*way_back.rpartition("catchup ")[2].split(), "--yes", "--db-load", "100%")
    assert (ended.code, bench.fake.world.embedded.total() - before) == (0, 0), ended.out + ended.err
    assert tomllib.loads(_toml(wired))["targets"]["summaries"]["index"] == "youtube-titles-prod"
