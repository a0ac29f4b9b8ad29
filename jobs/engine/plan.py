"""What a run is about to do and what it may cost, from a sample: shown by a dry run, asked about when large."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jobs.engine.database_load import PieceSize
from jobs.engine.job import Ask, Job, Means, Skip, prepare
from jobs.engine.options import Options
from jobs.engine.watch import Plan
from queries.errors import Misconfigured
from queries.ledger import Ledger, RunRecord
from queries.road import Road
from queries.table import Condition, Key, PageQuery, Row, TableFacts

BLAST_ROWS = 1_000
BLAST_TIMES = 10
BLAST_FLOOR = 100  # ten times one row is no blast: a quiet night must not stop the next cron run
_SAMPLE = 200
_LOOKS_MOST = 100
_WINDOW = 20_000  # keys looked at by one statement, where no index finds the candidates: some 100 ms
_SAMPLE_BYTES = 8_000_000  # heavier samples cost memory and time and make no plan truer
_FIRST_PAGE = 50
_TUPLE_BYTES = 40  # a heap tuple's header and line pointer: what an UPDATE writes beside the values


@dataclass(frozen=True, slots=True)
class Counted:
    """`above`: before this key there is no candidate, as far as was seen."""

    rows: int
    is_floor: bool
    above: Key | None = None


async def count(ledger: Ledger, query: PageQuery, options: Options, last_time: int | None) -> Counted:
    """Reads at most one key more than the guard needs: no exact count of anything, on any road."""
    if options.only is not None:
        return Counted(len(options.only.keys), is_floor=False)
    most = blast_rows(last_time)
    at_most = most + 1 if options.limit is None else min(options.limit, most + 1)
    if query.in_window:
        rows, above = await _count_by_windows(ledger, replace(query, limit=_WINDOW), at_most)
    else:
        rows, above = await ledger.count_up_to(query, at_most), query.above
    return Counted(rows, rows > most, above)


async def _count_by_windows(ledger: Ledger, query: PageQuery, at_most: int) -> tuple[int, Key | None]:
    rows, first = 0, query.above
    last: Key | None = query.above
    while True:
        found, last = await ledger.count_window(replace(query, above=last), at_most - rows)
        rows += found
        if rows >= at_most or last is None:
            return rows, first
        first = first if rows else last


def blast_rows(last_time: int | None) -> int:
    """Over a thousand rows, or ten times what this target did last time."""
    return BLAST_ROWS if not last_time else min(BLAST_ROWS, max(BLAST_FLOOR, last_time * BLAST_TIMES))


def why_confirm(plan: Plan, options: Options) -> str:
    """The sentence that makes this run worth a question; empty when it is small."""
    limit = blast_rows(plan.last_time)
    if options.limit is not None and options.limit <= BLAST_ROWS:
        return ""  # whoever wrote a small number has said how much is meant
    if plan.pending_counted <= limit:
        return ""
    if plan.last_time and limit < BLAST_ROWS:
        return f"this is more than {BLAST_TIMES} times the {plan.last_time:,} rows this target did last time"
    return f"this is more than {BLAST_ROWS:,} rows"


def new_triggers(facts: TableFacts, last: RunRecord) -> tuple[str, ...]:
    """What fires on each row now and did not when this target last ran."""
    known = last.params.get("triggers", triggers_of(facts))
    return tuple(name for name in triggers_of(facts) if name not in known)


def refuse_new_triggers(names: Sequence[str], options: Options) -> None:
    unknown = sorted(set(names) - set(options.allow_triggers))
    if unknown:
        raise Misconfigured(
            f"the table has a trigger or publication that was not there last time: {', '.join(unknown)}",
            fix="every written row would fire it; if that is meant: "
            + " ".join(f"--allow-triggers {n}" for n in unknown),
        )


async def sample(ledger: Ledger, query: PageQuery, options: Options, above: Key | None = None) -> list[Row]:
    """The first rows in key order: small plans are exact, large ones are estimates and say so."""
    if options.only is not None:
        return list(options.only.sample)
    wanted = min(options.limit or BLAST_ROWS, BLAST_ROWS if options.dry_run else _SAMPLE)
    rows: list[Row] = []
    size, read, looks, last = PieceSize(start=_FIRST_PAGE, most=_SAMPLE), 0, 0, above or query.above
    while len(rows) < wanted and read < _SAMPLE_BYTES and looks < _LOOKS_MOST:
        most = _SAMPLE if query.in_window else min(size.rows, wanted - len(rows))
        page = await ledger.look(replace(query, above=last, limit=most))
        rows += page.rows
        if page.last is None:
            break
        last, looks = page.last, looks + 1
        read += _read_bytes(page.rows)
        size.worked(len(page.rows), 0.0, _read_bytes(page.rows))
    return rows[:wanted]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was read before planning."""

    rows: Sequence[Row]
    counted: Counted
    facts: TableFacts | None = None
    last_time: int | None = None
    new_triggers: tuple[str, ...] = ()
    standing: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    tokens_out_per_row: float | None = None
    already_paid: int = 0


def triggers_of(facts: TableFacts) -> tuple[str, ...]:
    """Everything that fires on, or copies, each row we write."""
    return (*facts.triggers, *(f"publication {name}" for name in facts.publications))


def build(job: Job, means: Means, found: Findings, *, provider: str, where: str) -> Plan:
    """Numbers only from what was read; what is guessed is marked as a guess by its field's name."""
    prepared = [prepare(job, row, means) for row in found.rows]
    asks = [ask for ask in prepared if isinstance(ask, Ask)]
    skips = Counter(skip.reason for skip in prepared if isinstance(skip, Skip))
    skips["internal error"] += sum(1 for bug in prepared if isinstance(bug, Exception))
    per_row = sum(ask.tokens_in for ask in asks) / len(asks) if asks else 0.0
    out = found.tokens_out_per_row or 0.4 * means.target.max_completion_tokens
    pending = max(found.counted.rows, len(found.rows))
    estimate = found.facts.estimated_rows if found.facts and found.counted.is_floor else None
    share = len(asks) / len(found.rows) if found.rows else 0
    will_ask = share * _rows_planned(pending, estimate, means.options.limit)
    # Which of them a limit leaves out is not known: it may be all that cost nothing.
    will_pay = max(0.0, min(will_ask, share * _rows_planned(pending, estimate, None) - found.already_paid))
    triggers = triggers_of(found.facts) if found.facts else ()
    spec = means.target.spec
    return Plan(
        job=job.name,
        target=means.target.name,
        table=f"{spec.schema}.{spec.table}",
        where=where,
        model=means.model,
        provider=provider,
        cells=spec.cells,
        pending_counted=pending,
        pending_is_floor=found.counted.is_floor,
        pending_estimate=estimate,
        estimate_usd=will_pay * means.price.worst_usd(round(per_row), round(out)),
        sampled_rows=len(found.rows),
        tokens_in_per_row=per_row,
        rewrite_bytes=round(will_ask * (_TUPLE_BYTES + _weight(found.rows) + 4 * out)) if spec.cells else 0,
        last_time=found.last_time,
        triggers=triggers,
        new_triggers=found.new_triggers,
        ceilings=_ceilings(means.options),
        samples=tuple((" ".join(ask.rows[0].key), ask.source) for ask in asks[:3]),
        would_skip=tuple((+skips).most_common()),
        notes=found.notes,
        standing=found.standing,
    )


def _rows_planned(pending: int, estimate: int | None, limit: int | None) -> int:
    rows = max(pending, estimate or 0)
    return rows if limit is None else min(rows, limit)


def _weight(rows: Sequence[Row]) -> float:
    """Mean bytes of a row's values that we read: an UPDATE writes the whole row anew."""
    return sum(len(str(value)) for row in rows for value in row.values.values()) / len(rows) if rows else 0.0


def _read_bytes(rows: Sequence[Row]) -> int:
    return sum(len(str(part)) for row in rows for part in (*row.values.values(), *row.joined))


async def before_migrate(job: Job, means: Means, road: Road, provider: str) -> Plan:
    """A preview without the ledger: plain reads, no joined rows, no verdicts of earlier runs."""
    spec, options = means.target.spec, means.options
    conditions = (*spec.pending, *(Condition(name, "=", value) for name, value in options.where))
    columns = tuple(dict.fromkeys((*spec.key, *spec.read, *spec.beside)))
    wanted = min(options.limit or BLAST_ROWS + 1, BLAST_ROWS + 1)
    rows: list[Row] = []
    size, read, above = PieceSize(start=_FIRST_PAGE, most=_SAMPLE), 0, options.slice.above
    while len(rows) < wanted and read < _SAMPLE_BYTES:
        most = min(size.rows, wanted - len(rows))
        found = await road.peek(
            spec.table, columns, key=spec.key, conditions=conditions, above=above, limit=most, schema=spec.schema
        )
        if not found:
            break
        page = [Row(tuple(str(each[name]) for name in spec.key), "", each, {}) for each in found]
        rows += page
        above = page[-1].key
        read += _read_bytes(page)
        size.worked(len(page), 0.0, _read_bytes(page))
    counted = Counted(len(rows), is_floor=len(rows) > BLAST_ROWS or read >= _SAMPLE_BYTES)
    notes = ("the ledger is not installed yet: run `catchup migrate` before the real run",)
    return build(job, means, Findings(rows, counted, notes=notes), provider=provider, where=road.where)


def _ceilings(options: Options) -> str:
    named = (
        ("run", options.ceilings.run_usd),
        ("hour", options.ceilings.hour_usd),
        ("day", options.ceilings.day_usd),
    )
    return ", ".join(f"${usd:.4g} a {name}" for name, usd in named if usd is not None) or "none"
