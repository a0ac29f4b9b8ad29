"""The short form of `make chaos` for refresh-views: no video lost or asked twice without a kill, every unit booked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.arena import open_arenas
from tests.chaos.controls import catch
from tests.chaos.report import Report
from tests.chaos.trials import Arena, Blow
from tests.chaos.views import Counting
from tests.servers.postgres import Server

SEED = 11
ITEMS = 40
POINTS = ("page.read:1", "send.before:4", "answer.received:5", "write.before:1", "write.sent:2", "write.confirmed:1")


@pytest.fixture(scope="module")
def arena(postgres_server: Server) -> Iterator[Arena]:
    with open_arenas(postgres_server, Counting.job, ITEMS) as opened:
        yield opened[0]


def test_a_kill_between_units_answer_and_snapshot_loses_no_video(arena: Arena) -> None:
    """The same command completes; what was told once is not asked for again, beyond what was in flight."""
    report = Report(Counting.job, SEED, ITEMS)
    report.findings = [arena.run(SEED, [Blow(faults=f"{point}:kill")]) for point in POINTS]
    report.findings.append(arena.run(SEED, [Blow(faults="write.sent:2:kill"), Blow(faults="page.read:1:kill")]))
    print(report.show())
    assert report.broken == []
    assert report.numbers()["kills"] == len(POINTS) + 2


def test_kills_in_a_row_also_while_videos_get_their_times_are_survived(arena: Arena) -> None:
    """Three, at arrivals and during the recovery."""
    blows = [Blow(arrivals=3, after_s=0.01), Blow(faults="*:6:kill"), Blow(arrivals=2, after_s=0.0)]
    finding = arena.run(SEED + 1, blows)
    assert len(finding.kills) >= 2
    assert finding.broken == []


@pytest.mark.parametrize("plant", ["units-not-booked", "snapshots-left-out"])
def test_a_planted_bug_of_refresh_views_is_caught(arena: Arena, plant: str) -> None:
    """A harness that cannot see these would prove nothing; the other bugs are caught by `make chaos`."""
    caught = catch(arena, plant, SEED)
    print(caught)
    assert caught.by
