"""One run per target and key range: taking the lease, keeping it alive, noticing that it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.engine.clock import Clock
from jobs.engine.state_dir import StateDir
from queries.errors import Fenced, LeaseHeld, RunFatal, UpstreamError
from queries.ledger import Holder, Home, Lease, Ledger
from queries.table import Slice, TableSpec

BEAT_S = 10.0
SILENT_S = 30.0  # without a confirmed beat nothing more is paid: somebody may already have taken over
TTL_S = 60.0


@dataclass(slots=True)
class LeaseKeeper:
    """Beats on its own, outside the database's load share: a slow page must not cost us the lease."""

    ledger: Ledger
    lease: Lease
    clock: Clock
    on_cancel: Callable[[], None]
    on_fenced: Callable[[Fenced], None]
    confirmed_at: float = 0.0
    is_given_back: bool = False
    """By ourselves: a beat that finds it gone is no takeover."""

    def may_pay(self) -> bool:
        return self.clock.lasting() - self.confirmed_at < SILENT_S

    async def keep(self) -> None:
        self.confirmed_at = self.clock.lasting()
        while True:
            await self.clock.sleep(BEAT_S if self.may_pay() else 1.0)
            await self.beat()

    async def beat(self) -> None:
        asked_at = self.clock.lasting()
        try:
            async with asyncio.timeout(BEAT_S):
                cancel = await self.ledger.beat(self.lease, TTL_S)
        except Fenced as fenced:
            if not self.is_given_back:
                self.on_fenced(fenced)
        except (UpstreamError, RunFatal, TimeoutError):
            return  # not confirmed: after SILENT_S of that, nothing more is paid
        else:
            self.confirmed_at = asked_at
            if cancel:
                self.on_cancel()


async def take_lease(
    ledger: Ledger, state: StateDir, *, target: str, spec: TableSpec, slice_: Slice, run_id: str, home: Home
) -> Lease:
    """Takes it, at once also from a holder whose death this host can prove; else says who holds it and how long."""
    arguments = {"target": target, "spec": spec, "slice_": slice_, "run_id": run_id, "home": home, "ttl_s": TTL_S}
    try:
        return await ledger.take_lease(**arguments)  # type: ignore[arg-type]  # one set of keywords, used twice
    except LeaseHeld as held:
        holder = _holder(held.holder)
        if holder.home.home_id != home.home_id or not _is_dead(state, holder, home):
            raise
        return await ledger.take_lease(**arguments, dead=holder)  # type: ignore[arg-type]


def _is_dead(state: StateDir, holder: Holder, home: Home) -> bool:
    """The kernel drops a dead process's flock: whoever gets it has proof."""
    if holder.home.lock_id == home.lock_id:
        return True  # we hold that lock ourselves
    free = state.lock(holder.home.lock_id)
    if free:
        state.unlock(holder.home.lock_id)
    return free


def _holder(facts: Mapping[str, Any]) -> Holder:
    return Holder(
        run_id=str(facts["run_id"]),
        generation=int(facts["generation"]),
        home=Home(**facts["home"]),
        seconds_left=float(facts["seconds_left"]),
    )
