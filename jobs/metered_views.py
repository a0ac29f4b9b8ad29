"""YouTube within its quota, and not believed blindly: units before the call, and three empty answers are no news."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import date

from jobs.engine.account import Insist
from jobs.engine.clock import Clock
from queries.errors import CatchupError, OutOfMoney, Transient, Unbelievable
from queries.quota import Quota, Units
from queries.youtube import IDS_MOST, Views, ViewsAnswer, ViewsRequest

_LUMP_MOST = 128  # the ledger grants a hundredth of the limit at most
_EMPTY_MOST = 3
_FEW = 10  # so few may well be gone all at once; and only a second day makes them unavailable
_CONTROLS = 3
_CLOSE_S = 2.0


class MeteredViews:
    """The service of a run, and its account of units. `alive` names videos that were there last time, to compare."""

    def __init__(
        self, youtube: Views, quota: Quota, limit: int, alive: Callable[[], Awaitable[Sequence[str]]], clock: Clock
    ) -> None:
        self.name, self.is_local = youtube.name, youtube.is_local
        self.limit, self.units = limit, 0
        self.state: Units | None = None
        self._youtube, self._quota, self._alive, self._clock = youtube, quota, alive, clock
        self._insist: Insist | None = None
        self._turn = asyncio.Lock()
        self._in_hand, self._lump, self._day_ends_at = 0, 1, 0.0
        self._spent: dict[date, int] = {}
        self._admitted: deque[date] = deque()
        self._seen: deque[str] = deque(maxlen=_CONTROLS)
        self._empty = 0
        self._doubted: set[tuple[str, ...]] = set()

    @property
    def note(self) -> str:
        return self._youtube.note

    @property
    def left(self) -> int | None:
        return None if self.state is None else self.state.left + self._in_hand

    # --- units -------------------------------------------------------------------------------------------

    async def admit(self, insist: Insist) -> None:
        """Lumps grow, so that a short run takes few and a long one asks seldom."""
        self._insist = insist
        async with self._turn:
            if self._in_hand == 0 or self._clock.lasting() >= self._day_ends_at:
                self._in_hand = 0  # of a day that is over: nobody has booked them in this one
                want, asked_at = self._lump, self._clock.lasting()
                units: Units = await insist(lambda: self._quota.take(want))
                self.state, self._in_hand = units, units.granted
                self._day_ends_at = asked_at + units.resets_in_s
                self._lump = min(_LUMP_MOST, 2 * self._lump)
                if units.granted == 0:
                    raise self._used_up(units)
            assert self.state is not None, "what is in hand was granted"  # noqa: S101
            self._in_hand -= 1
            self._spend(self.state.day, 1)
            self._admitted.append(self.state.day)

    def readmit(self) -> None:
        if self._admitted:
            self._put_back(self._admitted.pop())

    def _spend(self, day: date, units: int) -> None:
        self.units += units
        self._spent[day] = self._spent.get(day, 0) + units

    def _put_back(self, day: date) -> None:
        self._spend(day, -1)
        self._in_hand += not self._is_over(day)

    def _is_over(self, day: date) -> bool:
        return self.state is None or day != self.state.day or self._clock.lasting() >= self._day_ends_at

    async def _take_todays(self) -> None:
        """A call that is admitted may wait, or sleep with the machine, until its unit is of a day that is over."""
        while self._admitted and self._insist is not None:
            day = self._admitted.popleft()
            if not self._is_over(day):
                return
            self._put_back(day)
            await self.admit(self._insist)

    async def used(self, insist: Insist) -> Units | None:
        """How the day stands before anything is taken."""
        units: Units | None = await insist(self._quota.used)
        self.state = units
        return units

    def _used_up(self, units: Units) -> OutOfMoney:
        said = "YouTube says that" if units.is_closed else self._say_booked(units)
        return OutOfMoney(
            f"{said} today's quota is used up; it resets at {say_reset(units)}, and nothing is asked before that",
            fix="the same command goes on after the reset, with the most overdue videos first",
            service=self.name,
        )

    def _say_booked(self, units: Units) -> str:
        kept = max(self._quota.reserve, units.elsewhere)
        beside = f", and {kept:,} are the application's" if kept else ""
        return f"{units.booked:,} of {self.limit:,} units are booked{beside}:"

    async def close(self) -> None:
        """What was not spent goes back; a database that is away keeps it booked, which is the safe side."""
        with contextlib.suppress(CatchupError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                for day, spent in self._spent.items():
                    await self._quota.give_back(day, spent)
        await self._youtube.close()

    # --- answers -----------------------------------------------------------------------------------------

    async def ask(self, request: ViewsRequest) -> ViewsAnswer:
        await self._take_todays()
        controls = await self._controls(request) if request.ids in self._doubted else ()
        asked = ViewsRequest((*request.ids[: IDS_MOST - len(controls)], *controls))
        try:
            answer = await self._youtube.ask(asked)
        except OutOfMoney as refusal:
            raise await self._closed(refusal) from refusal
        if answer.found or answer.odd:
            self._empty = 0
            self._doubted.discard(request.ids)
            self._seen.extend(answer.found)
            ours = frozenset(request.ids)
            found = {id_: counts for id_, counts in answer.found.items() if id_ in ours}
            if found and not ours.issubset(asked.ids):  # those that gave way to the controls were never really asked
                raise Transient("YouTube knows videos that it did not know before", service=self.name, code="empty")
            return replace(answer, found=found)
        await self._doubt(request, controls)
        return answer

    async def _controls(self, request: ViewsRequest) -> tuple[str, ...]:
        """Videos that were there a moment ago, or the last time: if these are gone too, it is not the videos."""
        known = tuple(self._seen) or tuple(await self._alive())
        return tuple(id_ for id_ in known if id_ not in request.ids)[:_CONTROLS]

    async def _doubt(self, request: ViewsRequest, controls: tuple[str, ...]) -> None:
        """None of them: true of a channel that was deleted, and of a key or a question that is wrong."""
        can_compare = bool(controls or await self._controls(request))
        if not can_compare and len(request.ids) < _FEW:
            return
        self._empty += 1
        self._doubted.add(request.ids)
        said = f"YouTube answered and knew none of {len(request.ids)} videos"
        if self._empty >= _EMPTY_MOST and (controls or not can_compare):
            beside = ", not even those that were there before" if controls else ""
            raise Unbelievable(
                f"{said}, {self._empty} times in a row{beside}: nothing of it is believed",
                fix="look at the key's project; if these are really gone, --channel or --slice takes others first",
                service=self.name,
                code="empty",
            )
        raise Transient(said, service=self.name, code="empty")

    async def _closed(self, refusal: OutOfMoney) -> OutOfMoney:
        """The service's own word on its quota: noted for every run until the reset."""
        if self.state is None or self._insist is None:
            return refusal
        day = self.state.day
        units: Units = await self._insist(lambda: self._quota.close_day(day))
        self.state, self._in_hand = units, 0
        stop = self._used_up(units)
        stop.code, stop.words = refusal.code, refusal.words
        return stop


def say_reset(units: Units) -> str:
    """In the operator's own time, and the day it is about: midnight Pacific is no round hour elsewhere."""
    is_turn = units.resets_at.minute == 0  # else closed in its first quarter of an hour, when yesterday may be meant
    said = "midnight Pacific" if is_turn else "a quarter past midnight Pacific"
    return f"{units.resets_at.astimezone():%Y-%m-%d %H:%M %Z} ({said})"
