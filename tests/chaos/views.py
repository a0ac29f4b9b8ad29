"""refresh-views on the stage: videos packed into requests, a snapshot each, and units booked before the call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import psycopg

from jobs.refresh_views import VIDEO_VIEWS
from tests.chaos.judge import Finding, note
from tests.chaos.provider import told_of
from tests.chaos.stage import Stage, any_of, mix_kinds
from tests.chaos.witness import Records, WitnessProcess
from tests.chaos.world import Truth, World
from tests.servers.fake_script import rule
from tests.servers.postgres import SCHEMAS

WORKERS = 3
IDS_MOST = 4
"""Of one request: few, so that forty videos are ten."""
SHARES = {"gone": 0.1, "hidden": 0.1, "overtaken": 0.05, "deleted": 0.05, "uncounted": 0.05}
THEIRS = 5
UNTOLD = ("gone", "uncounted")
MISCHIEF = {
    "overtaken": f"update videos set view_count = {THEIRS} where id = %s",
    "deleted": "delete from videos where id = %s",
}
TELLTALES = {
    "cursor-saved-on-fetch": "lost",
    "write-before-journal": "re-paid",
    "booked-after-send": "unbacked",
    "units-not-booked": "unbacked",
    "snapshots-left-out": "lost",
    "no-lock": "unexplained",
}


class Counting(Stage):
    job = "refresh-views"
    title = "views"
    target = VIDEO_VIEWS
    cell = "view_count"
    source = "title"
    units_most = WORKERS * IDS_MOST
    schema = (SCHEMAS / "views.sql").read_text(encoding="utf-8")
    telltales = TELLTALES

    def words(self) -> Sequence[str]:
        return (self.job, "--yes", "--json", "--concurrency", str(WORKERS), "--db-load", "100%")

    def environment(self) -> dict[str, str]:
        return {"CHAOS_IDS": str(IDS_MOST)}

    def requests(self, items: int) -> int:
        return items // IDS_MOST

    def choose_kinds(self, seed: int, items: int) -> dict[str, str]:
        return mix_kinds(seed, items, "v", SHARES)

    def fill(self, dsn: str, kinds: Mapping[str, str]) -> None:
        """Beside each odd one is a plain one: of a page of which all are gone another test asks what becomes."""
        plain = [key for key, kind in kinds.items() if kind not in UNTOLD]
        odd = [key for key in kinds if key not in plain]
        order = [*plain[:IDS_MOST], *(key for pair in zip(odd, plain[IDS_MOST:], strict=False) for key in pair)]
        order += [key for key in kinds if key not in order]
        with psycopg.connect(dsn, application_name="world") as connection:
            connection.cursor().executemany(
                "insert into videos (id, title, channel_id, published_at) "
                "values (%s, %s, 'c1', timestamptz '2020-01-01' + %s * interval '1 minute')",
                [(key, f"Talk {key}", number) for number, key in enumerate(order)],
            )

    def prepare(self, world: World, witness: WitnessProcess, *, mischief: bool, garbled: bool) -> None:
        del garbled
        witness.reset()
        witness.script(*(rule(kind, on={"item": any_of(world.of(kind))}) for kind in ("gone", "hidden", "uncounted")))
        if mischief:
            statements = {key: MISCHIEF[kind] for key, kind in world.kinds.items() if kind in MISCHIEF}
            witness.interfere(world.dsn, statements)

    def judge_results(
        self, finding: Finding, world: World, truth: Truth, records: Records, *, edits_done: bool
    ) -> None:
        kept = self._ask(world, "select video_id, view_count, like_count, comment_count from view_snapshots")
        stored = {key: tuple(counts) for key, *counts in kept}
        for key, kind in world.kinds.items():
            value, told = truth.cells.get(key), told_of(key, kind)
            if kind in ("eligible", "hidden"):
                if value != str(told[0]) or stored.get(key) != told:
                    note(finding.lost, key)
                if key in truth.verdicts:
                    note(finding.misnamed, f"{key} {truth.verdicts[key]}")
            elif value not in self._may_stand(kind, told) or (kind in UNTOLD and key in stored):
                note(finding.clobbered, key)
        if edits_done:
            self._judge_books(finding, world, truth, records)

    def _may_stand(self, kind: str, told: tuple[int | None, ...]) -> tuple[str | None, ...]:
        """In a video's own cell: what others wrote while we asked is never overwritten, and nothing told is no zero."""
        return (None,) if kind in UNTOLD or kind == "deleted" else (str(THEIRS), str(told[0]))

    def _judge_books(self, finding: Finding, world: World, truth: Truth, records: Records) -> None:
        """Every request is an attempt of ours, and had its unit before it left."""
        asked = len(records.requests)
        if (calls := sum(run["calls"] for run in truth.runs)) < asked:
            note(finding.unbacked, f"{calls} calls on the books, {asked} at the service")
        ((booked,),) = self._ask(world, "select coalesce(sum(booked), 0) from catchup.quota")
        if booked < asked:
            note(finding.unbacked, f"{booked} units booked, {asked} spent")

    def claimed(self, world: World, truth: Truth) -> Iterable[str]:
        """Asked for with an answer: what others counted or deleted meanwhile is not claimed."""
        del truth
        asked = "select video_id from catchup.schedule where asked_at is not null and absent_on is null"
        rows = {str(key) for (key,) in self._ask(world, asked)}
        return rows & set(world.of("eligible", "hidden"))

    def _ask(self, world: World, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(world.dsn, autocommit=True, application_name="world") as connection:
            return connection.execute(query.encode()).fetchall()

    def asked_for(self, world: World, truth: Truth) -> Callable[[str], int]:
        del world, truth
        return lambda key: 1
