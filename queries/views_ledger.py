"""The ledger of a job that keeps counts of videos: rows come in the order of being due, and go with a snapshot each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import orjson

from queries.errors import Misconfigured
from queries.ledger import Home, Lease, Ledger
from queries.ledger_answers import believed, expected
from queries.ledger_json import batch_json, parse_due_row, parse_key, parse_written, slice_json, spec_json
from queries.ledger_types import Holder, WriteBatch, WriteResult
from queries.road import Road
from queries.table import Key, Page, PageQuery, Slice, TableSpec, ViewTables

# What stands in a cursor beside a video's id: when it is due, or what else is being walked through.
_SEEDING, _UNPLANNED = "seeding", "unplanned"
_LOOKED_AT = 20  # videos looked at for each one wanted, where few of them are meant
_SEEDED_AT_ONCE = 200  # for each row of a first page of 50: some 70 ms


@dataclass(frozen=True, slots=True)
class Pick:
    """Which videos are meant: those that are due, those not asked for a while, all, or the unavailable again."""

    mode: Literal["due", "stale", "all", "retry"] = "due"
    tiers: tuple[int, ...] = ()
    stale_s: float = 0.0
    slice: Slice = Slice()


@dataclass(slots=True)
class Counted:
    """What the database found out while it wrote: of the counts that were confirmed."""

    hidden: int = 0
    fell: int = 0
    jumped: int = 0
    flags: list[tuple[str, str, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outlook:
    """How the table is spread over the tiers, from a sample; `share` is how much of the table that was."""

    videos: Mapping[int, int]
    due: Mapping[int, int]
    share: float
    is_by_priorities: bool
    undeclared: tuple[str, ...]
    narrow: tuple[str, ...]


class ViewsLedger(Ledger):
    """A row's key is its id and since when it is due. Only who holds the lease gives a time to what has none."""

    def __init__(self, road: Road, tables: ViewTables, pick: Pick = Pick()) -> None:
        super().__init__(road)
        self._tables, self._pick = tables, pick
        self._lease: Lease | None = None
        self.counted = Counted()

    def show(self, key: Key) -> str:
        return key[0]

    async def take_lease(
        self,
        *,
        target: str,
        spec: TableSpec,
        slice_: Slice,
        run_id: str,
        home: Home,
        ttl_s: float = 60,
        dead: Holder | None = None,
    ) -> Lease:
        self._lease = await super().take_lease(
            target=target, spec=spec, slice_=slice_, run_id=run_id, home=home, ttl_s=ttl_s, dead=dead
        )
        return self._lease

    async def upper(self, spec: TableSpec, slice_: Slice) -> Key:
        """The moment up to which this run looks: what becomes due later is the next one's."""
        answer = await self._due(PageQuery(spec, "", "", None, None, 0), None)
        with believed("catchup_views_due", writing=False):
            return ("", str(answer["now"]))

    async def look(self, query: PageQuery) -> Page:
        """A page in the order of being due. Before it videos without a time get one; a plan only reads, and shows those
        after it."""
        cursor = query.above if query.above is not None and len(query.above) > 1 else None
        if self._lease is not None and (cursor is None or cursor[1] == _SEEDING):
            last = await self._seed(query, self._lease, cursor)
            if last is not None:
                return Page([], (last, _SEEDING))
            cursor = None
        if cursor is not None and cursor[1] == _UNPLANNED:
            return await self._look(query, cursor)
        page = await self._look(query, cursor)
        if page.last is None and self._lease is None:
            return Page(page.rows, ("", _UNPLANNED))
        return page

    async def look_quickly(self, query: PageQuery) -> Page:
        """There is one way to a page of a schedule."""
        return await self.look(query)

    async def _look(self, query: PageQuery, cursor: Key | None) -> Page:
        answer = await self._due(query, cursor)
        with believed("catchup_views_due", writing=False):
            rows = [parse_due_row(row, query.spec) for row in answer["rows"]]
            last = answer["last"]
            if last is not None and cursor is not None and cursor[1] == _UNPLANNED:
                return Page(rows, (str(last[0]), _UNPLANNED))
            return Page(rows, None if last is None else parse_key(last))

    async def _due(self, query: PageQuery, cursor: Key | None) -> dict[str, Any]:
        is_unplanned = cursor is not None and cursor[1] == _UNPLANNED
        few = is_unplanned or self._pick.tiers or query.where or self._pick.slice != Slice()
        asked = {
            **self._about(query.spec, query.target),
            "where": query.where,
            "cursor": ([cursor[0]] if cursor[0] else None) if is_unplanned and cursor else cursor,
            "unplanned": is_unplanned,
            "limit": query.limit * (_LOOKED_AT if few else 1),
        }
        at = query.upto[1] if query.upto is not None and len(query.upto) > 1 else None
        asked["pick"] = {**asked["pick"], "at": at} | ({"mode": "retry"} if query.retry_failed else {})
        return await self._read("catchup_views_due", asked)

    def _about(self, spec: TableSpec, target: str) -> dict[str, Any]:
        pick = {"mode": self._pick.mode, "tiers": self._pick.tiers, "stale_s": self._pick.stale_s}
        return {
            "spec": {**spec_json(spec), "null_keeps": True},
            "target": target,
            "views": asdict(self._tables),
            "where": [],
            "pick": {**pick, **slice_json(self._pick.slice)},
        }

    async def _seed(self, query: PageQuery, lease: Lease, cursor: Key | None) -> str | None:
        """The last id of those that were looked at; None where there are no more."""
        asked = {
            **self._about(query.spec, query.target),
            **asdict(lease),
            "cursor": cursor[:1] if cursor else None,
            "limit": query.limit * _SEEDED_AT_ONCE,
        }
        answer = self._declared(await self._call("catchup_views_seed", asked), query.target)
        with believed("catchup_views_seed", writing=True):
            return None if answer["last"] is None else parse_key(answer["last"])[0]

    async def count_up_to(self, query: PageQuery, at_most: int) -> int:
        """By looking, at few first: the order of being due is no order of keys, and of videos without a time twenty
        times as many come as are asked for."""
        found, last, page, size = 0, query.above, None, 50
        while found < at_most and (page is None or last is not None):
            page = await self.look(replace(query, above=last, limit=size))
            found, last, size = found + len(page.rows), page.last, min(1_000, 2 * size)
        return min(found, at_most)

    async def standing(self, target: str, fingerprint: str, at_most: int = 1001) -> dict[str, int]:
        """Only what is unavailable stays out; whatever else failed is asked for again when it is due."""
        reasons = await super().standing(target, fingerprint, at_most)
        return {reason: number for reason, number in reasons.items() if reason == "unavailable"}

    async def outlook(self, spec: TableSpec, target: str, where: tuple[tuple[str, str], ...]) -> Outlook:
        answer = await self._read("catchup_views_outlook", {**self._about(spec, target), "where": where})
        with believed("catchup_views_outlook", writing=False):
            tiers = {int(tier): (int(n), int(due)) for tier, (n, due) in answer["tiers"].items()}
            return Outlook(
                videos={tier: n for tier, (n, _) in sorted(tiers.items())},
                due={tier: due for tier, (_, due) in sorted(tiers.items())},
                share=float(answer["share"]),
                is_by_priorities=answer["priorities"] is not None,
                undeclared=tuple(map(str, answer["undeclared"])),
                narrow=tuple(map(str, answer["narrow"])),
            )

    async def alive(self, target: str) -> tuple[str, ...]:
        """A few videos that were there when they were asked for last."""
        answer = await self._read("catchup_views_alive", {"target": target, "limit": 10})
        with believed("catchup_views_alive", writing=False):
            return tuple(map(str, answer["ids"]))

    async def changed_since(self, spec: TableSpec, target: str, since: str) -> AsyncIterator[dict[str, Any]]:
        """Videos asked for since then whose counts are other than before, or that are gone: in the order of ids."""
        cursor: str | None = ""
        while cursor is not None:
            asked = {**self._about(spec, target), "since": since, "cursor": cursor, "limit": 2_000}
            answer = await self._read("catchup_views_changed", asked)
            with believed("catchup_views_changed", writing=False):
                rows, cursor = list(answer["rows"]), answer["last"]
            for row in rows:
                yield row

    async def write(self, batch: WriteBatch) -> WriteResult:
        """Counts and what became of the others: all of the batch or nothing, and the next time of each of them."""
        asked = batch_json(replace(batch, model="", prompt_hash="")) | self._about(batch.spec, batch.target)
        asked["cells"] = batch.spec.cells
        for row, told in zip(batch.rows, asked["rows"], strict=True):
            counts = orjson.loads(row.cells[batch.spec.cells[0]] or "[]")
            told |= {"key": row.key[:1], "counts": counts}
            told["cells"] = {
                cell: None if n is None else str(n) for cell, n in zip(batch.spec.cells, counts, strict=False)
            }
        for verdict in asked["verdicts"]:
            verdict["key"] = verdict["key"][:1]
        answer = self._declared(await self._call("catchup_views_write", asked), batch.target)
        with believed("catchup_views_write", writing=True):
            result = parse_written(answer, len(batch.rows))
            self._count(answer["views"])
            return result

    def _declared(self, answer: dict[str, Any], target: str) -> dict[str, Any]:
        if "undeclared" in answer:
            raise undeclared(target, map(str, answer["undeclared"]))
        return expected(answer)

    def _count(self, views: Mapping[str, Any]) -> None:
        for name in ("hidden", "fell", "jumped"):
            setattr(self.counted, name, getattr(self.counted, name) + int(views[name]))
        self.counted.flags += [tuple(map(str, flag)) for flag in views["flags"]]  # type: ignore[misc]  # four of them


def undeclared(target: str, names: Any) -> Misconfigured:
    return Misconfigured(
        f"target {target} may not write {', '.join(names)}: not registered",
        fix="run `catchup migrate` as the owner to register the target's cells and tables",
        service="database",
    )
