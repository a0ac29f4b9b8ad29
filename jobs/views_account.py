"""What refresh-views says of itself: how much is due and whether the quota can keep up, and what was tracked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.engine.account import Insist, Told
from jobs.engine.books import Books
from jobs.metered_views import MeteredViews, say_reset
from jobs.targets import Target
from queries.postgres_errors import MissingFunction
from queries.quota import Units
from queries.views_ledger import Outlook, ViewsLedger, undeclared
from queries.youtube import IDS_MOST

EVERY_DAYS = (0.5, 1, 3, 7, 28)
"""Tiers 0 to 4, as catchup.tier_every has them."""
_FLAGS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ViewsAccount:
    service: MeteredViews
    ledger: ViewsLedger
    target: Target
    where: tuple[tuple[str, str], ...]
    limit: int | None
    quota: int
    reserve: int

    async def admit(self, insist: Insist) -> None:
        await self.service.admit(insist)

    def readmit(self) -> None:
        self.service.readmit()

    async def forecast(self, insist: Insist, pending: int) -> Told:
        try:
            outlook: Outlook = await insist(lambda: self.ledger.outlook(self.target.spec, self.target.name, self.where))
        except MissingFunction:  # before `migrate` a plan knows the table only
            needed = math.ceil(pending / IDS_MOST)
            said = (
                f"at least {needed:,}, one for {IDS_MOST} videos; what is left today is known after `catchup migrate`"
            )
            return Told((("units", said),), {"units_needed": needed})
        if outlook.undeclared:
            raise undeclared(self.target.name, outlook.undeclared)
        units = await self.service.used(insist)
        due = max(pending, _scaled(outlook.due.values(), outlook.share))
        asked = due if self.limit is None else min(due, self.limit)
        a_day = math.ceil(
            sum(_scaled([n], outlook.share) / EVERY_DAYS[tier] for tier, n in outlook.videos.items()) / IDS_MOST
        )
        lines = [("due", _say_tiers(outlook)), ("units", self._say_units(math.ceil(asked / IDS_MOST), units))]
        lines.append(("schedule", self._say_pace(a_day)))
        facts = {
            "due_by_tier": {str(tier): _scaled([n], outlook.share) for tier, n in outlook.due.items()},
            "units_needed": math.ceil(asked / IDS_MOST),
            "units_left": units.left if units else None,
            "units_a_day": a_day,
            "keeps_up": a_day <= self.quota - self.reserve,
        }
        return Told(tuple(lines), facts, _notes(outlook))

    def _say_units(self, needed: int, units: Units | None) -> str:
        said = f"{needed:,} for these"
        if units is None:
            return said
        left = f"{units.left:,} of {self.quota:,} left until {say_reset(units)}"
        kept = f", {self.reserve:,} kept for the application" if self.reserve else ""
        short = "; the rest waits for the next day, the most overdue first" if needed > units.left else ""
        return f"{said}; {left}{kept}{short}"

    def _say_pace(self, a_day: int) -> str:
        room = self.quota - self.reserve
        if a_day <= room:
            return f"keeping up takes ~{a_day:,} units a day, and {room:,} are there"
        return f"keeping up would take ~{a_day:,} units a day, and {room:,} are there: it can never keep up"

    def report(self, books: Books) -> Told:
        counted, units = self.ledger.counted, self.service.state
        unavailable, absent = books.failed["unavailable"], books.skipped["absent"]
        said = f"{books.wrote:,} tracked, {unavailable:,} unavailable, {counted.hidden:,} with hidden counts"
        said += f", {absent:,} absent for the first day" if absent else ""
        lines = [("videos", said)]
        if units is not None:
            lines.append(
                ("units", f"{self.service.units:,} spent, {self.service.left:,} left until {say_reset(units)}")
            )
        facts = {
            "tracked": books.wrote,
            "unavailable": unavailable,
            "absent": absent,
            "hidden": counted.hidden,
            "fell": counted.fell,
            "jumped": counted.jumped,
            "flagged": [list(flag) for flag in counted.flags[:100]],
            "units": self.service.units,
            "units_left": self.service.left,
            "resets_at": units.resets_at.isoformat() if units else None,
        }
        return Told(tuple(lines), facts, self._say_flags())

    def _say_flags(self) -> tuple[str, ...]:
        counted = self.ledger.counted
        if not counted.flags:
            return ()
        shown = "; ".join(
            f"{id_} {kind} from {was} to {became}" for id_, kind, was, became in counted.flags[:_FLAGS_SHOWN]
        )
        return (f"{counted.fell:,} counts fell and {counted.jumped:,} jumped a thousandfold; stored as told: {shown}",)

    async def close(self) -> None:
        await self.service.close()


def _scaled(sampled: object, share: float) -> int:
    return round(sum(sampled) / share) if share else 0  # type: ignore[call-overload]  # some ints


def _say_tiers(outlook: Outlook) -> str:
    mark = "" if outlook.share >= 1 else "~"
    parts = [f"tier {tier} {mark}{_scaled([n], outlook.share):,}" for tier, n in outlook.due.items() if n]
    by = "view_tracking_priority" if outlook.is_by_priorities else "age, velocity and last snapshot"
    return (", ".join(parts) or "nothing") + f" (tiers by {by})"


def _notes(outlook: Outlook) -> tuple[str, ...]:
    if not outlook.narrow:
        return ()
    return (
        f"{', '.join(outlook.narrow)}: these columns are integer, and counts above 2,147,483,647 will be refused by "
        "name; alter them to bigint",
    )
