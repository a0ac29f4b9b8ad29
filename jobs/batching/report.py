"""What a visit to the provider says at its end: what is out, what came in, and whether each batch's books balance."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.engine.verdict import Exit, Verdict

if TYPE_CHECKING:
    from jobs.batching.options import BatchWork
    from jobs.batching.session import BatchSession

NAME = "submit-batch"


def verdict_of_batches(verdict: Verdict, session: BatchSession | None, errand: BatchWork) -> Verdict:
    """Work that is at the provider is nothing wrong (exit 0), and the verdict says that there is more to come."""
    verdict = replace(verdict, job=NAME)
    if session is None:
        return verdict
    money = replace(verdict.money, actual_usd=verdict.money.actual_usd + session.collected_usd)
    notes = (*verdict.notes, *session.said, *say_books(session.collected))
    facts = {**verdict.facts, "batches": facts_of(session)}
    verdict = replace(verdict, money=money, notes=notes, facts=facts)
    if session.goes_on and not session.stop.is_asked and verdict.exit in (Exit.DONE, Exit.SOME_NAMED):
        return replace(verdict, headline=_say_more(verdict, session), next_command=errand.work.command)
    return verdict


def say_books(collected: dict[str, int]) -> list[str]:
    """Submitted = wrote + failed by reason + changed + gone + resubmitted, in the words of the ledger."""
    if not collected:
        return []
    said = ", ".join(f"{rows:,} {how}" for how, rows in sorted(collected.items(), key=lambda each: -each[1]))
    return [f"collected {sum(collected.values()):,} of batches: {said}"]


def facts_of(session: BatchSession) -> dict[str, object]:
    chunks = [
        {
            "chunk": chunk.chunk,
            "batch": chunk.batch_id,
            "status": chunk.status,
            "requests": chunk.requests,
            "out": chunk.out,
            "tokens": chunk.tokens,
            "reserved_usd": round(chunk.reserved_usd, 6),
        }
        for chunk in session.chunks.values()
    ]
    return {"open": chunks, "submitted": session.submitted, "collected": session.collected, "to_resubmit": session.back}


def _say_more(verdict: Verdict, session: BatchSession) -> str:
    out = sum(chunk.out for chunk in session.chunks.values())
    parts = []
    if session.chunks:
        word = "batch is" if len(session.chunks) == 1 else "batches are"
        states = ", ".join(sorted({chunk.status or "on its way" for chunk in session.chunks.values()}))
        parts.append(f"{len(session.chunks)} {word} at the provider with {out:,} rows ({states})")
    if session.back:
        parts.append(f"{session.back:,} rows came back and go again")
    if session.waiting_for and not session.is_scanned:
        parts.append(f"more rows wait for {session.waiting_for}")
    wrote = f"wrote {verdict.books.wrote:,}; " if verdict.books.wrote else ""
    return f"{wrote}{'; '.join(parts) or 'more is to come'}: run the same command again, or --watch"
