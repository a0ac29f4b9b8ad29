"""The short form of `make chaos` for --inline: no scene lost, and no flag before all of it is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.arena import open_arenas
from tests.chaos.controls import catch
from tests.chaos.describing import Describing
from tests.chaos.report import Report
from tests.chaos.trials import Arena, Blow
from tests.servers.postgres import Server

SEED, ITEMS = 11, 40
CHAINS = (("answer.received:7",), ("write.sent:2",), ("write.before:3", "answer.received:4"))


@pytest.fixture(scope="module")
def arena(postgres_server: Server) -> Iterator[Arena]:
    with open_arenas(postgres_server, Describing.job, ITEMS) as opened:
        yield opened[0]


def test_a_kill_anywhere_in_both_steps_loses_no_scene(arena: Arena) -> None:
    """Between call, journal and write, of scenes and of their video, and in a row."""
    report = Report(Describing.job, SEED, ITEMS)
    report.findings = [arena.run(SEED, [Blow(faults=f"{point}:kill") for point in chain]) for chain in CHAINS]
    print(report.show())
    assert report.broken == []
    assert report.numbers()["kills"] == 4


def test_a_flag_that_comes_too_early_is_caught(arena: Arena) -> None:
    """The video of a scene that was refused, summed up all the same."""
    assert catch(arena, "flagged-too-early", SEED).by
