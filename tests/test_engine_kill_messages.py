"""The short form of `make chaos` for reprocess-videos: no message lost, and a kill leaves at most one in doubt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.arena import open_arenas
from tests.chaos.controls import catch
from tests.chaos.report import Report
from tests.chaos.sending import Sending
from tests.chaos.trials import Arena, Blow
from tests.servers.postgres import Server

SEED, ITEMS = 11, 40
CHAINS = (("mq.before:9",), ("mq.published:20",), ("mq.confirmed:31",), ("mq.published:5", "mq.published:8"))


@pytest.fixture(scope="module")
def arena(postgres_server: Server) -> Iterator[Arena]:
    with open_arenas(postgres_server, Sending.job, ITEMS) as opened:
        yield opened[0]


def test_a_kill_around_a_message_leaves_that_one_in_doubt(arena: Arena) -> None:
    """Before it, between it and our note, after it; and in a row. The same command sends the rest, each once."""
    report = Report(Sending.job, SEED, ITEMS)
    report.findings = [arena.run(SEED, [Blow(faults=f"{point}:kill") for point in chain]) for chain in CHAINS]
    print(report.show())
    assert report.broken == []
    assert report.numbers()["kills"] == 5


@pytest.mark.parametrize("plant", ["noted-before-sent", "sent-not-noted"])
def test_a_planted_bug_of_sending_is_caught(arena: Arena, plant: str) -> None:
    """A harness that cannot see these would prove nothing; the other bugs are caught by `make chaos`."""
    assert catch(arena, plant, SEED).by
