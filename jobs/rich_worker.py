"""One message of a queue: one video, both steps, and its status before and after. It may come any number of times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from jobs.engine.database import Database
from jobs.engine.stop import explain
from jobs.engine.verdict import Exit
from jobs.rich_steps import GOES_ON, Stepping, Totals
from queries.errors import CatchupError
from queries.video_status import Moved, VideoStatuses

WAITING, WORKING, FINISHED, FAILED = "PENDING", "PROCESSING", "READY", "FAILED"
_SOON_S = 5.0
_LONGEST_S = 60.0  # a lease of a dead worker's runs out within it
_ODD_MOST = 3  # internal faults in a row, until it is no video's fault


class Next(Enum):
    """What becomes of the message."""

    TAKEN = "taken"
    LATER = "later"
    GIVEN_BACK = "back"


@dataclass(frozen=True, slots=True)
class Processed:
    """`said` is what an operator reads of it."""

    next: Next
    said: str
    wait_s: float = 0.0
    totals: Totals | None = None


class VideoWorker:
    """`on_stop` is told once, with the exit code, when this process should take no more messages."""

    def __init__(
        self, stepping: Stepping, statuses: VideoStatuses, database: Database, on_stop: Callable[[Exit, str], None]
    ) -> None:
        self._stepping, self._statuses, self._database, self._on_stop = stepping, statuses, database, on_stop
        self._odd = 0

    async def process(self, video: str) -> Processed:
        """Raises nothing operational: whatever happens, the message has a next step."""
        if self._stepping.asked is not None:
            return Processed(Next.GIVEN_BACK, "not begun")
        try:
            return await self._process(video)
        except CatchupError as error:
            self._on_stop(explain(error).exit, error.what)
            return Processed(Next.GIVEN_BACK, error.what)

    async def _process(self, video: str) -> Processed:
        claim = await self._move(video, WORKING, (WAITING, FINISHED, FAILED, WORKING), unless_done=True)
        if claim.status is None:
            return Processed(Next.TAKEN, "no such video")
        if claim.done:
            await self._move(video, FINISHED, (WORKING,))
            return Processed(Next.TAKEN, "has its rich semantics already")
        if not claim.moved:
            return Processed(Next.TAKEN, f"left alone: its status is {claim.status}")
        await self._stepping.go((video,), only=video)
        return await self._conclude(video, claim.before or FINISHED, self._stepping.begin_anew())

    async def _conclude(self, video: str, before: str, totals: Totals) -> Processed:
        last = totals.last
        exit_ = last.exit if last is not None else Exit.SIGTERM
        self._odd = self._odd + 1 if exit_ == Exit.UNEXPECTED else 0
        if exit_ in GOES_ON:
            return await self._settle(video, totals)
        assert last is not None or self._stepping.asked is not None, "only a stop keeps a step from running"  # noqa: S101
        said = last.headline if last is not None else "stopped before it began"
        if exit_ == Exit.LEASE_HELD:  # another worker has it: redelivered, or sent twice
            held = float(last.facts.get("held_for_s") or _SOON_S) if last is not None else _SOON_S
            return Processed(Next.LATER, said, min(_LONGEST_S, held + 1), totals)
        if exit_ == Exit.UNEXPECTED and self._odd < _ODD_MOST:
            await self._move(video, FAILED, (WORKING,), said)
            return Processed(Next.TAKEN, said, totals=totals)
        await self._move(video, FINISHED if before == WORKING else before, (WORKING,))
        self._on_stop(exit_, said)
        return Processed(Next.GIVEN_BACK, said, totals=totals)

    async def _settle(self, video: str, totals: Totals) -> Processed:
        """Both steps went through; what was not written says why."""
        if totals.videos.wrote:
            await self._move(video, FINISHED, (WORKING,))
            return Processed(Next.TAKEN, f"done: {totals.scenes.wrote} scenes", totals=totals)
        if totals.scenes.changed or totals.scenes.gone or totals.videos.changed or totals.videos.gone:
            return Processed(Next.LATER, "edited meanwhile", _SOON_S, totals)
        why = why_not(totals)
        await self._move(video, FAILED, (WORKING,), why)
        return Processed(Next.TAKEN, f"failed: {why}", totals=totals)

    async def _move(
        self, video: str, to: str, before: tuple[str, ...], said: str | None = None, *, unless_done: bool = False
    ) -> Moved:
        return await self._database.insist(
            lambda: self._statuses.move(video, to=to, before=before, said=said, unless_done=unless_done)
        )


def why_not(totals: Totals) -> str:
    """What an operator and the application read in the video's own row."""
    named = [f"scene {each.key.split(' ')[-1]}: {each.reason}" for each in totals.named if " " in each.key]
    named += [each.reason for each in totals.named if " " not in each.key]
    reasons = [*totals.scenes.skipped, *totals.videos.failed, *totals.videos.skipped]
    return "; ".join(dict.fromkeys([*named, *reasons]))[:500] or "nothing of it could be written"
