"""reprocess-videos and other people's workers: unmodified, written as their documentation shows."""

from __future__ import annotations

import asyncio
from pathlib import Path

from jobs.engine.verdict import Exit
from tests.servers.message_bench import Broker, MessageBench, running_worker, wait_for_lines


async def test_an_unmodified_worker_receives_exactly_the_selected_ids(
    message_bench: MessageBench, any_broker: Broker, tmp_path: Path
) -> None:
    """Every READY video without rich semantics arrives at the library's own worker, once, and no other."""
    wanted = await message_bench.fill(25)
    for status, rich in (("READY", True), ("PROCESSING", False), ("FAILED", False), ("PENDING", None)):
        await message_bench.fill(5, status=status, rich=rich)
    verdict = await message_bench.send(any_broker)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 25)
    async with running_worker(any_broker, tmp_path) as received:
        await wait_for_lines(received, 25)
        await asyncio.sleep(0.3)  # were there more, they would follow at once
        assert sorted(received.read_text().split()) == wanted
