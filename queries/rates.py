"""A share of a provider's rate limit, from the ledger: whoever works with the same model there holds another one."""

from __future__ import annotations

from dataclasses import dataclass

from queries.ledger_answers import believed, expected
from queries.road import Road


@dataclass(frozen=True, slots=True)
class RateShare:
    """Of the whole limit; `closed_s` is how long a 429 that somebody met keeps all of them waiting."""

    share: float
    workers: int
    closed_s: float


class Rates:
    def __init__(self, road: Road, name: str, worker: str) -> None:
        """`name` is the provider and model that the limit is of."""
        self._road, self._name, self._worker = road, name, worker

    async def take(self, *, wants: float, ttl_s: float, closed_s: float) -> RateShare:
        """Renews what this worker holds; it may get more or less than before."""
        asked = {"name": self._name, "worker": self._worker, "wants": wants, "ttl_s": ttl_s, "closed_s": closed_s}
        answer = expected(await self._road.call("catchup_share_rate", asked))
        with believed("catchup_share_rate", writing=True):
            return RateShare(float(answer["share"]), int(answer["workers"]), float(answer["closed_s"]))

    async def leave(self) -> None:
        """The others need not wait until it runs out."""
        await self._road.call("catchup_leave_rate", {"name": self._name, "worker": self._worker})
