"""All servers of the harness, up for as long as the block lasts."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.trials import Arena
from tests.chaos.victim import run_nursery
from tests.chaos.witness import run_witness
from tests.chaos.world import Worlds
from tests.servers.postgres import Server


@contextmanager
def open_arena(server: Server, items: int) -> Iterator[Arena]:
    folder = Path(tempfile.mkdtemp(prefix="catchup-chaos-"))
    worlds = Worlds(server)
    try:
        with run_witness() as witness, run_nursery(folder / "vocabularies") as nursery:
            asyncio.run(worlds.prepare())
            arena = Arena(worlds, witness, nursery, folder, items)
            arena.reference(0)  # the first run of a machine is slow: nothing is timed by it
            yield arena
    finally:
        worlds.clear()
        shutil.rmtree(folder, ignore_errors=True)
