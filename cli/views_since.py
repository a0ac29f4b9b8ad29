"""refresh-views --since-run: what has changed since a run began, as lines or JSON; nothing is asked or written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cli.report import write_json
from cli.untrusted import clean
from cli.views_flags import ViewsFlags
from cli.visit import Place, visit
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_COUNTS = ("views", "likes", "comments")


def list_changes(flags: ViewsFlags) -> int:
    """One line a video; the last one counts them."""
    visit(flags, lambda place: _list(place, flags), needs_ledger=True)
    return 0


async def _list(place: Place, flags: ViewsFlags) -> None:
    from cli.choices import pick_target
    from jobs.registry import load_job
    from queries.views_ledger import ViewsLedger

    run = await place.ledger.run(flags.since_run or "")
    if run is None:
        raise Misconfigured(f"no run {flags.since_run} in this database", fix="see `catchup runs list`")
    target = await pick_target(load_job("refresh-views"), place.settings, flags.target or run.target, place.road)
    assert target.views is not None  # noqa: S101
    ledger, number = ViewsLedger(place.road, target.views), 0
    changed: AsyncIterator[dict[str, Any]] = ledger.changed_since(target.spec, target.name, run.started_at)
    async for row in changed:
        number += 1
        if flags.json:
            write_json({"type": "changed", **row})
        else:
            sys.stdout.write(_say(row) + "\n")
    if flags.json:
        write_json({"type": "verdict", "run": run.run_id, "exit": 0, "since": run.started_at, "changed": number})
    elif not flags.quiet:
        sys.stderr.write(f"{number:,} videos changed since run {run.run_id} began, {run.started_at}\n")


def _say(row: dict[str, Any]) -> str:
    if row["state"] != "tracked":
        return f"{clean(row['id'], 40)}  {row['state']}"
    was = row["was"] or (None, None, None)
    parts = [
        f"{name} {_count(before)} to {_count(now)}" if row["was"] else f"{name} {_count(now)}"
        for name, now, before in zip(_COUNTS, row["now"], was, strict=True)
        if now != before or not row["was"]
    ]
    flag = f"  ({row['flag']})" if row["flag"] else ""
    return f"{clean(row['id'], 40)}  {', '.join(parts)}{flag}"


def _count(number: int | None) -> str:
    return "hidden" if number is None else f"{number:,}"
