"""The short form of `make chaos`: kills at the points of a whole run, signals, and the bugs it must not be blind to."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.chaos.arena import open_arenas
from tests.chaos.controls import catch, start_twice
from tests.chaos.report import Report
from tests.chaos.signals import judge_stops
from tests.chaos.summaries import TELLTALES, Summaries
from tests.chaos.trials import Arena, Blow, random_blow, some_points
from tests.servers.postgres import Server

SEED = 20
ITEMS = 40
STEP = 12  # of the points that come with every request; the rare ones are all taken


@pytest.fixture(scope="module")
def arena(postgres_server: Server) -> Iterator[Arena]:
    with open_arenas(postgres_server, Summaries.job, ITEMS) as (opened,):
        yield opened


def run(arena: Arena, seed: int, trials: list[list[Blow]]) -> Report:
    report = Report(arena.stage.job, seed, arena.items)
    report.findings = [arena.run(seed, blows) for blows in trials]
    print(report.show())
    return report


def test_a_kill_at_any_point_loses_nothing_and_pays_again_only_what_was_in_flight(arena: Arena) -> None:
    """Every rare point of the run and each twelfth of the others; the same command then finishes, and is free after."""
    points, _ = arena.reference(SEED)
    blows = some_points(points, STEP)
    print(f"{len(points)} points, killed at {len(blows)}: {', '.join(blow.faults for blow in blows)}")
    report = run(arena, SEED, [[blow] for blow in blows])
    assert report.broken == []
    # how many points of one name a run passes depends on how its steps fall together: on a busy machine one in eight
    assert report.numbers()["kills"] >= len(report.findings) * 7 / 8, "some points were not reached again"


def test_chains_of_kills_also_during_recovery_and_shutdown_are_survived(arena: Arena) -> None:
    """Three to five kills in a row, of every kind."""
    chance = random.Random(SEED)
    points, takes_s = arena.reference(SEED)
    chains = [[random_blow(chance, arena.requests, takes_s, len(points)) for _ in range(n)] for n in (3, 4, 5)]
    assert run(arena, SEED, chains).broken == []


def test_a_victim_started_as_an_operator_starts_it_dies_and_recovers_the_same(arena: Arena) -> None:
    """The forked victims of the other tests differ from a whole process in nothing that matters."""
    finding = arena.run(SEED, [Blow(arrivals=20, after_s=0.02)], whole=True)
    assert len(finding.kills) == 1
    assert finding.broken == []


def test_stop_means_stop_and_one_run_per_target(arena: Arena) -> None:
    """SIGINT, SIGTERM, the CI sequence, a double Ctrl-C; two starts at once; a zombie past its lease."""
    broken = {what: how for what, how in judge_stops(arena, SEED).items() if how}
    assert broken == {}


@pytest.mark.parametrize("plant", TELLTALES)
def test_a_planted_bug_is_caught(arena: Arena, plant: str) -> None:
    """A harness that cannot see these would prove nothing."""
    caught = catch(arena, plant, SEED)
    print(caught)
    assert caught.by


def test_two_starts_without_a_planted_bug_pay_once(arena: Arena) -> None:
    """What the control for locks sees is the planted bug, not the way it looks."""
    finding = start_twice(arena, SEED)
    assert sorted(map(str, finding.exits)) == ["11", "3"]
    assert not finding.repaid
