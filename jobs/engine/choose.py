"""Which target a job works on: picked by the table's columns, never by its name."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.targets import Target, check_names
from queries.errors import Misconfigured
from queries.road import Road
from queries.table import Condition


async def choose_target(candidates: Sequence[Target], road: Road) -> Target:
    """The one candidate whose every column exists; refuses when none or several fit."""
    reasons: list[str] = []
    fitting: list[Target] = []
    for target in candidates:
        try:
            await probe(target, road)
        except Misconfigured as missing:
            reasons.append(f"{target.name}: {missing.words or missing.what}")
        else:
            fitting.append(target)
    first = [target for target in fitting if target.is_first]
    if len(fitting) == 1 or first:
        return (first or fitting)[0]
    if fitting:
        names = ", ".join(target.name for target in fitting)
        raise Misconfigured(f"several targets fit this database: {names}", fix="say which with --target")
    raise Misconfigured(
        "no default target fits this database: " + "; ".join(reasons),
        fix="describe your table in catchup.toml (`catchup init` writes one), or connect to the right database",
    )


async def probe(target: Target, road: Road) -> None:
    """Reads one row with exactly the target's columns: a wrong name is known before anything else happens."""
    spec = check_names(target).spec
    pending = tuple(condition.column for condition in spec.pending)
    columns = tuple(dict.fromkeys((*spec.key, *spec.read, *spec.beside, *spec.cells, *spec.filters, *pending)))
    try:
        await road.peek(spec.table, columns, key=spec.key, schema=spec.schema)
        if spec.joined:
            joined = spec.joined
            asked = tuple(dict.fromkeys((joined.on, joined.order_by, *joined.columns)))
            nothing = (Condition(joined.on, "is null"),)
            await road.peek(joined.table, asked, key=(joined.on,), conditions=nothing, schema=spec.schema)
        if target.views:
            asked = ("video_id", "snapshot_date", "view_count")
            nothing = (Condition("video_id", "is null"),)
            await road.peek(target.views.snapshots, asked, key=asked[:2], conditions=nothing, schema=spec.schema)
    except Misconfigured as missing:
        said = f"{missing.what} {missing.words}".strip()
        raise Misconfigured(
            f"target {target.name} does not fit table {spec.schema}.{spec.table}: {said}",
            fix=missing.fix or "name the table's real columns under [targets] in catchup.toml",
            words=missing.words or missing.what,
            code=missing.code,
        ) from None
