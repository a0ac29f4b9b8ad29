"""Negative controls: for each planted bug, trials until the judge sees it, and what it saw."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.chaos.judge import Finding
from tests.chaos.trials import LIMIT_S, Arena, Blow

TRIES = 5


@dataclass(frozen=True, slots=True)
class Caught:
    """`by` is empty when the harness was blind to the bug."""

    plant: str
    by: str
    trials: int


def catch(arena: Arena, plant: str, seed: int) -> Caught:
    chance = random.Random(f"{plant}{seed}")
    for trial in range(1, TRIES + 1):
        if plant == "no-lock":
            finding = start_twice(arena, seed + trial, plant)
        else:
            blow = (
                Blow(faults=arena.stage.blow_of(plant))
                if arena.stage.blow_of(plant)
                else Blow(arrivals=chance.randint(arena.requests // 2, arena.requests), after_s=0.02)
            )
            # what a garbled answer may have cost, booked at the worst, would hide what this bug leaves out
            finding = arena.run(seed + trial, [blow], plant=plant, garbled=plant != "booked-after-send")
        seen = [said for said in finding.broken if said.startswith(arena.stage.telltales[plant])]
        if seen:
            return Caught(plant, seen[0], trial)
    return Caught(plant, "", TRIES)


def start_twice(arena: Arena, seed: int, plant: str = "-") -> Finding:
    """Two starts of the same command at once, nobody killed: whatever is paid twice is paid without a reason."""
    finding = Finding(seed, "two starts at once")
    with arena.trial(seed, mischief=False) as (world, starter):
        victims = [starter.start(plant=plant) for _ in range(2)]
        finding.exits = [victim.wait(LIMIT_S) for victim in victims]
        records, truth = arena.witness.settled(), world.truth()
        arena.judge_results(finding, world, truth, records, edits_done=False)
        arena.judge_money(finding, world, truth, records)
        finding.words = "".join(victim.words for victim in victims if victim.code not in (0, 3, 11))
    return finding
