"""catchup migrate: the ledger's tables and functions, and the registry of cells, in the operator's database."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cli.destinations import as_run, examine, say_destination
from cli.flags import WorldFlags, takes
from cli.layout import Line
from cli.main import new_app
from cli.report import write_json
from cli.visit import Place, show, visit
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from jobs.targets import Target

app = new_app("Install or check the ledger in your database, or print its SQL.")


@dataclass(frozen=True, kw_only=True)
class MigrateFlags(WorldFlags):
    print_sql: Annotated[
        bool, typer.Option("--print", help="Print the SQL for an SQL editor (Supabase has one); change nothing.")
    ] = False
    check: Annotated[bool, typer.Option("--check", help="Say what migrate would put right; exit 10 if anything.")] = (
        False
    )
    worker: Annotated[
        bool, typer.Option("--worker", help="Make the role catchup_worker too, which can update nothing but the cells.")
    ] = False
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Remove the ledger with all its runs; your own tables are not touched.")
    ] = False
    set: Annotated[
        str | None,
        typer.Option("--set", metavar="NAME", help="Add the columns a job needs to your tables: rich-semantics."),
    ] = None
    down: Annotated[bool, typer.Option("--down", help="With --set: take them away again.")] = False
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Needed by --uninstall, and by --down where data would be lost.")
    ] = False


@app.command("migrate", epilog="Example: catchup migrate --print")
@takes(MigrateFlags)
def migrate(flags: MigrateFlags) -> None:
    """Install or check the ledger in your database, or print its SQL.

    The targets that fit the database are registered: the ledger's functions write their cells and no other."""
    if flags.down and flags.set is None:
        raise Misconfigured("--down takes a set of columns away, and none is named", fix="add --set rich-semantics")
    if flags.uninstall and not (flags.yes or flags.print_sql):
        raise Misconfigured(
            "--uninstall deletes every run and verdict of the ledger", fix="add --yes, or --print to read it"
        )
    raise typer.Exit(visit(flags, lambda place: _do(place, flags)))


async def _do(place: Place, flags: MigrateFlags) -> int:
    if flags.set is not None:
        from cli.column_set import change

        return await change(place, flags)
    from queries import migrations

    fitting, left = await fitting_targets(place)
    wanted = [migrations.Registration(target.name, target.spec, target.views) for target in fitting]
    if flags.print_sql or not place.dsn:
        return _print(place, flags, fitting)
    if flags.check:
        return _report_check(flags, await migrations.check(place.dsn, wanted))
    if flags.uninstall:
        await migrations.uninstall(place.dsn)
        show([Line("", "the ledger is removed; your own tables are as they were", "good")])
        return 0
    _require_targets(fitting, left)
    done = await migrations.migrate(place.dsn, wanted, worker=flags.worker)
    indexes, notes = await _missing_indexes(place, fitting), await _notes(place, fitting)
    if flags.json:
        about = {"indexes": indexes, "notes": [note.text for note in notes]}
        write_json(
            {"type": "migrate", "before": done.before, "now": done.now, "registered": list(done.registered), **about}
        )
        return 0
    was = "was not there" if done.before is None else f"was version {done.before}"
    lines = [Line("ledger", f"version {done.now} ({was})", "good")]
    lines += [Line("target", _say(place, target)) for target in fitting]
    lines += [*notes, *(Line("index", text, "dim") for text in indexes)]
    if indexes:
        lines.append(
            Line("", "An index is a suggestion: run it yourself if the table is large, outside of a transaction.")
        )
    show(lines)
    return 0


def _say(place: Place, target: Target) -> str:
    there = say_destination(as_run(place, target))
    writes = f"may write {', '.join(target.spec.cells)}" if target.spec.cells else "writes nothing, sends messages"
    return f"{target.name}: {writes}" + (f"; vectors go to {there}" if there else "")


def _one_for_each_cell(targets: Sequence[Target]) -> list[Target]:
    """Of targets that share table and cell, the one with the fewest conditions: its index serves the others too."""
    chosen: dict[tuple[str, str, str], Target] = {}
    for target in sorted(targets, key=lambda target: len(target.spec.pending)):
        chosen.setdefault((target.spec.schema, target.spec.table, (*target.spec.cells, target.name)[0]), target)
    return [target for target in targets if target in chosen.values()]


async def _missing_indexes(place: Place, targets: Sequence[Target]) -> list[str]:
    from queries.migrations import Registration, index_sql

    return [
        index_sql(Registration(target.name, target.spec))
        for target in _one_for_each_cell(targets)
        if target.spec.pending and not (await place.ledger.facts(target.spec)).pending_index
    ]


async def _notes(place: Place, targets: Sequence[Target]) -> list[Line]:
    """What vectors in this database lack: an extension and a column's type are their owner's decisions."""
    said: dict[str, list[str]] = {}
    for target in targets:
        if _is_kept_here(as_run(place, target)):
            for line in await examine(place, target):
                if line.tone == "bad":
                    said.setdefault(line.text, []).append(target.name)
    return [Line("to do", f"{', '.join(names)}: {text}; then migrate again", "warn") for text, names in said.items()]


async def fitting_targets(place: Place) -> tuple[list[Target], list[str]]:
    """Targets whose table and columns exist here, and why the others are left out. Reads only."""
    from cli.choices import targets_of
    from jobs.engine.choose import probe
    from jobs.registry import load_all

    fitting, left = [], []
    for job in load_all():
        for target in targets_of(job, place.settings).values():
            try:
                await probe(target, place.road)
            except Misconfigured as missing:
                if target.name in place.settings.targets:
                    raise
                left.append(f"{target.name}: {missing.words or missing.what}")
            else:
                fitting.append(target)
    return fitting, left


def _require_targets(fitting: list[Target], left: list[str]) -> None:
    if not fitting:
        raise Misconfigured(
            "no target fits this database: " + "; ".join(left),
            fix="describe your table in catchup.toml (`catchup init` writes one)",
        )


def _print(place: Place, flags: MigrateFlags, fitting: Sequence[Target]) -> int:
    """SQL on stdout and nothing else there, so that it can be piped; the explanation goes to stderr."""
    from queries import migrations

    wanted = [migrations.Registration(target.name, target.spec, target.views) for target in fitting]
    if flags.uninstall:
        text = migrations.uninstall_sql() + "\n"
    else:
        text = migrations.print_sql(wanted, worker=flags.worker) + _remarks(place, fitting)
    sys.stdout.write(text)
    sys.stdout.flush()
    if not flags.print_sql:
        sys.stderr.write(
            "Supabase's REST API cannot create tables: paste the SQL above into the project's SQL editor, "
            "or set DATABASE_URL and run this again.\n"
        )
        return 10
    return 0


def _remarks(place: Place, fitting: Sequence[Target]) -> str:
    """As comments: an extension is the owner's decision, and such an index cannot be made in a transaction."""
    from queries.migrations import Registration, index_sql
    from queries.vector_column import NO_EXTENSION

    inside = [target.name for target in fitting if _is_kept_here(as_run(place, target))]
    lines = [
        "-- Worth having on a large table, each by itself and outside of a transaction, where there is none already:"
    ]
    indexed = [target for target in _one_for_each_cell(fitting) if target.spec.pending]
    lines += [f"-- {index_sql(Registration(target.name, target.spec))}" for target in indexed]
    if inside:
        lines += [
            f"-- Vectors of {', '.join(inside)} need pgvector. Where it is missing (Supabase: Database, Extensions),",
            f"-- before all of the above: {NO_EXTENSION};",
        ]
    return "\n".join(["", *lines, ""]) if fitting else ""


def _is_kept_here(target: Target) -> bool:
    return target.embedding is not None and target.embedding.into != "pinecone"


def _report_check(flags: MigrateFlags, problems: tuple[str, ...]) -> int:
    code = 10 if problems else 0
    if flags.json:
        write_json({"type": "check", "problems": list(problems), "exit": code})
    else:
        lines = [Line("wrong", text, "bad") for text in problems] or [Line("", "the ledger is as it should be", "good")]
        show(lines + ([Line("next", "catchup migrate")] if problems else []))
    return code
