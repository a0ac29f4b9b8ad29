"""What migrate, doctor and init say about vectors: read as an operator reads it."""

from __future__ import annotations

import json
import tomllib

import pytest

from cli.settings import load
from jobs.default_targets import SUMMARIES
from jobs.targets import Target
from tests.servers.lite import StartPostgrest
from tests.servers.postgres import Database
from tests.servers.shell import Shell
from tests.test_cli_targets import NOTES, read, toml

PINECONE = "pcsk_test_sentinel"
NOTES_TABLE = """
create table notes (id text primary key, title text, body text, likes bigint, is_embedded boolean, embedding {vector});
create table transcripts (id bigint primary key, segments jsonb, is_embedded boolean);
"""
HERE = NOTES | {"store": "pgvector", "index": None}
ROW = HERE | {"store": "column", "cells": {"embedding": "answer"}, "pending": ["embedding is null"], "dimensions": 3}
SPOKEN = NOTES | {"table": "transcripts", "read": ["segments"], "chunks": {"kind": "segments"}}
FOUR = {"here": HERE, "row": ROW, "away": NOTES, "spoken": SPOKEN}


def words(text: str) -> str:
    """Without the line breaks of the screen."""
    return " ".join(text.split())


async def equip(shell: Shell, database: Database, *, extension: bool, **tables: dict[str, object]) -> None:
    """The notes' database, and a catchup.toml with these targets."""
    if extension:
        if not await database.run("select 1 from pg_available_extensions where name = 'vector'"):
            pytest.skip("this PostgreSQL has no pgvector")
        await database.run("create schema extensions; create extension vector schema extensions")
    await database.run(NOTES_TABLE.format(vector="extensions.vector(3)" if extension else "text"))
    text = "".join(toml(name, {k: v for k, v in table.items() if v is not None}) for name, table in tables.items())
    (shell.directory / "catchup.toml").write_text(text)
    shell.env |= {"DATABASE_URL": database.dsn}


async def test_migrate_registers_all_four_kinds_and_says_where_vectors_go(shell: Shell, database: Database) -> None:
    """The cells, the place, the index for flags; nothing about a key that migrate does not need."""
    await equip(shell, database, extension=True, **FOUR)
    ended = await shell.run("migrate")
    assert ended.code == 0, ended.err
    said = words(ended.out)
    for part in (
        "here: may write is_embedded; vectors go to space here of this database (pgvector)",
        "row: may write embedding; vectors go to column embedding of the row itself",
        "away: may write is_embedded; vectors go to Pinecone index notes-prod, namespace __default__",
        '"public"."notes" ("id") where "is_embedded" is not true',
        '"public"."notes" ("id") where "embedding" is null',
    ):
        assert part in said, said
    assert "PINECONE" not in said
    assert said.count("create index") == 3, "two targets of one flag share an index"
    cells = await database.run("select target, cell from catchup.cells order by target")
    assert cells == [("away", "is_embedded"), ("here", "is_embedded"), ("row", "embedding"), ("spoken", "is_embedded")]


async def test_migrate_suggests_no_index_that_is_there(shell: Shell, database: Database) -> None:
    """By what it covers, whatever its name."""
    await equip(shell, database, extension=False, here=HERE)
    await database.run("create index mine on notes (id) where is_embedded is not true")
    ended = await shell.run("migrate", "--json")
    assert json.loads(ended.out)["indexes"] == []


async def test_a_missing_extension_is_named_and_never_made(shell: Shell, database: Database) -> None:
    """Whose database it is decides on extensions; once for all targets that need it."""
    await equip(shell, database, extension=False, here=HERE, there=HERE | {"namespace": "other"})
    ended = await shell.run("migrate")
    assert "here, there: the database does not have the extension pgvector; run `create extension vector`" in words(
        ended.out
    )
    assert await database.run("select 1 from pg_extension where extname = 'vector'") == []


async def test_printed_sql_holds_extension_and_indexes_as_comments(shell: Shell, database: Database) -> None:
    """The text runs as it stands in an editor that opens a transaction, and makes neither."""
    await equip(shell, database, extension=False, here=HERE)
    printed = await shell.run("migrate", "--print", "--worker")
    comments = [line for line in printed.out.splitlines() if line.startswith("-- ")]
    assert any("create extension vector;" in line for line in comments)
    assert any('where "is_embedded" is not true;' in line for line in comments)
    await database.run(printed.out)
    assert await database.run("select 1 from pg_extension where extname = 'vector'") == []
    assert (await shell.run("migrate", "--check")).code == 0


async def test_the_worker_may_change_the_flag_and_nothing_else(shell: Shell, database: Database) -> None:
    """A vectorize target's grants: what it reads, what it keeps beside a vector, and its cell."""
    await equip(shell, database, extension=False, here=HERE | {"metadata": {"likes": "likes"}})
    assert (await shell.run("migrate", "--worker")).code == 0
    asked = "select has_column_privilege('catchup_worker', 'notes', %s, %s)"
    granted = {
        (column, verb): (await database.run(asked, [column, verb]))[0][0]
        for column in ("body", "likes", "title", "is_embedded")
        for verb in ("select", "update")
    }
    assert [pair for pair, yes in granted.items() if yes] == [
        *(("body", "select"), ("likes", "select"), ("is_embedded", "select"), ("is_embedded", "update"))
    ]


async def test_two_targets_of_one_table_are_still_the_least_privilege(shell: Shell, database: Database) -> None:
    """The worker may write the cells of both; a column that no target declares makes it more than a worker."""
    await equip(shell, database, extension=False, here=HERE, likes=HERE | {"cells": {"likes": "now"}})
    assert (await shell.run("migrate", "--worker")).code == 0
    as_worker = {"DATABASE_URL": database.dsn_as("catchup_worker")}
    assert words((await shell.run("doctor", **as_worker)).out).count("this role can update nothing else") == 2
    await database.run("grant update (title) on notes to catchup_worker")
    assert "this role can update nothing else" not in words((await shell.run("doctor", **as_worker)).out)


async def test_doctor_says_where_vectors_go_and_what_search_lacks(shell: Shell, database: Database) -> None:
    """Place, model, dimensions and the statement of the HNSW index, for each kind of place."""
    await equip(shell, database, extension=True, **FOUR)
    await shell.run("migrate")
    ended = await shell.run("doctor", PINECONE_API_KEY=PINECONE)
    said = words(ended.out)
    for part in (
        "vectors go to Pinecone index notes-prod, namespace __default__: text-embedding-3-small, 512 dimensions",
        "a Pinecone key is set; its host is asked for by the index's name (PINECONE_INDEX_HOST is not set)",
        "the space is not there yet: `catchup vectorize --target here --create-namespace` makes it",
        "vectors go to column embedding of the row itself: text-embedding-3-small, 3 dimensions",
        "no HNSW index: search reads every vector. After the bulk load: `catchup index row`",
        "the ledger knows of no vectors there yet",
    ):
        assert part in said, said
    assert ended.code == 0, said
    assert PINECONE not in ended.out + ended.err


async def test_doctor_finds_the_index_and_the_model_that_are_there(shell: Shell, database: Database) -> None:
    """The ledger remembers whose vectors a place holds; another model there is exit 10 before it is tried."""
    await equip(shell, database, extension=True, row=ROW)
    await shell.run("migrate")
    await database.run("create index on notes using hnsw (embedding extensions.vector_cosine_ops)")
    claimed = "select public.catchup_claim_place(%s)"
    place = {"place": "column public.notes.embedding", "model": "ada", "dimensions": 3, "target": "old"}
    await database.run(claimed, [json.dumps([place])])
    ended = await shell.run("doctor")
    assert "an HNSW index serves search" in words(ended.out)
    assert "vectors of ada, 3 dimensions, first by old; the target would add others and is refused" in words(ended.out)
    assert ended.code == 10


async def test_doctor_over_rest_prints_the_statement_of_the_index(
    shell: Shell, database: Database, start_postgrest: StartPostgrest
) -> None:
    """There every statement ends after seconds, so the command could not build it."""
    await equip(shell, database, extension=True, row=ROW)
    await shell.run("migrate")
    await database.run("grant all on notes to service_role")
    rest = await start_postgrest(database)
    del shell.env["DATABASE_URL"]
    shell.env |= {"SUPABASE_URL": rest.url, "SUPABASE_SERVICE_ROLE_KEY": rest.secret_key}
    ended = await shell.run("doctor")
    assert "over psql, set statement_timeout = 0; create index" in words(ended.out), ended.out
    assert ended.code == 0


async def test_doctor_says_where_no_index_is_possible(shell: Shell, database: Database) -> None:
    """A column without dimensions takes any vector, and HNSW none of them."""
    await equip(shell, database, extension=True, row=ROW)
    await database.run("alter table notes alter column embedding type extensions.vector")
    await shell.run("migrate")
    assert "none is possible: column embedding of public.notes has no fixed dimension" in words(
        (await shell.run("doctor")).out
    )


@pytest.mark.parametrize(
    ("extension", "changes", "said"),
    [
        pytest.param(False, {}, "PINECONE_API_KEY is not set: this target cannot run", id="no key"),
        pytest.param(False, HERE, "does not have the extension pgvector", id="no extension"),
        pytest.param(True, ROW | {"dimensions": 4}, "holds 3 dimensions, the target makes 4", id="dimensions"),
        pytest.param(
            True, ROW | {"cells": {"title": "answer"}}, "title of public.notes is text, not vector", id="no vector"
        ),
    ],
)
async def test_doctor_exits_10_where_a_target_of_ones_own_cannot_run(
    shell: Shell, database: Database, extension: bool, changes: dict[str, object], said: str
) -> None:
    """Found here, it is not found by cron at night."""
    await equip(shell, database, extension=extension, notes=NOTES | changes)
    await shell.run("migrate")
    ended = await shell.run("doctor")
    assert said in words(ended.out)
    assert ended.code == 10


async def test_doctor_excuses_a_default_target_while_another_can_run(shell: Shell, database: Database) -> None:
    """`summaries` fits every table of videos; who only wants sentences needs no Pinecone."""
    await database.load("videos.sql")
    shell.env |= {"DATABASE_URL": database.dsn}
    await shell.run("migrate")
    ended = await shell.run("doctor")
    assert "PINECONE_API_KEY is not set" in words(ended.out)
    assert ended.code == 0
    await database.run("alter table videos drop column llm_summary_model")
    assert (await shell.run("doctor")).code == 10, "nothing is left that could run"


async def test_doctor_sees_a_space_with_its_vectors(shell: Shell, database: Database) -> None:
    """How many, whether they fit, and which index they lack."""
    await equip(shell, database, extension=True, here=HERE | {"dimensions": 3})
    await shell.run("migrate")
    made = {"name": "here", "dimension": 3, "kind": "vector", "model": "m", "target": "here"}
    await database.run("select public.catchup_space_create(%s)", [json.dumps([made])])
    put = {"name": "here", "records": [["a", "[1,2,3]", {}]]}
    await database.run("select public.catchup_space_put(%s)", [json.dumps([put])])
    said = words((await shell.run("doctor")).out)
    assert "~1 vectors there" in said
    assert "`catchup index here`" in said
    (shell.directory / "catchup.toml").write_text(toml("here", {k: v for k, v in HERE.items() if v is not None}))
    ended = await shell.run("doctor")
    assert "the space holds 3 dimensions, the target makes 512" in words(ended.out)
    assert ended.code == 10


DRAFTS = """
create schema extensions; create extension vector schema extensions;
create table clips (id bigint primary key, title text, caption text, is_indexed boolean);
insert into clips select n, 'Clip ' || n, repeat('ships ', 20), null from generate_series(1, 400) n;
create table books (id bigint primary key, chapter text, cover_url text, done boolean);
insert into books
    select n, repeat('ships ', 5000), repeat('https://example.com/', 5000), null from generate_series(1, 9) n;
create table posts (id bigint primary key, body text, embedding extensions.vector(384));
insert into posts select n, repeat('ships ', 30) from generate_series(1, 20) n;
"""


def drafted(shell: Shell, name: str) -> Target:
    """The draft of this name, uncommented and read back."""
    text = (shell.directory / "catchup.toml").read_text()
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    begin = lines.index(f"[targets.{name}]")
    end = next((n for n in range(begin, len(lines)) if not lines[n]), len(lines))
    directory = shell.directory / "drafted"
    directory.mkdir(exist_ok=True)
    return read(directory, "\n".join(lines[begin:end]), name)


async def test_init_drafts_vectors_by_the_lengths_it_sees(shell: Shell, database: Database) -> None:
    """Short whole, long by paragraphs and with the large model, a vector column with its own dimensions."""
    if not await database.run("select 1 from pg_available_extensions where name = 'vector'"):
        pytest.skip("this PostgreSQL has no pgvector")
    await database.run(DRAFTS)
    ended = await shell.run("init", DATABASE_URL=database.dsn)
    assert "uncomment a target in catchup.toml" in words(ended.out)
    facts = []
    for name in ("clips-vectors", "books-vectors", "posts-vectors"):
        target = drafted(shell, name)
        assert target.embedding is not None
        kind = target.embedding.chunking.kind
        facts.append((target.text, target.model, kind, target.embedding.into, target.embedding.dimensions))
    assert facts == [
        (("caption",), "text-embedding-3-small", "whole", "pgvector", 512),
        (("chapter",), "text-embedding-3-large", "paragraphs", "pgvector", 512),
        (("body",), "text-embedding-3-small", "whole", "column", 384),
    ]
    assert drafted(shell, "clips-vectors").cells == {"is_indexed": "true"}
    text = (shell.directory / "catchup.toml").read_text()
    assert "in 300 rows about 30 tokens on average" in text
    assert 'first: alter table "public"."books" add column chapter_embedded boolean;' in text
    assert list(tomllib.loads(text)) == ["limits"], "a draft is a comment until somebody says so"


async def test_init_drafts_segments_for_a_transcript_and_asks_for_the_index(shell: Shell, database: Database) -> None:
    """With a Pinecone key; the index has to be named before the draft is taken."""
    await database.run("create table talks (id bigint primary key, title text, segments jsonb)")
    await shell.run("init", DATABASE_URL=database.dsn, PINECONE_API_KEY=PINECONE)
    text = (shell.directory / "catchup.toml").read_text()
    assert 'kind = "segments"' in text
    assert 'index = "NAME-IT"' in text
    assert PINECONE not in text
    assert load({}, shell.directory).pinecone_api_key is not None, ".env keeps it"


async def test_init_says_what_to_do_where_nothing_could_be_drafted(shell: Shell, database: Database) -> None:
    """It names the page, not a table that the file lacks; and a name that is no plain one drafts nothing."""
    await database.run('create table "a\nb" (id bigint primary key, body text)')
    await database.run("""insert into "a\nb" select n, repeat('ships ', 20) from generate_series(1, 5) n""")
    ended = await shell.run("init", DATABASE_URL=database.dsn)
    assert "describe a target in catchup.toml (docs/targets.md), then catchup migrate" in words(ended.out)
    assert "[targets" not in (shell.directory / "catchup.toml").read_text()


async def test_a_table_that_a_default_target_is_about_is_drafted_once(shell: Shell, database: Database) -> None:
    """`summaries` fits videos: its lines are there to change, and no second target for the same text."""
    await database.load("videos.sql")
    await database.run(
        "insert into videos (id, title, channel_id, description) "
        "select n::text, 'Title', 'c', repeat('ships ', 50) from generate_series(1, 5) n"
    )
    await shell.run("init", DATABASE_URL=database.dsn)
    text = (shell.directory / "catchup.toml").read_text()
    assert "# [targets.summaries]" in text
    assert '# index = "youtube-titles-prod"' in text
    assert drafted(shell, "summaries") == SUMMARIES
    assert "videos-vectors" not in text
