"""Money: reserved at the worst case before a call, settled after it, under ceilings that hold across runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from jobs.engine import fault_points
from queries.errors import CeilingReached
from queries.ledger import Ceilings, Lump

TakeLump = Callable[[float], Awaitable[Lump]]
_LUMP_SHARE = 0.01  # of the smallest ceiling: what one run may hold idle


@dataclass(slots=True)
class Reservation:
    worst_usd: float


class Budget:
    """Grants arrive in lumps from the ledger, so that no call waits for the database."""

    def __init__(self, ceilings: Ceilings, take_lump: TakeLump, spent_before_usd: float = 0.0) -> None:
        self._ceilings = ceilings
        self._take_lump = take_lump
        self._granted_usd = 0.0
        self._reserved_usd = 0.0
        self._open = 0  # counted, because a sum of floats does not come back to zero
        self._before_usd = spent_before_usd
        self.spent_usd = 0.0
        self.possibly_usd = 0.0
        self.is_waiting = False
        self._settled = asyncio.Event()
        self._turn = asyncio.Lock()

    @property
    def is_limited(self) -> bool:
        c = self._ceilings
        return not (c.run_usd is None and c.hour_usd is None and c.day_usd is None)

    @property
    def granted_usd(self) -> float:
        return self._granted_usd

    @property
    def idle_usd(self) -> float:
        return max(0.0, self._granted_usd - self._reserved_usd - self.spent_usd - self.possibly_usd)

    async def reserve(self, worst_usd: float) -> Reservation:
        """Waits for room that calls in flight may still give back; raises when there can be none."""
        async with self._turn:
            while self.is_limited and self._room() < worst_usd:
                if await self._ask_for_more(worst_usd):
                    continue
                if self._open == 0:
                    raise self._refusal
                self._settled.clear()
                self.is_waiting = True
                await self._settled.wait()
                self.is_waiting = False
            self._reserved_usd += worst_usd
            self._open += 1
        fault_points.reach("ledger.reserved")
        return Reservation(worst_usd)

    def _room(self) -> float:
        return self._granted_usd - self._reserved_usd - self.spent_usd - self.possibly_usd

    async def _ask_for_more(self, worst_usd: float) -> bool:
        ceilings = [
            c for c in (self._ceilings.run_usd, self._ceilings.hour_usd, self._ceilings.day_usd) if c is not None
        ]
        want = max(worst_usd - self._room(), min(ceilings) * _LUMP_SHARE)
        run_left = None
        if self._ceilings.run_usd is not None:
            run_left = self._ceilings.run_usd - self._before_usd - self._granted_usd
            want = min(want, run_left)
        if want <= 0 or self._room() + want < worst_usd:
            self._refusal = CeilingReached(
                f"the run's ceiling of ${self._ceilings.run_usd:.4g} leaves no room for one more call",
                scope="run",
                fix="raise --max-cost to go on",
            )
            return False
        lump = await self._take_lump(want)
        self._granted_usd += lump.granted_usd
        if self._room() >= worst_usd:
            return True
        clears = f"it clears in {lump.clears_in_s / 60:.0f} min" if lump.clears_in_s else "it is used up"
        self._refusal = CeilingReached(
            f"the {lump.refused_by or 'day'}'s ceiling leaves no room for one more call; {clears}",
            scope=lump.refused_by or "day",
            fix="wait for the window to turn, or raise the ceiling in the settings",
        )
        return False

    def settle(self, reservation: Reservation, usd: float, possibly_usd: float = 0.0) -> None:
        """What it really cost; what an unanswered call may have cost stays booked."""
        self._open -= 1
        self._reserved_usd = self._reserved_usd - reservation.worst_usd if self._open else 0.0
        self.spent_usd += usd
        self.possibly_usd += possibly_usd
        self._settled.set()
        fault_points.reach("ledger.settled")
