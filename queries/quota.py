"""A service's units a day, booked before they are spent and shared by every run on this database."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from queries.ledger_answers import believed, expected
from queries.postgres_errors import MissingFunction
from queries.road import Road


@dataclass(frozen=True, slots=True)
class Units:
    """What may be spent now, and how the service's day stands.

    `granted` is for this `day` only: what is left of it after `resets_in_s` must not be spent, since nobody has booked
    it in the next one. `is_closed`: the service has said that the day is used up. `elsewhere` is what the user's
    application has booked for itself.
    """

    granted: int
    left: int
    day: date
    resets_at: datetime
    resets_in_s: float
    is_closed: bool
    booked: int
    elsewhere: int


class Quota:
    """One process's hand in the quota: what it takes is booked at once, what it did not spend it gives back."""

    def __init__(self, road: Road, *, limit: int, reserve: int, run_id: str = "", service: str = "youtube") -> None:
        self._road, self.reserve = road, reserve
        self._asked = {
            "service": service,
            "limit": limit,
            "reserve": reserve,
            "run_id": run_id,
            # A run that was killed and goes on does not know what the dead process spent: that stays booked.
            "holder": uuid.uuid4().hex,
        }

    async def used(self) -> Units | None:
        """How the day stands; nothing is booked. None before `catchup migrate`."""
        try:
            answer = await self._road.read("catchup_quota", self._asked)
        except MissingFunction:
            return None
        return _read("catchup_quota", answer, writing=False)

    async def take(self, want: int) -> Units:
        """At most `want`, and at most a hundredth of the limit; `granted` is 0 where nothing is left."""
        answer = await self._road.call("catchup_quota_take", {**self._asked, "want": want})
        return _read("catchup_quota_take", answer, writing=True)

    async def give_back(self, day: date, spent: int) -> int:
        """Of what this process was granted for `day` it has spent this much; may be said twice."""
        asked = {**self._asked, "day": day.isoformat(), "spent": spent}
        answer = expected(await self._road.call("catchup_quota_give_back", asked))
        with believed("catchup_quota_give_back", writing=True):
            return int(answer["returned"])

    async def close_day(self, day: date) -> Units:
        """The service refused a call booked in `day` as beyond its quota: nobody asks again before the reset."""
        answer = await self._road.call("catchup_quota_close", {**self._asked, "day": day.isoformat()})
        return _read("catchup_quota_close", answer, writing=True)


def _read(function: str, answer: dict[str, Any], *, writing: bool) -> Units:
    told: Mapping[str, Any] = expected(answer)
    with believed(function, writing=writing):
        return Units(
            granted=int(told.get("granted", 0)),
            left=int(told["left"]),
            day=date.fromisoformat(told["day"]),
            resets_at=datetime.fromisoformat(told["resets_at"]),
            resets_in_s=float(told["resets_in_s"]),
            is_closed=told["is_closed"] is True,
            booked=int(told["booked"]),
            elsewhere=int(told["elsewhere"]),
        )
