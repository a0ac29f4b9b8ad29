"""The short form of `make chaos` for submit-batch: one batch a chunk, no orphan, nothing paid twice by a kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.arena import open_arenas
from tests.chaos.batches import TELLTALES, Batches
from tests.chaos.controls import catch
from tests.chaos.report import Report
from tests.chaos.trials import Arena, Blow
from tests.servers.postgres import Server

SEED, ITEMS = 20, 40
POINTS = (
    "batch.planned:1", "batch.claimed:2", "batch.uploaded:1", "batch.file_saved:2", "batch.created:1",
    "batch.id_saved:2", "batch.fetched:1", "batch.part_imported:1", "write.before:3", "write.sent:3",
)  # fmt: skip


@pytest.fixture(scope="module")
def arena(postgres_server: Server) -> Iterator[Arena]:
    with open_arenas(postgres_server, Batches.job, ITEMS) as opened:
        yield opened[0]


def test_f1_a_kill_at_each_point_between_upload_and_write(arena: Arena) -> None:
    """F1, F38: the same command finishes the work; what was worked in a file is never paid again."""
    report = Report(Batches.job, SEED, ITEMS)
    report.findings = [arena.run(SEED, [Blow(faults=f"{point}:kill")]) for point in POINTS]
    print(report.show())
    assert report.broken == []
    assert report.numbers()["kills"] == len(POINTS)
    assert report.numbers()["repaid"] == 0


def test_f2_a_chain_of_kills_is_survived(arena: Arena) -> None:
    """F2: four in a row, in submission, in recovery and in collection."""
    chain = ("batch.claimed:1", "batch.created:1", "batch.fetched:1", "write.sent:1")
    finding = arena.run(SEED + 1, [Blow(faults=f"{point}:kill") for point in chain])
    assert finding.broken == []
    assert len(finding.kills) >= 3


@pytest.mark.parametrize("plant", ["created-without-looking", "uploaded-without-looking"])
def test_the_harness_is_not_blind(arena: Arena, plant: str) -> None:
    """A client that does not look for what it may have done is caught."""
    assert plant in TELLTALES
    assert catch(arena, plant, SEED).by
