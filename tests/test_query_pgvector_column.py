"""A vector in the user's own row, over both roads: what the column is, the guarded write of it, the nearest rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from queries.errors import DataRejected, Misconfigured
from queries.ledger import Ledger
from queries.migrations import Registration
from queries.table import Condition, TableSpec
from queries.vector_column import VectorColumn, as_text, column_facts, column_query
from tests.servers.roads import World, batch_of, begin, filled, query_of
from tests.test_query_pgvector import install, packed

JOBS = Registration(
    "job-postings",
    TableSpec(
        table="jobs",
        key=("id",),
        read=("title", "company"),
        cells=("embedding",),
        pending=(Condition("embedding", "is null"), Condition("is_active", "is true")),
        filters=("company",),
        beside=("views",),
    ),
)
KINDS = ["vector", "halfvec"]


async def jobs(world: World, kind: str = "vector", rows: int = 3, *, worker: bool = False) -> Ledger:
    await install(world.database)
    await world.database.run(
        f"create table public.jobs (id int primary key, title text not null, company text not null, views int, "
        f"is_active boolean default true, embedding extensions.{kind}(3), secret text); "
        "grant all on public.jobs to service_role; "
        f"insert into jobs (id, title, company, views) select i, 'job ' || i, 'c' || i % 2, i "
        f"from generate_series(1, {rows}) i"
    )
    await world.database.migrate([JOBS], worker=worker)
    return await world.ledger()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_vector_cell_is_written_under_the_guard(world: World, kind: str) -> None:
    """In as text, stored as its type, the same text out: written once, told apart when edited, filled or ours."""
    ledger = await jobs(world, kind, rows=4)
    lease = await begin(ledger, JOBS)
    rows = await ledger.page(query_of(JOBS))
    text = as_text(packed(0.5, -0.25, 1))
    await world.database.run("update jobs set title = 'edited' where id = 2; update jobs set views = 99 where id = 1")
    await world.database.run("update jobs set embedding = '[9,9,9]' where id = 3")
    await world.database.run(f"update jobs set embedding = '{text}' where id = 4")
    written = await ledger.write(batch_of(JOBS, lease, [filled(row, text) for row in rows]))
    assert (written.wrote, written.changed) == (frozenset({0, 3}), {1: "edited", 2: "filled"})
    assert await ledger.read_back(JOBS.spec, [("1",)]) == {("1",): {"embedding": "[0.5,-0.25,1]"}}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_vector_is_replaced_only_if_it_is_still_the_old_one(world: World, kind: str) -> None:
    """`was` is the old vector as text, exact to the last bit."""
    ledger = await jobs(world, kind, rows=2)
    await world.database.run("update jobs set embedding = '[0.1,1e-5,3]'")
    spec = replace(JOBS.spec, pending=())
    target = Registration(JOBS.target, spec)
    lease = await begin(ledger, target)
    rows = await ledger.page(query_of(target))
    await world.database.run("update jobs set embedding = '[0.1,2e-5,3]' where id = 2")
    written = await ledger.write(batch_of(target, lease, [filled(row, "[1,2,3]") for row in rows]))
    assert (written.wrote, written.changed) == (frozenset({0}), {1: "filled"})


WRONG = [
    pytest.param("[1,2]", id="another-dimension"),
    pytest.param("[1,NaN,2]", id="not-a-number"),
    pytest.param("[1,2,3", id="cut-off"),
    pytest.param("", id="empty"),
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_no_such_vector_is_refused_whole(world: World, wrong: str) -> None:
    """DECISIONS 9: a data error, so the client bisects; nothing of the page is written."""
    ledger = await jobs(world)
    lease = await begin(ledger, JOBS)
    rows = await ledger.page(query_of(JOBS))
    texts = ["[1,2,3]", wrong, "[1,2,3]"]
    with pytest.raises(DataRejected):
        await ledger.write(batch_of(JOBS, lease, [filled(r, t) for r, t in zip(rows, texts, strict=True)]))
    assert await world.database.run("select count(embedding) from jobs") == [(0,)]


@pytest.mark.parametrize("kind", KINDS)
async def test_facts_say_type_dimension_and_index(world: World, kind: str) -> None:
    """From the catalogs; the index counts once it is valid."""
    ledger = await jobs(world, kind)
    facts = await column_facts(ledger.road, JOBS.spec, "embedding")
    assert facts == VectorColumn("public", "jobs", "embedding", kind, 3, "extensions", False)  # type: ignore[arg-type]
    await world.database.run(f"create index on jobs using hnsw (embedding extensions.{kind}_cosine_ops)")
    assert (await column_facts(ledger.road, JOBS.spec, "embedding")).hnsw
    await world.database.run(f"alter table jobs alter embedding type extensions.{kind}")
    assert (await column_facts(ledger.road, JOBS.spec, "embedding")).dimension is None


REFUSED = [
    pytest.param("embeding", {}, "no column embeding", id="mistyped-column"),
    pytest.param("title", {}, "is text, not vector", id="not-a-vector"),
    pytest.param("embedding", {"table": "job"}, "does not exist", id="mistyped-table"),
]


@pytest.mark.parametrize(("column", "changes", "words"), REFUSED)
async def test_a_column_that_is_none_is_refused_before_anything_is_paid(
    world: World, column: str, changes: dict[str, str], words: str
) -> None:
    """A table without the column, one of another type, no table."""
    ledger = await jobs(world)
    with pytest.raises(Misconfigured, match=words):
        await column_facts(ledger.road, replace(JOBS.spec, **changes), column)  # type: ignore[arg-type]


async def test_without_the_extension_a_column_cannot_be(world: World) -> None:
    """The message names the statement that puts it right."""
    await world.database.migrate()
    ledger = await world.ledger()
    with pytest.raises(Misconfigured) as refused:
        await column_facts(ledger.road, JOBS.spec, "embedding")
    assert "create extension vector" in refused.value.fix


@pytest.mark.parametrize("kind", KINDS)
async def test_the_nearest_rows_come_with_what_is_asked_for(world: World, kind: str) -> None:
    """Key, score and declared columns; filters in the column's type; rows without a vector are not there."""
    ledger = await jobs(world, kind, rows=5)
    await world.database.run(
        "update jobs set embedding = (array['[1,0,0]', '[1,1,0]', '[0,1,0]', '[-1,0,0]'])[id]::text::extensions."
        f"{kind} where id < 5"
    )
    asked = {"top": 3, "show": ("title", "views")}
    found = await column_query(ledger.road, JOBS.spec, "embedding", packed(1, 0, 0), **asked)  # type: ignore[arg-type]
    assert [(m.id, round(m.score, 3)) for m in found] == [("1", 1.0), ("2", 0.707), ("3", 0.0)]
    assert found[0].metadata == {"title": "job 1", "views": 1}
    where = (("company", "c0"),)
    few = await column_query(ledger.road, JOBS.spec, "embedding", packed(1, 0, 0), top=9, where=where)
    assert [m.id for m in few] == ["2", "4"]
    hostile = (("company", "'; drop table jobs; --"),)
    assert await column_query(ledger.road, JOBS.spec, "embedding", packed(1, 0, 0), top=9, where=hostile) == []


async def test_columns_the_target_does_not_declare_stay_unread(world: World) -> None:
    """Search shows what the target may read and nothing else of the row."""
    ledger = await jobs(world)
    for more in ({"show": ("secret",)}, {"where": (("secret", "x"),)}):
        with pytest.raises(Misconfigured, match="does not declare secret"):
            await column_query(ledger.road, JOBS.spec, "embedding", packed(1, 0, 0), top=1, **more)  # type: ignore[arg-type]


async def test_the_least_privilege_role_writes_and_searches(world: World) -> None:
    """Column rights suffice: the type's schema is open to it, the whole row is not."""
    if world.kind == "postgrest":
        pytest.skip("the stand-in knows one secret role")
    await jobs(world, worker=True)
    worker = await world.ledger("worker")
    lease = await begin(worker, JOBS)
    rows = await worker.page(query_of(JOBS))
    assert len((await worker.write(batch_of(JOBS, lease, [filled(row, "[1,2,3]") for row in rows]))).wrote) == 3
    [match] = await column_query(worker.road, JOBS.spec, "embedding", packed(1, 2, 3), top=1, show=("title",))
    assert round(match.score, 5) == 1.0
