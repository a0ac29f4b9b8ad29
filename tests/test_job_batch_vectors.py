"""submit-batch for targets of vectorize: each row's vector in its place, whatever the file was like."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.engine.verdict import Exit, Verdict
from jobs.vectorize import JOB
from queries.dsn import DsnRoad
from queries.openai_embed import OpenAIEmbed
from tests.servers.batch_bench import LeapClock, visit
from tests.servers.bench import KEY
from tests.servers.fake_script import rule
from tests.servers.vector_bench import FLAG, VectorBench


async def hand_in(vectors: VectorBench, **options: Any) -> Verdict:
    """One visit for a target of vectorize."""
    road = DsnRoad(vectors.database.dsn)
    space = vectors.open_space(road, vectors.target)
    try:
        return await visit(
            vectors,
            road=road,
            job=JOB,
            service=OpenAIEmbed(KEY, vectors.fake.url, timeout_s=10.0),
            space=space,
            clock=LeapClock(),
            **{"tail_live": 0, **options},
        )
    finally:
        if space is not None:
            await space.close()


async def is_right(vectors: VectorBench) -> bool:
    """Every row that should have one has its own vector, and no other."""
    return await vectors.stored() == await vectors.expected()


async def test_vectors_of_a_batch_are_where_they_belong(everywhere: VectorBench) -> None:
    """In Pinecone, in pgvector, in a column: the same vectors as by the live road, each paid once."""
    await everywhere.fill(40)
    verdict = await hand_in(everywhere, requests_most=25)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 40), verdict
    assert await is_right(everywhere)
    assert set(everywhere.embedded().values()) == {1}
    assert len(everywhere.fake.batches.batches) == 2
    assert (await everywhere.run()).calls == 0


@pytest.mark.parametrize(
    "kind", ["drop_one", "empty_data", "null_one", "garbled_one", "nan_one", "zero_one", "short_one"]
)
async def test_f34_a_spoilt_line_pairs_no_vector_wrongly(vectors: VectorBench, kind: str) -> None:
    """O12 inside a file: asked once more, all rows done, nothing wrong stored."""
    await vectors.fill(40)
    vectors.fake.script(rule(kind, on={"share": 0.4, "attempts": 1}))
    for _ in range(3):
        verdict = await hand_in(vectors)
    assert verdict.exit is Exit.DONE, verdict
    assert await is_right(vectors)


async def test_f34_a_text_that_never_gets_a_vector_is_named_alone(vectors: VectorBench) -> None:
    """Its neighbours are done, and it is not asked for ever."""
    await vectors.fill(30)
    vectors.fake.script(rule("nan_one", on={"item": r"^v000(012|020)$"}))
    verdict = await hand_in(vectors)
    assert (verdict.exit, verdict.books.wrote, dict(verdict.books.failed)) == (Exit.SOME_NAMED, 28, {"not_finite": 2})


async def test_rows_edited_while_their_vectors_were_made_keep_none(vectors: VectorBench) -> None:
    """What was paid for an older text is booked, named as changed, and put nowhere."""
    await vectors.fill(20)
    vectors.fake.batches.configure(working_s=1_000.0)
    await hand_in(vectors)
    edit = "update videos set llm_summary = llm_summary || ' edited' where id in ('v000010', 'v000011')"
    await vectors.database.run(edit)
    vectors.fake.batches.advance(2_000.0)
    verdict = await hand_in(vectors)
    assert (verdict.exit, verdict.books.changed) == (Exit.SOME_NAMED, 2), verdict
    missing = set(await vectors.expected()) - set(await vectors.stored())
    assert missing == {vectors.embedding.id_of((f"v0000{n}",), 0) for n in (10, 11)}
    rows = await vectors.database.run("select spent_usd::float8 from catchup.runs")
    assert rows[0][0] == pytest.approx(vectors.fake.world.bill_usd)
    flagged = await vectors.database.run(f"select count(*) from videos where {FLAG}")
    assert flagged[0][0] == 18
