"""Brings what a dead process had paid for, but not seen confirmed, into the database before anything new is paid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jobs.engine.books import Books
from jobs.engine.past import Paid, Past, read_paid
from jobs.engine.write_back import Entry, WriteBack, write_row
from queries.ledger import RowVerdict, Spend, WriteBatch


async def replay_journal(
    past: Past, writer: WriteBack, deliver: Callable[[Paid], None], books: Books, template: WriteBatch
) -> None:
    """First the batches whose answer was lost, under their own ids; then what was never sent."""
    for intent in list(past.intents.values()):
        batch = _batch(intent, past, template)
        # a row taken back is in both lists, and was selected (and written) by the process that died
        books.selected += len({row.key for row in batch.rows} ^ {verdict.key for verdict in batch.verdicts})
        await writer.repeat(batch)
        for row in batch.rows:
            past.paid.pop(row.key, None)
        for verdict in batch.verdicts:
            past.judged.pop(verdict.key, None)
    for paid in past.paid.values():
        books.selected += 1
        deliver(paid)
    for verdict in past.judged.values():
        books.selected += 1
        writer.put(Entry(verdict.key, verdict.guard, verdict=verdict))
    writer.spend(
        Spend(
            calls=past.calls - past.booked_calls,
            usd=past.spent_usd - past.booked_usd,
            possibly_usd=past.possibly_usd - past.booked_possibly_usd,
        )
    )


def _batch(intent: dict[str, Any], past: Past, template: WriteBatch) -> WriteBatch:
    known = {
        **past.paid,
        **{tuple(row["k"]): read_paid(row) for row in intent["back"]},
    }
    keys = [tuple(key) for key in intent["keys"]]
    # a later batch may have settled some of them: then only the money of this one is still open
    rows = [known[key] for key in keys] if all(key in known for key in keys) else []
    verdicts = [RowVerdict(tuple(v[0]), v[1], v[2], v[3], v[4]) for v in intent["verdicts"]]
    tokens_in, tokens_out = intent["tokens"]
    return replace(
        template,
        write_id=str(intent["id"]),
        rows=[write_row(paid) for paid in rows],
        verdicts=verdicts,
        books=intent["books"],
        checkpoint=tuple(intent["checkpoint"]) if intent["checkpoint"] else None,
        spend=Spend(int(intent["calls"]), tokens_in, tokens_out, float(intent["usd"]), float(intent["possibly_usd"])),
    )
