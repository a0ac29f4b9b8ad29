"""Vectors against the texts of their rows, at the end and at every moment: missing, extra, mispaired, flagged early."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.judge import Finding, note
from tests.chaos.shelves import Move
from tests.chaos.world import Truth, World

Expect = Callable[[str, str | None], dict[str, str]]
DONE = ("eligible", "flaky", "kept", "shrunk", "grown", "unflagged")
EDITED = ("edited", "shortened")


def judge_space(
    finding: Finding, world: World, truth: Truth, expect: Expect, there: Mapping[str, str], *, edits_done: bool
) -> None:
    """Ids and vectors are exactly those of the rows that ought to have them, and the flags say so."""
    by_key = group(there)
    for key in by_key.keys() - world.kinds.keys():
        note(finding.extra, key)
    for key, kind in world.kinds.items():
        mine, flag = by_key.get(key, {}), truth.cells.get(key)
        if key not in truth.cells:  # the row was deleted while it was asked about: whose vectors those are, verify says
            continue
        if kind in ("empty", "refused"):
            _note_all(finding.extra, mine)
            if flag:
                note(finding.falsely_done, f"{key} ({kind})")
            continue
        if kind in EDITED and not edits_done and not flag:
            continue
        _compare(finding, expect(key, truth.sources[key]), mine)
        if not flag:
            note(finding.lost, f"{key} (no flag)")
        if key in truth.verdicts:
            note(finding.misnamed, f"{key} {truth.verdicts[key]}")


def _compare(finding: Finding, wanted: Mapping[str, str], mine: Mapping[str, str]) -> None:
    _note_all(finding.lost, wanted.keys() - mine.keys())
    _note_all(finding.extra, mine.keys() - wanted.keys())
    _note_all(finding.mispaired, (id_ for id_ in wanted.keys() & mine.keys() if wanted[id_] != mine[id_]))


def group(marks: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for id_, mark in marks.items():
        found.setdefault(key_of(id_), {})[id_] = mark
    return found


def key_of(id_: str) -> str:
    return id_.partition("#")[0]


@dataclass(frozen=True, slots=True)
class History:
    """`before`: the texts whose vectors were there when the trial began."""

    expect: Expect
    before: Mapping[str, str]
    moves: Sequence[Move]


def judge_flags(finding: Finding, world: World, truth: Truth, history: History) -> None:
    """At no moment a row's flag is true while a reader finds neither all of its old vectors nor all of its new."""
    events: dict[str, list[tuple[float, Move | dict[str, Any]]]] = {}
    for move in history.moves:
        events.setdefault(key_of(move.id), []).append((move.at, move))
    for change in truth.changes:
        events.setdefault(change["id"], []).append((change["at"].timestamp(), change))
    for key, mine in events.items():
        if key in truth.cells:
            _follow(finding, world, truth, history, key, sorted(mine, key=lambda event: event[0]))


def _follow(
    finding: Finding,
    world: World,
    truth: Truth,
    history: History,
    key: str,
    events: Sequence[tuple[float, Move | dict[str, Any]]],
) -> None:
    current = history.expect(key, truth.sources[key])
    old = history.expect(key, history.before.get(key))
    there, flag = dict(old), key in history.before and world.kinds[key] != "unflagged"
    for _, event in events:
        if isinstance(event, Move):
            there[event.id] = event.mark
            if not event.mark:
                del there[event.id]
        else:
            flag, old = event["new"] == "true", history.expect(key, event["source"])
            if flag and not old.items() <= there.items():
                note(finding.unbacked, f"{key} was flagged before its vectors were there")
        if flag and not old.keys() <= there.keys() and not current.items() <= there.items():
            note(finding.unbacked, f"{key} lost its vectors while its flag said it had them")


def _note_all(found: list[str], ids: Any) -> None:
    for id_ in ids:
        note(found, id_)
