"""The short form of `make chaos` for reprocess-videos: no message or scene lost, one in doubt a kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.arena import open_arenas
from tests.chaos.controls import catch
from tests.chaos.describing import Describing
from tests.chaos.report import Report
from tests.chaos.sending import Sending
from tests.chaos.trials import Arena, Blow
from tests.servers.postgres import Server

SEED, ITEMS = 11, 40


@pytest.fixture(scope="module")
def sending(postgres_server: Server) -> Iterator[Arena]:
    with open_arenas(postgres_server, Sending.job, ITEMS) as opened:
        yield opened[0]


@pytest.fixture(scope="module")
def describing(postgres_server: Server) -> Iterator[Arena]:
    with open_arenas(postgres_server, Describing.job, ITEMS) as opened:
        yield opened[0]


def judge(arena: Arena, *chains: tuple[str, ...]) -> Report:
    report = Report(arena.stage.job, SEED, ITEMS)
    report.findings = [arena.run(SEED, [Blow(faults=f"{point}:kill") for point in chain]) for chain in chains]
    print(report.show())
    return report


def test_a_kill_around_a_message_leaves_that_one_in_doubt(sending: Arena) -> None:
    """Before it, between it and our note, after it; and in a row. The same command sends the rest, each once."""
    report = judge(
        sending, ("mq.before:9",), ("mq.published:20",), ("mq.confirmed:31",), ("mq.published:5", "mq.published:8")
    )
    assert report.broken == []
    assert report.numbers()["kills"] == 5


def test_a_kill_anywhere_in_both_steps_loses_no_scene(describing: Arena) -> None:
    """Between call, journal and write, of scenes and of their video; a flag is never there before all of it."""
    report = judge(describing, ("answer.received:7",), ("write.sent:2",), ("write.before:3", "answer.received:4"))
    assert report.broken == []
    assert report.numbers()["kills"] == 4


@pytest.mark.parametrize("plant", ["noted-before-sent", "sent-not-noted"])
def test_a_planted_bug_of_sending_is_caught(sending: Arena, plant: str) -> None:
    """A harness that cannot see these would prove nothing; the other bugs are caught by `make chaos`."""
    assert catch(sending, plant, SEED).by


def test_a_flag_that_comes_too_early_is_caught(describing: Arena) -> None:
    """The video of a scene that was refused, summed up all the same."""
    assert catch(describing, "flagged-too-early", SEED).by
