"""Whole runs over a real database and the real SDK: what the books say is what the database holds."""

from __future__ import annotations

from jobs.engine.verdict import Exit
from tests.servers.bench import Bench


async def test_every_pending_row_is_written_once_and_paid_once(bench: Bench) -> None:
    """The plain case: 120 rows, 120 calls, 120 texts."""
    await bench.fill(120)
    verdict = await bench.run()
    assert (verdict.exit, verdict.headline) == (Exit.DONE, "done")
    assert verdict.books.wrote == verdict.calls == 120
    assert all((await bench.cells()).values())
    assert set(bench.paid().values()) == {1}


async def test_the_same_command_right_after_success_makes_no_call(bench: Bench) -> None:
    """A re-run is free."""
    await bench.fill(30)
    await bench.run()
    verdict = await bench.run()
    assert (verdict.exit, verdict.calls, verdict.books.selected) == (Exit.DONE, 0, 0)
