"""What a run is about to do, as lines: shown by a dry run and before the question."""

from __future__ import annotations

from cli.layout import Line, reasons
from cli.quantities import show_bytes, show_usd
from cli.untrusted import clean
from jobs.engine.watch import Plan


def plan_lines(plan: Plan) -> list[Line]:
    """Exact numbers are bare, floors say "at least", the planner's guesses carry "~"."""
    lines = [
        Line("plan", f"{plan.job} · target {plan.target}"),
        Line("table", clean(f"{plan.table} at {plan.where}")),
        *_writes(plan),
        Line("by", clean(plan.model if plan.model == plan.provider else f"{plan.model} ({plan.provider})")),
        Line("rows", _rows(plan)),
        *[Line(label, clean(text, 600)) for label, text in plan.own],
        Line("cost", _cost(plan)),
        *([Line("rewrites", f"~{show_bytes(plan.rewrite_bytes)} of table data")] if plan.cells else []),
        Line("ceilings", plan.ceilings),
    ]
    if plan.would_skip:
        lines.append(Line("skips", f"of {plan.sampled_rows:,} looked at: {reasons(plan.would_skip)}"))
    if plan.standing:
        lines.append(Line("left out", f"{reasons(plan.standing)} (from earlier runs; --retry-failed takes them again)"))
    if plan.triggers:
        lines.append(Line("triggers", clean(", ".join(plan.triggers)) + ": each written row fires them", "warn"))
    if plan.new_triggers:
        lines.append(Line("new", clean(", ".join(plan.new_triggers)) + ": not there last time", "bad"))
    lines += [Line("sample", f"{clean(key, 40)}: {clean(text, 160)}", "dim") for key, text in plan.samples]
    lines += [Line("note", clean(note, 400), "warn") for note in plan.notes]
    return lines


def _writes(plan: Plan) -> list[Line]:
    if plan.cells:
        return [Line("writes", f"{', '.join(plan.cells)}, and nothing else")]
    is_sent = any(label == "sends" for label, _ in plan.own)
    return [] if is_sent else [Line("writes", "vectors, and nothing in the table")]


def _rows(plan: Plan) -> str:
    counted = f"at least {plan.pending_counted:,}" if plan.pending_is_floor else f"{plan.pending_counted:,}"
    guess = f" (the table has ~{plan.pending_estimate:,})" if plan.pending_estimate else ""
    last = f"; last time {plan.last_time:,}" if plan.last_time is not None else ""
    return f"{counted} pending{guess}{last}"


def _cost(plan: Plan) -> str:
    if not plan.sampled_rows:
        return "nothing to ask for"
    if not plan.estimate_usd and not plan.tokens_in_per_row:
        return "no money"
    text = f"~{show_usd(plan.estimate_usd)}" if plan.estimate_usd else "no money"
    if plan.estimate_usd and plan.pending_is_floor and not plan.pending_estimate:
        text = f"at least {text} (how many rows there are is not known)"
    return f"{text}, from {plan.sampled_rows:,} rows with {plan.tokens_in_per_row:,.0f} tokens each"
