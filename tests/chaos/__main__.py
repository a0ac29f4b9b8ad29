"""python -m tests.chaos: every point of a run, chains, random kills, signals and planted bugs, judged from outside."""

from __future__ import annotations

import argparse
import random
import sys

from tests.chaos.arena import open_arena
from tests.chaos.controls import TELLTALES, catch
from tests.chaos.report import Report
from tests.chaos.signals import judge_stops
from tests.chaos.trials import Arena, Blow, every_point, random_blow, some_points
from tests.servers.postgres import running_server

WHOLE_EVERY = 10  # so many trials to one whose victims are processes of their own from the first import on


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="random kills, beside the enumerated ones")
    parser.add_argument("--chains", type=int, default=20, help="chains of three to five kills")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--step", type=int, default=1, help="each so-many-th point only; 0 for none")
    return parser.parse_args()


def run_trials(arena: Arena, report: Report, options: argparse.Namespace) -> None:
    chance = random.Random(options.seed)
    points, takes_s = arena.reference(options.seed)
    print(f"seed {options.seed}: {len(points)} points in {takes_s:.2f} s when nothing disturbs {arena.items} rows")
    if options.step:
        for blow in every_point(points)[:: options.step]:
            judge(arena, report, options.seed, [blow])
        first = Blow(faults="write.sent:2:kill")
        for blow in some_points(arena.recovery(options.seed, first), 5)[:: options.step]:
            judge(arena, report, options.seed, [first, blow])

    def any_blow() -> Blow:
        return random_blow(chance, arena.items, takes_s, len(points))

    for _ in range(options.chains):
        judge(arena, report, chance.randrange(1_000_000), [any_blow() for _ in range(chance.randint(3, 5))])
    goal = sum(len(finding.kills) for finding in report.findings) + options.kills
    while sum(len(finding.kills) for finding in report.findings) < goal:
        judge(arena, report, chance.randrange(1_000_000), [any_blow()])


def judge(arena: Arena, report: Report, seed: int, blows: list[Blow]) -> None:
    finding = arena.run(seed, blows, whole=len(report.findings) % WHOLE_EVERY == WHOLE_EVERY - 1)
    report.findings.append(finding)
    if finding.broken:
        print(f"BROKEN  seed {seed}, {finding.what}: {'; '.join(finding.broken)}\n{finding.words}", flush=True)
    elif sys.stdout.isatty() or len(report.findings) % 50 == 0:
        print(f"{len(report.findings)} trials, {len(report.broken)} broken", flush=True)


def main() -> int:
    options = read_options()
    report = Report(options.seed, options.items)
    with running_server() as server, open_arena(server, options.items) as arena:
        report.controls = [catch(arena, plant, options.seed) for plant in TELLTALES]
        report.stops = judge_stops(arena, options.seed)
        try:
            run_trials(arena, report, options)
        except KeyboardInterrupt:
            print("interrupted: what was tried so far")
    print(report.show())
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
