"""The views without a terminal: tqdm's line on stderr at most every 30 s, or one JSON object a line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from cli.layout import as_plain
from cli.plan_view import plan_lines
from cli.quantities import show_usd
from cli.report import verdict_lines, write_json
from cli.untrusted import clean
from jobs.engine.verdict import Verdict
from jobs.engine.watch import Plan, Snapshot

EVERY_S = 30.0


class Plain:
    """For pipes, cron and CI: no control codes, no colours, no questions."""

    def __init__(
        self, *, quiet: bool = False, every_s: float = EVERY_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._quiet = quiet
        self._every_s = every_s
        self._now = now
        self._last_s = now()

    def say(self, text: str) -> None:
        self.notice(text)

    def plan(self, plan: Plan) -> None:
        if not self._quiet:
            sys.stdout.write(as_plain(plan_lines(plan)) + "\n")
            sys.stdout.flush()

    async def confirm(self, plan: Plan, why: str) -> bool:
        """Nobody is there to ask; the plan is shown even when quiet, for it is the reason of the refusal."""
        sys.stderr.write(as_plain(plan_lines(plan)))
        sys.stderr.write(f"{clean(why)}, and there is no terminal to ask: say --yes to mean it\n")
        return False

    def notice(self, text: str) -> None:
        if not self._quiet:
            sys.stderr.write(f"{clean(text, 600)}\n")
            sys.stderr.flush()

    def progress(self, snapshot: Snapshot) -> None:
        now_s = self._now()
        if self._quiet or now_s - self._last_s < self._every_s:
            return
        self._last_s = now_s
        sys.stderr.write(progress_line(snapshot) + "\n")
        sys.stderr.flush()

    def finish(self, verdict: Verdict) -> None:
        sys.stdout.write(as_plain(verdict_lines(verdict)))
        sys.stdout.flush()

    def dismiss(self) -> None:
        """There is no question here."""

    def abandon(self) -> None:
        """There is nothing to restore."""


def progress_line(snapshot: Snapshot) -> str:
    """tqdm's own line, which operators and log filters know, without its carriage return."""
    from tqdm import tqdm

    books = snapshot.books
    extra = f"wrote {books.wrote}, failed {books.failed.total()}, {show_usd(snapshot.spent_usd)}"
    if snapshot.waiting_for:
        extra += f", waiting: {clean(snapshot.waiting_for, 80)}"
    elif snapshot.bound_by:
        extra += f", bound by {clean(snapshot.bound_by, 60)}"
    total = snapshot.total_estimate if snapshot.total_estimate and snapshot.total_estimate >= snapshot.done else None
    return str(
        tqdm.format_meter(
            snapshot.done,
            total or 0,
            snapshot.seconds,
            prefix=snapshot.phase,
            ascii=True,
            unit="row",
            rate=snapshot.per_min / 60 or None,
            postfix=extra,
            bar_format="{desc}: {percentage:3.0f}% {n_fmt}/~{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
            if total
            else None,
        )
    )


class Machine:
    """--json: every object has a `type`; progress at most every second; the verdict is the last line."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def say(self, text: str) -> None:
        self.notice(text)

    def plan(self, plan: Plan) -> None:
        names = [name for name in plan.__dataclass_fields__ if name not in ("samples", "would_skip", "standing")]
        facts = {name: getattr(plan, name) for name in names}
        pairs = {"would_skip": dict(plan.would_skip), "standing": dict(plan.standing)}
        samples = [{"key": key, "text": clean(text)} for key, text in plan.samples]
        write_json({"type": "plan", **facts, **pairs, "samples": samples})

    async def confirm(self, plan: Plan, why: str) -> bool:
        write_json({"type": "refused", "why": why, "fix": "say --yes to mean it"})
        return False

    def notice(self, text: str) -> None:
        write_json({"type": "notice", "text": text})

    def progress(self, snapshot: Snapshot) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s < 1.0:
            return
        self._last_s = now_s
        facts = {name: getattr(snapshot, name) for name in snapshot.__dataclass_fields__}
        del facts["last_text"]
        write_json({"type": "progress", **facts, "books": snapshot.books.as_json()})

    def finish(self, verdict: Verdict) -> None:
        write_json(verdict.as_json())

    def dismiss(self) -> None:
        """There is no question here."""

    def abandon(self) -> None:
        """There is nothing to restore."""
