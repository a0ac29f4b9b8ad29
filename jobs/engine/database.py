"""Every ledger call of a run: within our share of the database's time, insisting through passing faults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from jobs.engine.clock import Clock
from jobs.engine.database_load import DatabaseLoad
from jobs.engine.insistence import Answer, Insistence
from queries.ledger import Ledger


class Database(Insistence):
    """One request at a time, and the waiting between two tries is not counted as load."""

    def __init__(self, load: DatabaseLoad, ledger: Ledger, clock: Clock, max_outage_s: float) -> None:
        super().__init__("the database", clock, max_outage_s)
        self._load = load
        self._ledger = ledger

    async def insist(self, call: Callable[[], Awaitable[Answer]], *, shrinks: bool = False) -> Answer:
        async def within_our_share() -> Answer:
            async with self._load.request(self._ledger.take_took_s):
                return await call()

        return await super().insist(within_our_share, shrinks=shrinks)

    def hurry(self) -> None:
        self._load.hurry()
