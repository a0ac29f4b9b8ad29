"""python -m tests.chaos: every point of a run, chains, random kills, signals and planted bugs, judged from outside."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
from collections.abc import Sequence
from functools import partial

from tests.chaos.arena import JOBS, open_arenas
from tests.chaos.controls import catch
from tests.chaos.enqueued import try_enqueued
from tests.chaos.lies import try_seeds
from tests.chaos.report import Report
from tests.chaos.signals import judge_stops
from tests.chaos.trials import Arena, Blow, every_point, random_blow, some_points
from tests.servers.postgres import Server, running_server

WHOLE_EVERY = 10  # so many trials to one whose victims are processes of their own from the first import on


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=JOBS, action="append", help="one of them only; may be repeated")
    parser.add_argument("--kills", type=int, default=300, help="random kills, beside the enumerated ones")
    parser.add_argument("--chains", type=int, default=20, help="chains of three to five kills")
    parser.add_argument("--seed", type=int, help="the first one; any, and of --seeds 1, if left out")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--step", type=int, default=1, help="each so-many-th point only; 0 for none")
    parser.add_argument("--at", action="append", metavar="POINT", help="kill at this point only; may be repeated")
    parser.add_argument("--times", type=int, default=50, help="so often at each --at, every time in another world")
    parser.add_argument("--seeds", type=int, default=0, help="of submit-batch: so many worlds of a provider that lies")
    parser.add_argument("--enqueued", type=int, default=0, metavar="ROWS", help="of submit-batch: through 20M tokens")
    return parser.parse_args()


def run_job(job: str, options: argparse.Namespace, server: Server) -> Report:
    report = Report(job, options.seed, options.items)
    with open_arenas(server, job, options.items) as arenas:
        report.controls = [catch(arenas[0], plant, options.seed) for plant in arenas[0].stage.telltales]
        report.stops = judge_stops(arenas[0], options.seed) if arenas[0].stage.judges_stops else {}
        try:
            run_trials(arenas, report, options)
        except KeyboardInterrupt:
            print("interrupted: what was tried so far")
    return report


def run_trials(arenas: Sequence[Arena], report: Report, options: argparse.Namespace) -> None:
    """Every point in each of the job's settings; chains and random kills in all of them by turns."""
    chance = random.Random(options.seed)
    blows = {}
    for number, arena in enumerate(arenas):
        points, takes_s = arena.reference(options.seed)
        title = f"{report.job}, {arena.stage.title}"
        print(f"{title}: seed {options.seed}: {len(points)} points in {takes_s:.2f} s, {arena.items} rows undisturbed")
        if options.at:
            run_named_points(arena, report, options, points)
            continue
        blows[arena.stage.title] = partial(random_blow, chance, arena.requests, takes_s, len(points))
        if options.step:
            run_points(arena, report, options, points, number)
    if options.at:
        return
    turns = itertools.cycle(arenas)
    for arena in itertools.islice(turns, options.chains):
        any_blow = blows[arena.stage.title]
        judge(arena, report, chance.randrange(1_000_000), [any_blow() for _ in range(chance.randint(3, 5))])
    goal = sum(len(finding.kills) for finding in report.findings) + options.kills
    while sum(len(finding.kills) for finding in report.findings) < goal:
        arena = next(turns)
        judge(arena, report, chance.randrange(1_000_000), [blows[arena.stage.title]()])


def run_points(arena: Arena, report: Report, options: argparse.Namespace, points: Sequence[str], start: int) -> None:
    """The points of an undisturbed run, and some of those of a recovery; each setting begins with another one."""
    for blow in every_point(points)[start % options.step :: options.step]:
        judge(arena, report, options.seed, [blow])
    first = Blow(faults="write.sent:2:kill")
    for blow in some_points(arena.recovery(options.seed, first), 5)[start % options.step :: options.step]:
        judge(arena, report, options.seed, [first, blow])


def run_named_points(arena: Arena, report: Report, options: argparse.Namespace, points: Sequence[str]) -> None:
    """Each time in another world, and at another occurrence of the point."""
    for point in options.at:
        occurrences = max(1, points.count(point))
        for turn in range(options.times):
            judge(arena, report, options.seed + turn, [Blow(faults=f"{point}:{1 + turn % occurrences}:kill")])


def judge(arena: Arena, report: Report, seed: int, blows: list[Blow]) -> None:
    finding = arena.run(seed, blows, whole=len(report.findings) % WHOLE_EVERY == WHOLE_EVERY - 1)
    report.findings.append(finding)
    if finding.broken:
        print(f"BROKEN  seed {seed}, {finding.what}: {'; '.join(finding.broken)}\n{finding.words}", flush=True)
    elif sys.stdout.isatty() or len(report.findings) % 50 == 0:
        print(f"{len(report.findings)} trials, {len(report.broken)} broken", flush=True)


def main() -> int:
    options = read_options()
    if options.seeds:
        return asyncio.run(try_seeds(1 if options.seed is None else options.seed, options.seeds))
    if options.enqueued:
        return asyncio.run(try_enqueued(options.enqueued))
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    with running_server() as server:
        reports = [run_job(job, options, server) for job in options.job or JOBS]
    for report in reports:
        print(report.show())
    return 1 if any(report.broken for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
