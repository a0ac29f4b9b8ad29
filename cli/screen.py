"""The live screen of a terminal. It draws what it is told, and a fault of drawing never reaches the run."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.layout import as_rich
from cli.plan_view import plan_lines
from cli.quantities import show_duration, show_usd
from cli.report import verdict_lines
from cli.untrusted import clean, inert
from jobs.engine.verdict import Verdict
from jobs.engine.watch import Plan, Snapshot

_REDRAW_S = 0.1
_ENOUGH_TO_GUESS = 20  # rows; before that the rate is noise
_BUSY = frozenset({"waiting", "draining"})


class Screen:
    """Phase, bar, books, pace and what binds it, money, and the last sentence written."""

    def __init__(self, console: Console | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(highlight=False, markup=False, emoji=False)
        self._now = now
        self._live: Live | None = None
        self._drawn_s = float("-inf")
        self._title = ""
        self._question: asyncio.Future[None] | None = None

    def say(self, text: str) -> None:
        self._print(inert(text, 400, "dim"))

    def plan(self, plan: Plan) -> None:
        self._title = clean(f"{plan.job} · {plan.target} · {plan.model} · {plan.where}", 160)
        self._print(as_rich(plan_lines(plan), self._width()))

    async def confirm(self, plan: Plan, why: str) -> bool:
        """The only question there is. Anything but y or yes is no, and so is a closed input."""
        self._stop_live()
        if not sys.stdin or not sys.stdin.isatty():
            self._print(Text(f"{why}, and there is nobody to ask: say --yes to mean it", style="yellow"))
            return False
        self._print(Text(f"{clean(why)}. Go on? [y/N] ", style="bold", end=""), end="")
        return (await self._read_answer(sys.stdin)).strip().lower() in ("y", "yes")

    async def _read_answer(self, stdin: TextIO) -> str:
        """Waits without a thread: a thread in readline would outlive Ctrl-C and hold the process."""
        loop = asyncio.get_running_loop()
        self._question = loop.create_future()
        loop.add_reader(stdin.fileno(), self._note_typed)
        try:
            await self._question
            return stdin.readline()
        finally:
            loop.remove_reader(stdin.fileno())
            self._question = None

    def _note_typed(self) -> None:
        if self._question is not None and not self._question.done():
            self._question.set_result(None)

    def dismiss(self) -> None:
        """Cancels the whole command: before the answer nothing has begun."""
        if self._question is not None:
            self._question.cancel()

    def notice(self, text: str) -> None:
        self._print(inert(text, 600))

    def progress(self, snapshot: Snapshot) -> None:
        if self._now() - self._drawn_s < _REDRAW_S:
            return
        self._drawn_s = self._now()
        with contextlib.suppress(Exception):  # a terminal that fails costs the picture, never the work
            if self._live is None and snapshot.phase not in ("preflight", "planning"):
                self._live = Live(console=self.console, auto_refresh=False, transient=True, redirect_stdout=False)
                self._live.start()
            if self._live is not None:
                self._live.update(draw(snapshot, self._title, self._width()), refresh=True)

    def finish(self, verdict: Verdict) -> None:
        self._stop_live()
        self._print(as_rich(verdict_lines(verdict), self._width()))

    def abandon(self) -> None:
        self._stop_live()

    def _width(self) -> int:
        return max(20, min(self.console.width, 120))

    def _print(self, what: Any, end: str = "\n") -> None:
        with contextlib.suppress(Exception):  # as above: shown or not, the run goes on
            self.console.print(what, end="" if isinstance(what, Text) and what.plain.endswith("\n") else end)

    def _stop_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(Exception):  # as above
                live.stop()


def draw(snapshot: Snapshot, title: str, width: int) -> Group:
    """The whole live area; every line is cut at the edge, none wraps."""
    books = snapshot.books
    counts = _line(
        ("wrote ", "dim"), (f"{books.wrote:,}", "bold green"),
        ("  skipped ", "dim"), (f"{books.skipped.total():,}", ""),
        ("  failed ", "dim"), (f"{books.failed.total():,}", "red" if books.failed else ""),
        ("  changed ", "dim"), (f"{books.changed:,}", ""),
        ("  gone ", "dim"), (f"{books.gone:,}", ""),
    )  # fmt: skip
    lines: list[Any] = [inert(title, 160, "bold"), _bar(snapshot, width), counts, _pace(snapshot), _money(snapshot)]
    if snapshot.last_text:
        key, text = snapshot.last_text
        lines.append(
            Text.assemble(inert(key, 40, "dim"), "  ", inert(text, 240, "italic"), no_wrap=True, overflow="ellipsis")
        )
    return Group(*lines)


def _bar(snapshot: Snapshot, width: int) -> Table:
    done, total = snapshot.done, snapshot.total_estimate
    known = total is not None and total >= done
    style = "yellow" if snapshot.phase in _BUSY or snapshot.waiting_for else "cyan"
    row = Table.grid(padding=(0, 1))
    row.add_column(no_wrap=True)
    if width >= 50:
        row.add_column(no_wrap=True)
        bar = ProgressBar(total=total, completed=min(done, total or 0), width=min(40, width - 36), complete_style=style)
        row.add_row(Text(snapshot.phase, style=style), bar if total else Text(""), _position(snapshot, known))
    else:
        row.add_row(_line((f"{snapshot.phase} ", style), (f"{done:,}/~{total:,}" if known else f"{done:,}", "")))
    return row


def _position(snapshot: Snapshot, known: bool) -> Text:
    done, total = snapshot.done, snapshot.total_estimate
    if not known or not total:
        return Text(f"{done:,} rows", no_wrap=True)
    left = ""
    if snapshot.per_min > 0 and total > done >= _ENOUGH_TO_GUESS:
        left = f"  ~{show_duration(60 * (total - done) / snapshot.per_min)} left"
    return Text(f"{done:,} of ~{total:,}{left}", no_wrap=True, overflow="ellipsis")


def _pace(snapshot: Snapshot) -> Text:
    if snapshot.waiting_for:
        return _line(("waiting for ", "yellow"), (clean(snapshot.waiting_for, 160), "yellow"))
    bound = f", bound by {clean(snapshot.bound_by, 80)}" if snapshot.bound_by else ""
    return _line((f"{snapshot.per_min:,.0f}/min", "bold"), (f"{bound} · {snapshot.in_flight:,} in flight", "dim"))


def _money(snapshot: Snapshot) -> Text:
    ceiling = f" of {show_usd(snapshot.ceiling_usd)}" if snapshot.ceiling_usd is not None else ""
    possibly = f" · {show_usd(snapshot.possibly_usd)} possibly billed" if snapshot.possibly_usd else ""
    elapsed = show_duration(snapshot.seconds)
    return _line((show_usd(snapshot.spent_usd), "bold"), (f"{ceiling} spent{possibly} · {elapsed}", "dim"))


def _line(*parts: tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")
