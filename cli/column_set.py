"""catchup migrate --set: the columns that a job needs in your own tables; added, compared, taken away again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cli.layout import Line, count
from cli.report import write_json
from cli.visit import Place, show
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from cli.migrate import MigrateFlags
    from queries.column_statements import ColumnSet

SETS = ("rich-semantics",)


async def change(place: Place, flags: MigrateFlags) -> int:
    """--set NAME, with --check, --down or --print."""
    from queries import column_sets

    if flags.set not in SETS:
        raise Misconfigured(f"there is no set {flags.set!r}", fix=f"known is {', '.join(SETS)}")
    wanted = _rich_semantics(place)
    if flags.print_sql or not place.dsn:
        return _print(wanted, flags)
    if flags.check:
        return _say_differences(flags, await column_sets.check(place.dsn, wanted))
    if flags.down:
        return await _take_away(place, flags, wanted)
    done = await column_sets.apply(place.dsn, wanted)
    _say(flags, done or ["everything was there already"], "catchup migrate")
    return 0


def _rich_semantics(place: Place) -> ColumnSet:
    """The cells of the two targets, under the names that catchup.toml gives them."""
    from cli.rich import find_targets
    from queries.column_statements import Column, ColumnSet, TableSet

    scenes, summary = find_targets(place.settings)
    described = tuple(Column(cell, "text" if source == "answer" else "text[]") for cell, source in scenes.cells.items())
    summed = tuple(
        Column(cell, "text") if source == "answer" else Column(cell, "boolean", "false")
        for cell, source in summary.cells.items()
        if source in ("answer", "true")
    )
    tags = next((cell for cell, source in scenes.cells.items() if source == "answer.tags"), "")
    return ColumnSet(
        "rich-semantics",
        (
            TableSet(scenes.spec.schema, scenes.spec.table, described, gin=tags, unique=scenes.spec.key),
            TableSet(summary.spec.schema, summary.spec.table, summed),
        ),
    )


async def _take_away(place: Place, flags: MigrateFlags, wanted: ColumnSet) -> int:
    from queries import column_sets

    held = await column_sets.find_held(place.dsn, wanted)
    if held and not flags.yes:
        said = ", ".join(f"{each.table}.{each.column} ({count(each.rows, 'row')})" for each in held)
        raise Misconfigured(
            f"--down would lose what stands in {said}; nothing was changed",
            fix="copy what you need, then add --yes",
        )
    done, kept = await column_sets.take_away(place.dsn, wanted)
    done += [f"{text} stay: they were there before" for text in kept]
    _say(flags, done or ["nothing of it was there"], "")
    return 0


def _print(wanted: ColumnSet, flags: MigrateFlags) -> int:
    """SQL on stdout and nothing else there; the explanation goes to stderr."""
    from queries.column_statements import down_statements, up_statements

    statements = down_statements(wanted) if flags.down else up_statements(wanted)
    head = "-- One statement at a time: an index that blocks no writer cannot be built in a transaction.\n"
    head += "-- This drops the columns with all that stands in them.\n" if flags.down else ""
    sys.stdout.write(head + "set lock_timeout = '2s';\n" + "".join(f"{each};\n" for each in statements))
    sys.stdout.flush()
    if flags.print_sql:
        return 0
    sys.stderr.write(
        "Supabase's REST API cannot change tables: run the SQL above in the project's SQL editor, "
        "or set DATABASE_URL and run this again.\n"
    )
    return 10


def _say_differences(flags: MigrateFlags, differences: tuple[str, ...]) -> int:
    code = 10 if differences else 0
    if flags.json:
        write_json({"type": "check", "set": flags.set, "problems": list(differences), "exit": code})
        return code
    lines = [Line("missing", text, "bad") for text in differences] or [Line("", "everything is there", "good")]
    show(lines + ([Line("next", f"catchup migrate --set {flags.set}")] if differences else []))
    return code


def _say(flags: MigrateFlags, done: list[str], follow: str) -> None:
    if flags.json:
        write_json({"type": "migrate", "set": flags.set, "done": done})
        return
    show([Line("", text, "good") for text in done] + ([Line("next", follow)] if follow else []))
