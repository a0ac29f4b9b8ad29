"""One trial: kills, then the same command until it is done, then once more; each step judged from outside."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.judge import Finding, judge_claims, judge_money, witness_kill
from tests.chaos.stage import Stage
from tests.chaos.victim import Nursery, Starter, Victim
from tests.chaos.witness import Records, WitnessProcess
from tests.chaos.world import Truth, World, Worlds

LIMIT_S = 60.0  # for one start to end by itself


@dataclass(frozen=True, slots=True)
class Blow:
    """How one start dies: at a named point, or a moment after so many requests, or a moment after its start."""

    faults: str = ""
    arrivals: int = 0
    after_s: float = 0.0
    first: int = 0
    """A signal that comes before the kill: the kill then meets the shutdown."""

    def __str__(self) -> str:
        if self.faults:
            return self.faults
        said = f"{self.after_s * 1000:.0f} ms after " + (f"request {self.arrivals}" if self.arrivals else "the start")
        return f"{signal.Signals(self.first).name}, kill {said}" if self.first else said


@dataclass
class Arena:
    """The servers every trial shares, and where its files go."""

    stage: Stage
    worlds: Worlds
    witness: WitnessProcess
    nursery: Nursery
    folder: Path
    items: int = 40
    count: int = 0

    @property
    def requests(self) -> int:
        return self.stage.requests(self.items)

    @contextmanager
    def trial(
        self, seed: int, *, mischief: bool = True, garbled: bool = True, whole: bool = False
    ) -> Iterator[tuple[World, Starter]]:
        self.count += 1
        folder = self.folder / f"trial{self.count}"
        folder.mkdir(parents=True)
        with self.worlds.make(seed, self.items) as world:
            self.stage.prepare(world, self.witness, mischief=mischief, garbled=garbled)
            yield world, self._starter(world, folder, whole=whole)
        shutil.rmtree(folder)

    def live_a_past(self) -> None:
        """What an undisturbed run left behind before any trial."""
        world = self.worlds.past(self.items)
        if world.kinds:
            folder = self.folder / "past"
            folder.mkdir(parents=True)
            self.stage.prepare(world, self.witness, mischief=False, garbled=False)
            victim = self._starter(world, folder).start()
            if victim.wait(LIMIT_S) != 0:
                raise AssertionError(f"the run before all trials ended with {victim.code}: {victim.words}")
        self.worlds.close_the_past(world)

    def _starter(self, world: World, folder: Path, *, whole: bool = False) -> Starter:
        (folder / "catchup.toml").write_text(self.stage.settings())
        return Starter(self.nursery, folder, self._environment(world, folder), self.stage.words(), whole)

    def _environment(self, world: World, folder: Path) -> dict[str, str]:
        return self.stage.environment() | {
            "DATABASE_URL": world.dsn,
            "OPENAI_API_KEY": "sk-test-sentinel-0123456789",
            "OPENAI_BASE_URL": self.witness.url,
            "YOUTUBE_API_KEY": "AIza-sentinel-0123456789",
            "YOUTUBE_API_ENDPOINT": self.witness.url.removesuffix("/v1"),
            "CATCHUP_STATE_DIR": str(folder / "state"),
        }

    def reference(self, seed: int) -> tuple[list[str], float]:
        """An undisturbed run: the named points it passes in order, and how long it takes."""
        with self.trial(seed) as (_, starter):
            victim = starter.start()
            if victim.wait(LIMIT_S) not in (0, 3):
                raise AssertionError(f"the undisturbed run ended with {victim.code}: {victim.words}")
            return victim.points, victim.died_at - victim.started_at

    def recovery(self, seed: int, blow: Blow) -> list[str]:
        """The points that the run after this kill passes."""
        with self.trial(seed) as (_, starter):
            starter.start(faults=blow.faults).wait(LIMIT_S)
            victim = starter.start()
            victim.wait(LIMIT_S)
            return victim.points

    def run(
        self, seed: int, blows: Sequence[Blow], *, plant: str = "-", whole: bool = False, garbled: bool = True
    ) -> Finding:
        """The whole of section 6.1 for one seed and one chain of kills."""
        finding = Finding(seed, f"{self.stage.title}: {' | '.join(map(str, blows))}")
        with self.trial(seed, whole=whole, garbled=garbled) as (world, starter):
            for blow in blows:
                if not self._strike(finding, starter, blow, plant):
                    break
            self._recover(finding, world, starter, plant)
        return finding

    def _strike(self, finding: Finding, starter: Starter, blow: Blow, plant: str) -> bool:
        """False when the victim had finished before the blow fell."""
        before = self.witness.records()
        victim = starter.start(faults=blow.faults, plant=plant)
        if blow.faults:
            victim.wait(LIMIT_S)
        elif blow.arrivals:
            number, delay_s = (blow.first, 0.0) if blow.first else (signal.SIGKILL, blow.after_s)
            self.witness.strike(victim.pid, number, blow.arrivals, delay_s)
            if blow.first:
                self._shut_down(victim, blow.after_s)
            victim.wait(LIMIT_S)
        else:
            victim.wait(blow.after_s)
            victim.end()
        records = self.witness.settled()
        self.witness.disarm()
        self._note_recovery(finding, victim, len(before.requests))
        if victim.code != -signal.SIGKILL:
            if victim.code not in (0, 3, 130, 143):
                finding.exits.append(victim.code)
                finding.words = victim.words
            return victim.code not in (0, 3)
        at = records.struck_at if blow.arrivals and not blow.first and records.struck_at else victim.died_at
        finding.kills.append(witness_kill(at, victim.last_point, records, self.stage.units_most))
        return True

    def _shut_down(self, victim: Victim, after_s: float) -> None:
        until = time.monotonic() + LIMIT_S
        while victim.poll() is None and self.witness.records().struck_at is None and time.monotonic() < until:
            time.sleep(0.005)
        victim.wait(after_s)
        victim.end()

    def _recover(self, finding: Finding, world: World, starter: Starter, plant: str) -> None:
        """The same command until it is done; then for the rows edited meanwhile; then for nothing."""
        if not self._finish(finding, starter, plant):
            return
        records = self.witness.settled()
        self.judge_results(finding, world, world.truth(), records, edits_done=False)
        if finding.lost:
            return
        if not self._finish(finding, starter, plant):
            return
        before, calls = world.truth(), len(self.witness.records().requests)
        if not self._finish(finding, starter, plant):
            return
        truth, records = world.truth(), self.witness.settled()
        finding.again_calls = len(records.requests) - calls
        finding.again_writes = len(truth.changes) - len(before.changes)
        self.judge_results(finding, world, truth, records, edits_done=True)
        self.judge_money(finding, world, truth, records)

    def judge_results(
        self, finding: Finding, world: World, truth: Truth, records: Records, *, edits_done: bool
    ) -> None:
        self.stage.judge_results(finding, world, truth, records, edits_done=edits_done)
        judge_claims(finding, truth, self.stage.claimed(world, truth), self.stage.changed(world, truth))

    def judge_money(self, finding: Finding, world: World, truth: Truth, records: Records) -> None:
        judge_money(finding, truth, records, self.stage.asked_for(world, truth))

    def _finish(self, finding: Finding, starter: Starter, plant: str) -> bool:
        before = len(self.witness.records().requests)
        victim = starter.start(plant=plant)
        victim.wait(LIMIT_S)
        victim.end()
        self._note_recovery(finding, victim, before)
        finding.exits.append(victim.code)
        if victim.code not in (0, 3):
            finding.words = victim.words
            return False
        return True

    def _note_recovery(self, finding: Finding, victim: Victim, before: int) -> None:
        """From a restart after a kill to its first new paid call."""
        after = self.witness.records().requests[before:]
        if finding.kills and after:
            finding.recovery_s.append(after[0].at - victim.started_at)


def every_point(points: Sequence[str]) -> list[Blow]:
    """A kill at every named point of an undisturbed run, by its number in the run."""
    return [Blow(faults=f"*:{number}:kill") for number in range(1, len(points) + 1)]


def some_points(points: Sequence[str], step: int) -> list[Blow]:
    """Every occurrence of a rare point, and each step-th of those that come with every request."""
    seen: Counter[str] = Counter()
    usual = {name for name, times in Counter(points).items() if times > len(points) / 10}
    blows = []
    for number, name in enumerate(points, start=1):
        seen[name] += 1
        if name not in usual:
            blows.append(Blow(faults=f"{name}:{seen[name]}:kill"))
        elif number % step == 0:
            blows.append(Blow(faults=f"*:{number}:kill"))
    return blows


def random_blow(chance: random.Random, requests: int, takes_s: float, points: int) -> Blow:
    """Weighted to the running phase; now and then any time at all, a named point, or in the middle of a shutdown."""
    kind = chance.random() if requests else chance.uniform(0.70, 0.95)  # where nobody is asked nothing arrives
    if kind < 0.70:
        return Blow(arrivals=chance.randint(1, requests), after_s=chance.uniform(0.0, 0.08))
    if kind < 0.85:
        return Blow(after_s=chance.uniform(0.0, takes_s))
    if kind < 0.95:
        return Blow(faults=f"*:{chance.randint(1, points)}:kill")
    first = chance.choice((signal.SIGINT, signal.SIGTERM))
    return Blow(arrivals=chance.randint(1, requests), first=first, after_s=chance.uniform(0.0, 0.1))
