"""From result files to rows: each line judged as a live answer is, written under its guard, booked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import orjson

from jobs.batching.results import Results
from jobs.engine import fault_points
from jobs.engine.job import Answer, Ask, prepare
from jobs.engine.past import Paid
from jobs.engine.settling import Settling
from jobs.engine.write_back import Entry, paid_entry
from queries.batch_ledger import Chunk, Sent
from queries.batch_lines import Line, judge_chat, judge_vectors
from queries.embed import EmbedAnswer, EmbedRequest
from queries.errors import CatchupError, ItemPermanent, RunFatal
from queries.ledger import RowVerdict, Spend
from queries.table import Key
from queries.vector_column import as_text

if TYPE_CHECKING:
    from jobs.batching.session import BatchSession

# A row that is no longer as it was sent gets this guard, which no row has: the database then says what became of it.
NO_GUARD = "00000000-0000-0000-0000-000000000000"
_ROWS_AT_ONCE = 500
_TRIES_MOST = 1  # a row that got no answer is sent once more, then named


@dataclass(slots=True)
class _Left:
    """Rows of one page without an answer: by why, and whether that counts as a try."""

    rows: dict[tuple[str, bool], list[int]] = field(default_factory=dict)

    def add(self, n: int, reason: str, *, counts: bool) -> None:
        self.rows.setdefault((reason, counts), []).append(n)


class Collecting:
    """One chunk's files into the database. Killed anywhere it starts again with the rows that are still out."""

    def __init__(self, session: BatchSession, say: Callable[[str], None]) -> None:
        self._session = session
        self._say = say
        live = session.settling
        self._settling = Settling(
            job=live.job,
            means=session.errand.means,
            journal=live.journal,
            writer=live.writer,
            budget=live.budget,
            stop=live.stop,
            deliver=self._deliver,
            keep=live.keep,
            collapse=live.collapse,
            tally=live.tally,
        )
        self._was_right = False
        self._each_usd = 0.0
        self._fatal: RunFatal | None = None

    async def collect(self, chunk: Chunk, reason: str | None, *, counts: bool) -> RunFatal | None:
        """`reason` is why a row has no line (states.Next); None leaves such rows out where they are.

        What is to end the run (of a line: no money, no key) is returned: stopping at once would leave the paid lines
        behind it in the file, at every visit.
        """
        session = self._session
        self._fatal = None
        self._each_usd = chunk.reserved_usd / max(1, chunk.requests)
        paths = [session.folder.result(chunk.chunk, kind) for kind in ("output", "error")]
        results, above = Results(chunk.chunk, chunk.requests, paths), -1
        query = replace(session.query, limit=_ROWS_AT_ONCE)
        while not session.stop.is_asked:
            page = await session.database.insist(lambda above=above: session.desk.out(query, chunk.chunk, above))  # type: ignore[misc]
            if not page:
                break
            left = _Left()
            for sent in page:
                line = results.line_of(sent.n)
                if line is None and reason is None:
                    continue
                if line is None:
                    self._miss(sent, reason or "", "in neither of its files", left, counts=counts)
                else:
                    await self._take(sent, line, left)
            await session.in_flight.all_back()
            await session.settle()
            for (why, is_try), rows in left.rows.items():
                await session.put_back(chunk, why, rows, counts=is_try)
            fault_points.reach("batch.part_imported")
            above = page[-1].n
        if said := results.odd.said(chunk.chunk):
            self._say(said)
        return self._fatal

    async def _take(self, sent: Sent, line: Line, left: _Left) -> None:
        ask = self._ask_of(sent)
        answer = self._judge(line, ask)
        if isinstance(answer, CatchupError):
            if line.is_paid and not isinstance(answer, ItemPermanent):
                self._book_unusable(sent, ask)
            self._refuse(sent, line, answer, left)
        elif ask is None:
            self._book_in_vain(sent, answer)
        elif isinstance(answer, EmbedAnswer) and len(answer.vectors) != ask.texts:
            self._book_unusable(sent, ask)
            self._miss(sent, "malformed", "not one vector for each text", left, counts=True)
        else:
            await self._settle(sent, ask, answer)

    def _ask_of(self, sent: Sent) -> Ask | None:
        """The very request that was sent, made again of the row; None where the row is not the same any more."""
        row = sent.row
        if row is None or row.guard != sent.guard:
            return None
        cells = self._session.work.target.spec.cells
        was = {**row.was, cells[0]: sent.was} if cells else row.was
        item = prepare(self._session.work.job, replace(row, was=was), self._session.errand.means)
        return item if isinstance(item, Ask) else None

    def _book_unusable(self, sent: Sent, ask: Ask | None) -> None:
        """Billed, and nothing to show for it: nobody can read what it cost; of a changed row, the mean of its file."""
        usd, price = self._each_usd, self._settling.means.price
        if ask is not None:
            usd = price.worst_usd(max(ask.tokens_in, ask.tokens_worst), ask.tokens_out_most)
        self.book_possibly(sent.key, usd)

    def book_possibly(self, key: Key, usd: float) -> None:
        """In the journal as well: what only the ledger knew, a replay would take off again."""
        self._settling.journal.ended(self._settling.journal.attempted([key], 0.0), usd)
        self._settling.tally.calls += 1
        self._settling.writer.spend(Spend(calls=1, possibly_usd=usd))

    def _judge(self, line: Line, ask: Ask | None) -> Answer | CatchupError:
        if self._session.work.job.service == "chat":
            return judge_chat(line, private=ask.request.user if ask else "")
        if ask is None and line.is_paid:
            return EmbedAnswer((), self._session.work.model, read_tokens_in(line))
        request = ask.request if ask else EmbedRequest(self._session.work.model, (), 0)
        answer = judge_vectors(line, request, was_right=self._was_right)
        self._was_right = self._was_right or (isinstance(answer, EmbedAnswer) and len(answer.bad) < len(answer.vectors))
        return answer

    def _book_in_vain(self, sent: Sent, answer: Answer) -> None:
        """Paid for a text that is not the row's any more: the database says what became of it."""
        target = self._session.work.target
        made = target.embedding
        text = as_text(bytes(4 * made.dimensions)) if made else answer.text or "-"
        sources = {"answer": text, "model": answer.model, "now": "now"}
        cells = {cell: sources.get(source, source) for cell, source in target.cells.items()}
        was = {target.spec.cells[0]: sent.was} if target.spec.cells else {}
        paid = Paid(sent.key, NO_GUARD, was, cells)
        usd = self._cost(answer, 0)
        self._settling.journal.answered(self._count_call(sent), usd, [paid])
        self._settling.writer.put(paid_entry(paid))

    def _count_call(self, sent: Sent) -> int:
        self._session.books.selected += 1
        self._settling.tally.calls += 1
        return self._settling.journal.attempted([sent.key], 0.0)  # it was paid when it was handed in

    def _cost(self, answer: Answer, tokens_in: int) -> float:
        settling = self._settling
        tokens_out = answer.tokens_out or settling.means.tokens.count(answer.text or "")
        usd = settling.means.price.worst_usd(answer.tokens_in or tokens_in, tokens_out)
        settling.tally.tokens_in += answer.tokens_in
        settling.tally.tokens_out += answer.tokens_out
        settling.writer.spend(Spend(1, answer.tokens_in, answer.tokens_out, usd))
        self._session.collected_usd += usd
        return usd

    async def _settle(self, sent: Sent, ask: Ask, answer: Answer) -> None:
        usd = self._cost(answer, ask.tokens_in)
        self._settling.tally.tokens_counted += ask.tokens_in
        for again in self._settling.take(ask, self._count_call(sent), usd, answer):
            await self._session.in_flight.start(again)  # a changed request: no file is worth a few of them

    def _refuse(self, sent: Sent, line: Line, error: CatchupError, left: _Left) -> None:
        if isinstance(error, RunFatal):  # key, model, money: no row's fault, and no more is sent
            left.add(sent.n, "refused", counts=False)
            self._fatal = self._fatal or error
        elif isinstance(error, ItemPermanent):
            self._name(sent, error.reason, error.words or error.what)
        elif not line.was_reached and line.code:
            left.add(sent.n, line.code.removeprefix("batch_"), counts=False)
        else:
            words = getattr(error, "words", "") or error.what
            self._miss(sent, getattr(error, "code", "") or "no answer", words, left, counts=True)

    def _miss(self, sent: Sent, reason: str, detail: str, left: _Left, *, counts: bool) -> None:
        if counts and sent.tries >= _TRIES_MOST:
            self._name(sent, "no answer", f"sent {sent.tries + 1} times; the last: {reason}, {detail}")
        else:
            left.add(sent.n, reason, counts=counts)

    def _name(self, sent: Sent, reason: str, detail: str) -> None:
        self._session.books.selected += 1
        verdict = RowVerdict(sent.key, sent.guard, "failed", reason, detail[:500])
        self._settling.writer.put(Entry(sent.key, sent.guard, verdict=verdict))

    async def give_up(self, chunk: Chunk, reason: str, detail: str) -> None:
        """Every row that is still out is named: what it was paid for cannot be had any more."""
        session = self._session
        query = replace(session.query, limit=_ROWS_AT_ONCE)
        while page := await session.database.insist(lambda: session.desk.out(query, chunk.chunk, -1)):
            for sent in page:
                self._name(sent, reason, detail)
            await session.settle()

    def _deliver(self, paid: Paid) -> None:
        self._session.deliver(paid)


def read_tokens_in(line: Line) -> int:
    """What an answer cost that nobody can use any more; 0 where it does not say."""
    try:
        usage = orjson.loads(line.body)["usage"]["prompt_tokens"]
    except (ValueError, KeyError, TypeError):
        return 0
    return usage if isinstance(usage, int) and usage > 0 else 0
