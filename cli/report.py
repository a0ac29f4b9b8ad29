"""How a command ends: the verdict as lines or JSON, an error as sentences, always with its exit code."""

from __future__ import annotations

import json
import sys
import traceback
from typing import TYPE_CHECKING, Any

from cli import streams
from cli.layout import Line, Tone, as_plain, reasons
from cli.quantities import show_duration, show_usd
from cli.untrusted import clean, clean_json
from jobs.engine.verdict import Exit, Named, Verdict

if TYPE_CHECKING:
    from queries.errors import CatchupError

MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done: everything selected is written or skipped for a stated reason",
    Exit.UNEXPECTED: "unexpected: an error of ours, or the books do not balance",
    Exit.USAGE: "the command line was not understood",
    Exit.SOME_NAMED: "finished, and some rows are named as failed or changed",
    Exit.STOPPED: "stopped by quota, an outage or --max-runtime; the same command goes on",
    Exit.BREAKER: "stopped: too many calls failed in a row",
    Exit.CEILING: "stopped at the money ceiling",
    Exit.NOTHING_TO_DO: "there was nothing to do (only with --error-on-nothing)",
    Exit.REFUSED: "a person must change configuration, schema, key or disk",
    Exit.LEASE_HELD: "another run is working on these rows",
    Exit.SIGINT: "interrupted by Ctrl-C; the same command goes on",
    Exit.SIGTERM: "terminated by a signal; the same command goes on",
}
UNDER_WAY = "nothing is wrong, and there is more to come: the same command goes on"
NAMED_AT_MOST = 10


def verdict_lines(verdict: Verdict) -> list[Line]:
    """Every number of the verdict, once."""
    tone: Tone = "good" if verdict.exit == Exit.DONE else "warn" if verdict.exit == Exit.SOME_NAMED else "bad"
    lines = [Line("", clean(verdict.headline, 400), tone)]
    if verdict.dry_run and verdict.exit == Exit.DONE:
        found = Line(f"exit {int(verdict.exit)}", "nothing stands in the way of the real run", "dim")
        return [*lines, Line("next", clean(verdict.next_command, 400)), found]
    if not verdict.run_id and not verdict.books.selected:
        return [*lines, *_advice_lines(verdict), _exit_line(verdict.exit)]
    lines.append(Line("run", " · ".join(filter(None, (verdict.run_id or "none", verdict.job, verdict.target)))))
    lines.append(Line("database", clean(f"{verdict.where}, {verdict.cells_enforced_by}".strip(", "))))
    lines += _book_lines(verdict)
    lines += [Line(label, clean(text, 600)) for label, text in verdict.own]
    lines += _effort_lines(verdict)
    if verdict.stop_reason and verdict.stop_reason not in verdict.headline:
        lines.append(Line("stopped", clean(verdict.stop_reason, 600), "bad"))
    lines += [Line("note", clean(note, 400), "warn") for note in verdict.notes]
    lines += _named_lines(verdict)
    is_under_way = verdict.exit == Exit.DONE and verdict.books.to_do > 0
    last = Line("exit 0", UNDER_WAY, "dim") if is_under_way else _exit_line(verdict.exit)
    return [*lines, *_advice_lines(verdict), last]


def _advice_lines(verdict: Verdict) -> list[Line]:
    said = (("to do", verdict.fix), ("next", verdict.next_command))
    return [Line(name, clean(text, 400)) for name, text in said if text]


def _exit_line(code: Exit) -> Line:
    return Line(f"exit {int(code)}", MEANINGS[code], "dim")


def _book_lines(verdict: Verdict) -> list[Line]:
    books = verdict.books
    more = ", more are pending beyond this run" if verdict.pending_beyond else ""
    balance = "" if books.balance() else "; THE BOOKS DO NOT BALANCE"
    return [
        Line("selected", f"{books.selected:,}{more}{balance}", "" if books.balance() else "bad"),
        Line("  wrote", f"{books.wrote:,}", "good" if books.wrote else ""),
        Line("  skipped", _tally(books.skipped)),
        Line("  failed", _tally(books.failed), "bad" if books.failed else ""),
        Line("  changed", f"{books.changed:,}"),
        Line("  gone", f"{books.gone:,}"),
        Line("  to do", f"{books.to_do:,}", "warn" if books.to_do and not verdict.dry_run else ""),
    ]


def _tally(counts: Any) -> str:
    total = f"{counts.total():,}"
    return f"{total}   {clean(reasons(counts.most_common()), 300)}" if counts else total


def _effort_lines(verdict: Verdict) -> list[Line]:
    money = verdict.money
    calls = f"{verdict.calls:,} with {verdict.model or 'no model'}"
    calls += f" · {verdict.tokens_in:,} tokens in, {verdict.tokens_out:,} out"
    calls += f" · {verdict.throttled:,} throttled, {verdict.recovered:,} recovered from the journal"
    estimate = "" if money.estimate_usd is None else f" (estimate {show_usd(money.estimate_usd)})"
    cost = f"{show_usd(money.actual_usd)}{estimate}"
    if money.possibly_usd:
        cost += f" · {show_usd(money.possibly_usd)} more may be billed for calls without an answer"
    if money.reserve_usd:
        cost += f" · {show_usd(money.reserve_usd)} of the ceiling was held in reserve"
    bound = f", bound by {verdict.bound_by}" if verdict.bound_by else ""
    return [
        Line("calls", clean(calls, 300)),
        Line("cost", cost),
        Line("pace", f"{verdict.per_min:,.0f}/min{bound} · {show_duration(verdict.seconds)}"),
    ]


def _named_lines(verdict: Verdict) -> list[Line]:
    lines = [named_line(named) for named in verdict.named[:NAMED_AT_MOST]]
    total = verdict.books.failed.total() + verdict.books.changed + verdict.books.gone
    more = max(total, len(verdict.named)) - len(lines)
    if lines and more > 0:
        lines.append(Line("", f"{more:,} more: catchup runs show {verdict.run_id}"))
    return lines


def named_line(named: Named) -> Line:
    detail = f": {clean(named.detail, 160)}" if named.detail else ""
    return Line(f"  {clean(named.key, 40)}", f"{named.state}, {clean(named.reason, 80)}{detail}")


def write_json(value: dict[str, Any]) -> None:
    """One object on one line; plain ASCII, so no locale and no terminal can be hurt by it."""
    write = getattr(sys.stdout, "write_checked", sys.stdout.write)
    write(json.dumps(clean_json(value, streams.without_secrets), allow_nan=False) + "\n")
    sys.stdout.flush()


def exit_of(error: CatchupError) -> Exit:
    """The code for an error that ended a command before or outside a run."""
    from queries import errors

    by_kind: tuple[tuple[type[Exception], Exit], ...] = (
        (errors.CeilingReached, Exit.CEILING),
        (errors.OutOfMoney, Exit.STOPPED),
        (errors.RunFatal, Exit.REFUSED),
        (errors.LeaseHeld, Exit.LEASE_HELD),
        (errors.Fenced, Exit.LEASE_HELD),
        (errors.ItemPermanent, Exit.REFUSED),
        (errors.UpstreamError, Exit.STOPPED),
    )
    return next((code for kind, code in by_kind if isinstance(error, kind)), Exit.UNEXPECTED)


def error_lines(error: CatchupError, code: Exit) -> list[Line]:
    """What stopped, the service's own words and code, what to do next."""
    first, *rest = error.what.split("\n")
    lines = [Line("", clean(first, 600), "bad"), *(Line("", "  " + clean(more, 600)) for more in rest)]
    words = " ".join(filter(None, (clean(getattr(error, "code", ""), 60), clean(getattr(error, "words", ""), 400))))
    if words:
        lines.append(Line(clean(getattr(error, "service", ""), 30) or "it said", words))
    if error.fix:
        lines.append(Line("to do", clean(error.fix, 600)))
    return [*lines, _exit_line(code)]


def fail(error: Exception) -> int:
    """Ends a command that has no verdict; nothing was written by it."""
    from queries.errors import CatchupError

    as_json = "--json" in sys.argv[1:]
    if not isinstance(error, CatchupError):
        sys.stderr.write(streams.without_secrets("".join(traceback.format_exception(error))))
        lines = [Line("", f"unexpected {type(error).__name__}: {clean(error, 300)}", "bad")]
        lines.append(Line("to do", "run the same command again; if it happens again, report the lines above"))
        code, what, fix = Exit.UNEXPECTED, f"unexpected {type(error).__name__}", ""
    else:
        code, what, fix = exit_of(error), error.what, error.fix
        lines = error_lines(error, code)
    sys.stderr.write(as_plain(lines))
    if as_json:
        said = {"code": getattr(error, "code", ""), "words": getattr(error, "words", "")}
        write_json({"type": "verdict", "run": "", "exit": int(code), "headline": what, "fix": fix, **said})
    return int(code)
