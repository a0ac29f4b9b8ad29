"""One seed of a lying Batch API against real visits: what was paid, where it is now, and what nobody accounts for."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from jobs.engine.verdict import Exit, Verdict
from tests.servers.batch_bench import BatchBench
from tests.servers.fake_script import rule

VISITS_MOST = 30
TIGHT = 1_000
"""Of enqueued tokens: less than a file of thirteen rows may have."""
LINES = ("refusal", "filtered", "too_long", "empty")
"""What the same rows are answered in a line as live; a paid line of the kind has no text that could be kept."""
NO_TEXT = frozenset({"refusal", "content_filter", "empty answer"})
_ITEM = re.compile(r"\[\[item:([^\]]+)\]\]")
_DAY_S = 90_000.0


@dataclass
class Findings:
    """Everything here is to be empty, whatever the seed."""

    unaccounted: list[str] = field(default_factory=list)
    thrown_away: list[str] = field(default_factory=list)
    paid_twice: list[str] = field(default_factory=list)
    submitted_twice: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    off: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def broken(self) -> dict[str, list[str]]:
        names = ("unaccounted", "thrown_away", "paid_twice", "submitted_twice", "orphans", "off")
        return {name: found for name in names if (found := getattr(self, name))}


async def visit_until_done(bench: BatchBench, **options: Any) -> list[Verdict]:
    """As cron does, a day between two visits; ends when the run is over."""
    verdicts = []
    for _ in range(VISITS_MOST):
        verdicts.append(await bench.visit(**options))
        if not await is_unfinished(bench):
            break
        bench.fake.batches.advance(_DAY_S)
    return verdicts


async def is_unfinished(bench: BatchBench) -> bool:
    rows = await bench.database.run("select count(*) from catchup.runs where state in ('running', 'stopped')")
    return bool(rows[0][0])


async def judge(bench: BatchBench, verdicts: list[Verdict]) -> Findings:
    """By the provider's own records and the tables, never by what a verdict says."""
    found = Findings(verdicts=verdicts)
    found.off += [f"exit {v.exit}: {v.headline}" for v in verdicts if v.exit not in (Exit.DONE, Exit.SOME_NAMED)]
    found.off += [f"books: {v.books.as_json()}" for v in verdicts if not v.books.balance()]
    if await is_unfinished(bench):
        found.off.append(f"not over after {len(verdicts)} visits: {verdicts[-1].headline}")
    await _judge_ledger(bench, found)
    await _judge_rows(bench, found)
    _judge_provider(bench, found)
    await _judge_money(bench, found)
    return found


async def _judge_ledger(bench: BatchBench, found: Findings) -> None:
    for chunk in await bench.chunks():
        if chunk["is_open"] or sum(chunk["books"].values()) != chunk["requests"]:
            found.off.append(f"{chunk['chunk']}: {chunk['requests']} sent, {chunk['books']}, {chunk['status']}")
    found.unaccounted += [f"{key} is still {state}" for _, _, key, state in await bench.out()]


async def _judge_rows(bench: BatchBench, found: Findings) -> None:
    rows = await bench.database.run("select key, reason from catchup.verdicts")
    named = {json.loads(key)[0]: str(reason) for key, reason in rows}
    cells = await bench.cells()
    found.unaccounted += [key for key, text in cells.items() if not text and key not in named]
    delivered: Counter[str] = Counter()
    for batch in bench.fake.batches.batches.values():
        items = items_of(bench, batch)
        delivered.update(items[custom_id] for custom_id in batch.delivered)
    found.thrown_away += [item for item in delivered if not cells.get(item) and named.get(item) not in NO_TEXT]
    found.paid_twice += [f"{item} {times} times" for item, times in delivered.items() if times > 1]


def items_of(bench: BatchBench, batch: Any) -> dict[str, str]:
    """Which row each line of its input file is about."""
    file = bench.fake.batches.files.get(batch.input_file_id)  # that of a batch without room is deleted
    lines = [json.loads(line) for line in file.data.splitlines()] if file else []
    marks = {line["custom_id"]: _ITEM.search(json.dumps(line["body"])) for line in lines}
    return {custom_id: mark.group(1) for custom_id, mark in marks.items() if mark}


def _judge_provider(bench: BatchBench, found: Findings) -> None:
    batches = bench.fake.batches
    chunks = Counter(batch.metadata.get("catchup_chunk", "?") for batch in batches.batches.values())
    found.submitted_twice += [chunk for chunk, times in chunks.items() if times > 1]
    used = {batch.input_file_id for batch in batches.batches.values()}
    found.orphans += [each.name for each in batches.files.values() if each.purpose == "batch" and each.id not in used]


async def _judge_money(bench: BatchBench, found: Findings) -> None:
    bill = bench.fake.world.bill_usd
    rows = await bench.database.run("select sum(spent_usd)::float8, sum(possibly_usd)::float8 from catchup.runs")
    spent, possibly = rows[0]
    if not spent - 1e-9 <= bill <= spent + possibly + 1e-9:
        found.off.append(f"the bill is {bill:.6f}, the ledger says {spent:.6f} and possibly {possibly:.6f}")
    held = await bench.database.run("select coalesce(sum(reserved_usd), 0)::float8 from catchup.batches where is_open")
    if held[0][0]:
        found.off.append(f"{held[0][0]} is still held")


async def run_seed(bench: BatchBench, seed: int, rows: int = 40, **options: Any) -> Findings:
    """A fresh table, a provider that lies by this seed, visits until the run is over."""
    await bench.database.run(
        "truncate videos; truncate catchup.batches cascade; truncate catchup.runs cascade; truncate catchup.verdicts; "
        "truncate catchup.leases; truncate catchup.batch_limits"
    )
    bench.fake.reset()
    bench.fake.batches.reset()
    bench.fake.configure(seed=seed)
    bench.fake.batches.configure(lies=True, validating_s=60.0, working_s=3600.0)
    if seed % 4 == 0:
        bench.fake.batches.configure(enqueued_limit=TIGHT, counts_in_progress=seed % 8 == 0)
    if seed % 3 == 0:
        kind = LINES[seed // 3 % len(LINES)]
        bench.fake.script(rule(kind, on={"item": f"^v0000.{seed % 10}$"}))
    await bench.fill(rows)
    options = {"requests_most": 13, "tail_live": seed % 3 * 5, **options}
    return await judge(bench, await visit_until_done(bench, **options))
