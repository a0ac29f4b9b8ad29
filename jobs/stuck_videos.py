"""Videos that have sat in PROCESSING for too long: their worker died, and nobody takes them again by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from jobs.engine.database import Database
from jobs.targets import Target
from queries.errors import Misconfigured
from queries.message_ledger import MessageLedger, Stuck
from queries.table import Condition, TableSpec

_PAGE = 500

STUCK = Target(
    name="stuck-videos",
    job="reprocess-videos",
    spec=TableSpec(
        table="videos",
        key=("id",),
        read=("updated_at",),
        cells=("status",),
        pending=(Condition("status", "=", "PROCESSING"),),
        filters=("owner_id",),
    ),
    cells={"status": "READY"},
    prompt="",
    model="",
    text=(),
    max_completion_tokens=0,
)


@dataclass(frozen=True, slots=True)
class Unsticking:
    """`sent_by` is the target whose messages about these rows no longer count."""

    messages: MessageLedger
    database: Database
    target: Target
    sent_by: str
    older_s: float
    where: Sequence[tuple[str, str]]

    async def find(self, most: int) -> list[Stuck]:
        """Reads only: the first `most` of them."""
        found: list[Stuck] = []
        while len(found) < most:
            above, limit = (found[-1].key if found else None), min(_PAGE, most - len(found))
            page = await self.database.insist(
                lambda above=above, limit=limit: self.messages.stuck(  # type: ignore[misc]
                    self.target.spec, self.where, self.older_s, above, limit
                )
            )
            found += page
            if not page:
                break
        return found

    async def put_back(self, found: Sequence[Stuck]) -> AsyncIterator[Stuck]:
        """Each that was put back; the others changed by themselves meanwhile."""
        spec = self.target.spec
        for start in range(0, len(found), _PAGE):
            page = found[start : start + _PAGE]
            done = await self.database.insist(
                lambda page=page: self.messages.unstick(  # type: ignore[misc]
                    spec, page, target=self.target.name, sent_by=self.sent_by
                )
            )
            for index in done.reset:
                yield page[index]
            if done.kept:
                raise Misconfigured(
                    f"the update of row {' '.join(page[done.kept[0]].key)} affected 0 rows although nothing changed it",
                    fix="row level security hides it, or the key is wrong: use service_role or a role with a policy",
                )
