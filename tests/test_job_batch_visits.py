"""submit-batch from plan to filled rows, visit by visit, against a provider that answers when it likes."""

from __future__ import annotations

from cli.report import UNDER_WAY, verdict_lines
from jobs.engine.verdict import Exit
from tests.servers.batch_bench import BatchBench


async def test_one_visit_hands_in_and_the_next_one_collects(batch_bench: BatchBench) -> None:
    """One live canary, one file, one batch; then every row is written, once, and the run is over."""
    await batch_bench.fill(30)
    batch_bench.fake.batches.configure(working_s=3600.0)
    first = await batch_bench.visit()
    assert (first.exit, first.books.wrote, first.books.to_do, first.books.balance()) == (Exit.DONE, 1, 29, True), first
    assert "at the provider" in first.headline
    assert verdict_lines(first)[-1].text == UNDER_WAY, "and not that everything is written"
    batch_bench.fake.batches.advance(4000.0)
    second = await batch_bench.visit()
    assert (second.exit, second.books.wrote, second.books.to_do, second.books.balance()) == (Exit.DONE, 29, 0, True)
    assert all((await batch_bench.cells()).values())
    assert set(batch_bench.paid().values()) == {1}
    assert await batch_bench.out() == []
