"""All servers of the harness, up for as long as the block lasts; one arena for each stage of a job."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from tests.chaos.batches import Batches
from tests.chaos.describing import Describing
from tests.chaos.sending import Sending, open_with_redis
from tests.chaos.stage import Stage
from tests.chaos.summaries import Summaries
from tests.chaos.trials import Arena
from tests.chaos.vectors import open_stages
from tests.chaos.victim import run_nursery
from tests.chaos.views import Counting
from tests.chaos.witness import run_witness
from tests.chaos.working import Working
from tests.chaos.world import Worlds
from tests.servers.postgres import Server

JOBS: Mapping[str, Callable[[Path], AbstractContextManager[list[Stage]]]] = {
    "backfill-summaries": lambda _: nullcontext([Summaries()]),
    "vectorize": open_stages,
    "submit-batch": lambda _: nullcontext([Batches()]),
    "refresh-views": lambda _: nullcontext([Counting()]),
    "reprocess-videos": partial(open_with_redis, Sending),
    "inline": lambda _: nullcontext([Describing()]),
    "worker": partial(open_with_redis, Working),
}


@contextmanager
def open_arenas(server: Server, job: str, items: int) -> Iterator[list[Arena]]:
    folder = Path(tempfile.mkdtemp(prefix="catchup-chaos-"))
    vocabularies = folder / "vocabularies"
    try:
        with run_witness() as witness, run_nursery(vocabularies) as nursery, JOBS[job](vocabularies) as stages:
            arenas = [
                Arena(stage, Worlds(server, stage), witness, nursery, folder / str(n), items)
                for n, stage in enumerate(stages)
            ]
            try:
                for arena in arenas:
                    asyncio.run(arena.worlds.prepare())
                    arena.live_a_past()
                arenas[0].reference(0)  # the first run of a machine is slow: nothing is timed by it
                yield arenas
            finally:
                for arena in arenas:
                    arena.worlds.clear()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
