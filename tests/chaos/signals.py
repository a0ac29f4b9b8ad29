"""Stopping a run by signals (R1-R3) and starting it twice (R12), judged by the provider's own arrival log."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.trials import LIMIT_S, Arena
from tests.chaos.victim import Victim

# What a client had given to the kernel before the signal still arrives: a loopback takes less than this.
ON_THE_WIRE_S = 0.05


@dataclass(frozen=True, slots=True)
class Stopped:
    """One run stopped by signals, and the run that went on from there."""

    code: int | None
    took_s: float
    new_requests: int
    state: str
    after: int | None
    lost: int
    words: str


def stop(arena: Arena, seed: int, schedule: Sequence[tuple[float, int]], *, latency: float = 0.03) -> Stopped:
    """Sends the signals at these seconds after the first, which the provider sends in the middle of the run."""
    with arena.trial(seed, mischief=False) as (world, starter):
        arena.witness.configure(latency=latency)
        try:
            victim = starter.start()
            (_, first), *more = schedule
            arena.witness.strike(victim.pid, first, 1 if latency > 1 else arena.requests // 2, 0.0)
            at = _wait_for_strike(arena, victim)
            for after_s, number in more:
                victim.wait(max(0.0, at + after_s - time.monotonic()))
                victim.signal(number)
            code = victim.wait(LIMIT_S)
            took_s, words = victim.died_at - at, victim.words
            late = sum(each.at > at + ON_THE_WIRE_S for each in arena.witness.settled().requests)
            state = str(world.truth().runs[-1]["state"])
        finally:
            arena.witness.configure(latency=0.03)
        again = starter.start()
        after = again.wait(LIMIT_S)
        cells = world.truth().cells
        lost = sum(cells[key] is None for key in world.of("eligible"))
        return Stopped(code, took_s, late, state, after, lost, words + ("" if after in (0, 3) else again.words))


def _wait_for_strike(arena: Arena, victim: Victim) -> float:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until and victim.poll() is None:
        at = arena.witness.records().struck_at
        if at is not None:
            return at
        time.sleep(0.005)
    raise AssertionError(f"the run ended before its signal: {victim.code} {victim.words}")


@dataclass(frozen=True, slots=True)
class Contest:
    """Two starts within ten milliseconds."""

    codes: list[int | None]
    loser_took_s: float
    apart_s: float
    paid_twice: int
    words: str


def contest(arena: Arena, seed: int, *, whole: bool = False) -> Contest:
    with arena.trial(seed, mischief=False, whole=whole) as (world, starter):
        victims = [starter.start() for _ in range(2)]
        codes = [victim.wait(LIMIT_S) for victim in victims]
        losers = [victim.died_at - victim.started_at for victim in victims if victim.code == 11]
        paid: dict[str, int] = {}
        for each in arena.witness.settled().requests:
            paid[each.item] = paid.get(each.item, 0) + each.paid
        twice = sum(paid.get(key, 0) > 1 for key in world.of("eligible"))
        apart_s = abs(victims[1].started_at - victims[0].started_at)
        return Contest(codes, max(losers, default=0.0), apart_s, twice, "".join(victim.words for victim in victims))


@dataclass(frozen=True, slots=True)
class Zombie:
    """A holder stopped past its lease, a takeover from another home, and the holder's awakening."""

    takeover: int | None
    zombie: int | None
    writes_after_waking: int
    new_calls_after_waking: int
    lost: int
    words: str


def wake_a_zombie(arena: Arena, seed: int) -> Zombie:
    with arena.trial(seed, mischief=False) as (world, starter):
        holder = starter.start(plant="short-lease")
        arena.witness.strike(holder.pid, signal.SIGSTOP, arena.requests // 2, 0.0)
        _wait_for_strike(arena, holder)
        time.sleep(0.1)
        # lines of a batch are requests of nobody's: of those it sends, none is on its way
        sent = max(0, holder.points.count("send.before") - len(arena.witness.records().requests))
        time.sleep(2.3)  # the planted lease of two seconds runs out by the database's clock
        other = starter.start(
            plant="short-lease", more=["--abandon-journal"], CATCHUP_STATE_DIR=str(starter.folder / "elsewhere")
        )
        takeover = other.wait(LIMIT_S)
        before, calls = len(world.truth().changes), len(arena.witness.records().requests)
        holder.signal(signal.SIGCONT)
        code = holder.wait(LIMIT_S)
        holder.end()
        truth = world.truth()
        lost = sum(truth.cells[key] is None for key in world.of("eligible"))
        # what it had begun to send when it was stopped still goes out when it wakes: no check can come after the last
        calls = max(0, len(arena.witness.settled().requests) - calls - sent)
        return Zombie(takeover, code, len(truth.changes) - before, calls, lost, other.words + holder.words)


def judge_stops(arena: Arena, seed: int) -> dict[str, str]:
    """Each promise of R1-R3 and R12 with how it was broken; empty when it was kept."""
    slow = 20.0  # an answer that no grace waits for
    ci = [(0.0, signal.SIGINT), (7.5, signal.SIGTERM), (10.0, signal.SIGKILL)]
    double = [(0.0, signal.SIGINT), (0.2, signal.SIGINT)]
    said = {
        "SIGINT": _judge_stop(stop(arena, seed, [(0.0, signal.SIGINT)]), 130, 7.0),
        "SIGTERM": _judge_stop(stop(arena, seed, [(0.0, signal.SIGTERM)]), 143, 7.0),
        "CI sequence, hung calls": _judge_stop(stop(arena, seed, ci, latency=slow), 130, 7.0),
        "double SIGINT, hung calls": _judge_stop(stop(arena, seed, double, latency=slow), 130, 1.0),
    }
    said["two starts at once"] = _judge_contests(arena, seed)
    zombie = wake_a_zombie(arena, seed)
    kept = zombie.takeover in (0, 3) and zombie.zombie == 11 and not zombie.writes_after_waking and not zombie.lost
    said["zombie past its lease"] = "" if kept and not zombie.new_calls_after_waking else f"{zombie}"
    return said


def _judge_contests(arena: Arena, seed: int) -> str:
    """Every one must be fair. That the loser is out in a second is said of the tool, and other work only adds to it:
    where it took longer, it is tried twice more."""
    for _ in range(3):
        two = contest(arena, seed)
        is_fair = sorted(map(str, two.codes)) == ["11", "3"] and not two.paid_twice
        if not is_fair or two.loser_took_s < 1:
            break
    return "" if is_fair and two.loser_took_s < 1 else f"{two}"


def _judge_stop(stopped: Stopped, code: int, within_s: float) -> str:
    broken = []
    if stopped.code != code:
        broken.append(f"exit {stopped.code}, not {code}")
    if stopped.took_s > within_s:
        broken.append(f"it took {stopped.took_s:.1f} s")
    if stopped.new_requests:
        broken.append(f"{stopped.new_requests} new requests after the signal")
    if stopped.after not in (0, 3) or stopped.lost:
        broken.append(f"the same command then exited {stopped.after} with {stopped.lost} lost")
    return "; ".join(broken) + (f"\n{stopped.words}" if broken else "")
