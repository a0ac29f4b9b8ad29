"""backfill-summaries on the stage: one text for each row, each in a request of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import psycopg

from tests.chaos.judge import Finding, note
from tests.chaos.stage import Stage, any_of, mix_kinds
from tests.chaos.witness import Records, WitnessProcess
from tests.chaos.world import Truth, World
from tests.servers.bench import VIDEOS
from tests.servers.fake_script import rule

WORKERS = 8
# Of 40 rows: how many of each kind. What is left over is plainly eligible.
SHARES = {
    "filled": 0.075, "short": 0.05, "refused": 0.05, "edited": 0.05, "deleted": 0.05, "overtaken": 0.025, "flaky": 0.05,
}  # fmt: skip
THEIRS = "Somebody else wrote this while the run was asking."
BEFORE = "This summary was here before the run."
# What the world does to a row while the provider is being asked about it.
MISCHIEF = {
    "edited": "update videos set description = description || ' It was edited meanwhile.' where id = %s",
    "deleted": "delete from videos where id = %s",
    "overtaken": f"update videos set llm_summary = '{THEIRS}' where id = %s",
}
UNTOUCHED = {"filled": BEFORE, "overtaken": THEIRS, "short": None, "refused": None}
TELLTALES = {
    "cursor-saved-on-fetch": "lost",
    "write-before-journal": "re-paid",
    "booked-after-send": "ledger",
    "no-lock": "unexplained",
}


class Summaries(Stage):
    job = "backfill-summaries"
    telltales = TELLTALES
    title = "summaries"
    target = VIDEOS
    cell = "llm_summary"
    source = "description"
    units_most = WORKERS

    def words(self) -> Sequence[str]:
        return (self.job, "--yes", "--json", "--concurrency", str(WORKERS), "--db-load", "100%")

    def requests(self, items: int) -> int:
        return items * 4 // 5

    def choose_kinds(self, seed: int, items: int) -> dict[str, str]:
        return mix_kinds(seed, items, "v", SHARES)

    def fill(self, dsn: str, kinds: Mapping[str, str]) -> None:
        words = "explains how the harbour cranes of the old port were built, moved and finally restored by volunteers"
        rows = [
            (
                key,
                f"Talk {key}" if kind != "short" else "Talk",
                "hm" if kind == "short" else f"[[item:{key}]] Speaker of {key} {words}",
                BEFORE if kind == "filled" else None,
            )
            for key, kind in kinds.items()
        ]
        with psycopg.connect(dsn, application_name="world") as connection:
            connection.cursor().executemany(
                "insert into videos (id, title, channel_id, description, llm_summary) values (%s, %s, 'c1', %s, %s)",
                rows,
            )

    def prepare(self, world: World, witness: WitnessProcess, *, mischief: bool, garbled: bool) -> None:
        witness.reset()
        witness.script(
            rule("refusal", on={"item": any_of(world.of("refused"))}),
            rule("malformed", on={"item": any_of(world.of("flaky")), "attempts": int(garbled)}),
        )
        if mischief:
            statements = {key: MISCHIEF[kind] for key, kind in world.kinds.items() if kind in MISCHIEF}
            witness.interfere(world.dsn, statements)

    def judge_results(
        self, finding: Finding, world: World, truth: Truth, records: Records, *, edits_done: bool
    ) -> None:
        texts: dict[str, list[str]] = {}
        for each in records.requests:
            if each.paid:
                texts.setdefault(each.item, []).append(each.text)
        for key, kind in world.kinds.items():
            value, told = truth.cells.get(key), texts.get(key, [])
            if kind in ("eligible", "flaky") and value not in told:
                note(finding.lost, key)
            elif kind == "edited" and value not in told[1:] and (edits_done or value is not None):
                note(finding.clobbered if value in told[:1] else finding.lost, key)
            elif kind in UNTOUCHED and value != UNTOUCHED[kind] and (kind != "overtaken" or told):
                note(finding.clobbered, key)
            if kind in ("eligible", "flaky", "edited") and key in truth.verdicts:
                note(finding.misnamed, f"{key} {truth.verdicts[key]}")

    def asked_for(self, world: World, truth: Truth) -> Callable[[str], int]:
        del truth
        never = {"filled": 0, "short": 0, "unknown": 0, "edited": 2}
        return lambda key: never.get(world.kinds.get(key, "unknown"), 1)
