"""Answers moved from one file to another as they stand: a vector is not worth reading and writing again for that.

All of it runs in a thread and holds no more than a megabyte at a time: gathered first, 25 MB took the run's memory up
by three times that and its loop out for a quarter of a second (2026-11-21).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from queries.table import Key

AT_ONCE = 1 << 20

_T = TypeVar("_T")


@dataclass(slots=True)
class Run:
    """Rows that stand one behind the other, with a comma between each two."""

    first: int
    end: int
    rows: list[tuple[Key, int]] = field(default_factory=list)


def find_runs(owed: Mapping[Key, tuple[int, int]]) -> list[Run]:
    runs: list[Run] = []
    for key, (start, size) in owed.items():
        if not runs or start != runs[-1].end + 1 or start + size - runs[-1].first > AT_ONCE:
            runs.append(Run(start, start))
        runs[-1].rows.append((key, size))
        runs[-1].end = start + size
    return runs


def move_rows(
    source: int, place: int, head: bytes, runs: Iterable[Run], wrap: Callable[[bytes], tuple[int, bytes | bytearray]]
) -> tuple[int, dict[Key, tuple[int, int]]]:
    """`wrap` makes a line of a run and says where in it the rows begin. Synced: how long it is, and where they are."""
    owed: dict[Key, tuple[int, int]] = {}
    end = _write(place, head, 0)
    for run in runs:
        begin, line = wrap(os.pread(source, run.end - run.first, run.first))
        at = end + begin
        for key, size in run.rows:
            owed[key] = (at, size)
            at += size + 1
        end = _write(place, line, end)
    os.fsync(place)
    return end, owed


async def follow(source: int, place: int, start: int, end_of: Callable[[], int], to: int) -> None:
    """What is written meanwhile. The last piece is moved at once: when this returns, nothing has come behind it."""
    while (end := end_of()) - start > AT_ONCE:
        await to_the_end(_move_part, source, place, (start, end), to)
        start, to = end, to + end - start
    _move_part(source, place, (start, end), to)


def _move_part(source: int, place: int, part: tuple[int, int], to: int) -> None:
    start, end = part
    while start < end:
        piece = os.pread(source, min(AT_ONCE, end - start), start)
        to = _write(place, piece, to)
        start += len(piece)


async def to_the_end(work: Callable[..., _T], *facts: Any) -> _T:
    """By a thread, which ends what it has begun whatever becomes of us: our files must not be closed under it."""
    done = asyncio.get_running_loop().run_in_executor(None, partial(work, *facts))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        while not done.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({done})
        raise


def _write(place: int, said: bytes | bytearray, at: int) -> int:
    left = memoryview(said)
    while left:
        wrote = os.pwrite(place, left, at)
        at += wrote
        left = left[wrote:]
    return at
