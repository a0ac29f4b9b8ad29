"""catchup verify: what differs between the rows and their vectors; with --repair, exactly that is put right."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.flags import RunFlags, VerifyFlags, takes
from cli.layout import Line
from cli.main import new_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.signals import Signals
    from cli.view import View
    from jobs.engine.database import Database
    from jobs.engine.verification import Difference
    from jobs.engine.work import Work
    from queries.table import Key

app = new_app("Compare rows and their vectors, both ways; repair what differs.")
_SHOWN = 5


@app.command("verify", epilog="Example: catchup verify summaries --repair")
@takes(VerifyFlags)
def verify(
    flags: VerifyFlags,
    name: Annotated[str | None, typer.Argument(metavar="TARGET", help="Picked by the columns if left out.")] = None,
) -> None:
    """Compare the rows that should have a vector with the vectors that exist, both ways.

    Exit 0: no difference. Exit 3: there is one, and it is named. With --repair the exit code is the repair's."""
    from cli.job_command import run_job

    if name is not None and flags.target not in (None, name):
        raise typer.BadParameter(f"{name} and --target {flags.target} are two targets", param_hint="TARGET")
    command = shlex.join(["catchup", *sys.argv[1:]])
    raise typer.Exit(run_job("vectorize", replace(flags, target=name or flags.target), command, task=_verify))


async def _verify(work: Work, flags: RunFlags, view: View, signals: Signals) -> int:
    from jobs.engine.breaker import UpstreamDown

    try:
        return await _compare(work, flags, view, signals)
    except UpstreamDown as down:  # outside of a run nobody explains it: the service's own fault says more
        raise down.last from down


async def _compare(work: Work, flags: RunFlags, view: View, signals: Signals) -> int:
    from cli.report import write_json
    from jobs.engine.destination import check_destination
    from jobs.engine.verification import Verification

    assert isinstance(flags, VerifyFlags)  # noqa: S101
    _check_flags(flags)
    database = _database(work)
    facts = await database.insist(lambda: work.ledger.facts(work.target.spec))
    looking = replace(work, options=replace(work.options, dry_run=True))
    await check_destination(looking, facts, database.insist)

    async def look() -> Difference:
        return await Verification(looking, database).go()

    found = await look()
    if flags.out is not None:
        _write_files(flags.out, found)
    if flags.json:
        write_json({"type": "difference", "target": work.target.name, **_as_json(found), "exit": _exit_of(found)})
    else:
        _show(view, difference_lines(found, work, flags))
    if not flags.repair or (found.is_none and not (flags.adopt and found.unverified)):
        return _exit_of(found)
    code = await _repair(work, flags, view, signals, found)
    if not found.orphans:
        return code
    left = await look()  # a row may have come back while the repair was at work
    rest = len(left.orphans)
    if left.orphans and flags.delete_orphans and code in (0, 3):
        rest = await drop_orphans(work, view, signals, left, strangers=flags.adopt)
    elif left.orphans:
        view.say(f"{len(left.orphans):,} orphaned vectors are left: --delete-orphans deletes them")
    code = code or (3 if rest else 0)
    if flags.json:
        write_json({"type": "verdict", "target": work.target.name, "exit": code, "orphans": rest})
    return code


def _database(work: Work) -> Database:
    from jobs.engine.database import Database
    from jobs.engine.database_load import DatabaseLoad

    options = work.options
    return Database(DatabaseLoad(options.db_load, work.clock), work.ledger, work.clock, options.max_outage_s)


def _check_flags(flags: VerifyFlags) -> None:
    """What would delete too much, or nothing at all, is refused before anything is listed."""
    from queries.errors import Misconfigured

    if flags.redo_where is not None or flags.edited is not None:
        raise Misconfigured(
            "verify compares every row with its vectors, edited or not", fix="leave out --redo-where and --edited"
        )
    if flags.delete_orphans and not flags.repair:
        raise Misconfigured("--delete-orphans does nothing without --repair", fix="say both, or neither")
    if flags.adopt and not flags.repair:
        raise Misconfigured("--adopt does nothing without --repair", fix="say both, or neither")
    if flags.delete_orphans and (flags.where or flags.slice):
        raise Misconfigured(
            "--delete-orphans needs the whole table: of a part of it nobody can say which vectors are too many",
            fix="leave out --where and --slice",
        )
    if flags.out is not None:
        _make_folder(flags.out)


async def _repair(work: Work, flags: VerifyFlags, view: View, signals: Signals, found: Difference) -> int:
    """Exactly these rows, and those that failed before too: nobody else would take them again."""
    from cli.job_command import run_to_verdict
    from jobs.engine.answers import Answers
    from queries.table import Redo

    only = found.to_repair(adopt=flags.adopt)
    if not only.keys:
        return 0
    kept = Answers(work.state_dir, work.ledger.road.where, work.target.name).find(work.made_by, only.keys)
    answers = {key: answer for key, answer in kept.items() if answer.guard == found.guards.get(key)}
    if answers:
        view.say(f"{len(answers):,} of these are kept from earlier runs and are not paid for again")
    if only.free:
        view.say(f"{len(only.free):,} of these have their vectors: they are only marked as done, and nothing is paid")
    options = replace(work.options, redo=Redo("any"), edited_if_small=False, only=only, retry_failed=True)
    return await run_to_verdict(replace(work, options=options, answers=answers), flags, view, signals)


async def drop_orphans(work: Work, view: View, signals: Signals, found: Difference, *, strangers: bool) -> int:
    """How many of them are left."""
    from jobs.engine.orphans import delete_orphans

    assert work.space is not None  # noqa: S101
    signals.had_run = True  # whatever ends it from here on, something may have been done
    deleted = await delete_orphans(work, _database(work), found, strangers=strangers)
    would = "would be deleted" if work.options.dry_run else "deleted"
    view.say(f"{deleted:,} orphaned vectors {would} from {work.space.where}")
    unknown = 0 if strangers else len(found.strangers)
    if deleted + unknown < len(found.orphans):
        view.say(f"{len(found.orphans) - deleted - unknown:,} were left: their rows have come back")
    if unknown:
        view.say(
            f"{unknown:,} were left: this ledger has not written them, so they may be another database's; "
            "if you know that they are not, --adopt deletes them too"
        )
    return unknown


def difference_lines(found: Difference, work: Work, flags: VerifyFlags) -> list[Line]:
    where = work.space.where if work.space else f"column {work.target.spec.cells[0]}"
    lines = [
        Line("compared", f"{found.rows:,} rows of {work.target.spec.table} with {found.vectors:,} vectors in {where}"),
        Line("good", f"{found.good:,}", "good" if found.good else ""),
        _keys_line("missing", found.missing, "no vector", f"; {len(found.claimed):,} of them are marked as done"),
        _keys_line("stale", found.stale, "made from an older text"),
        _keys_line("model", found.other_model, "made by another model or in another way"),
        _keys_line("denied", found.denied, "there and good, but not marked as done"),
        _keys_line("unverified", found.unverified, "there, but the ledger does not know from which text"),
        _keys_line("orphaned", [(id_,) for id_ in found.orphans], "vectors that no row wants", _say_whose(found)),
    ]
    if found.not_wanted:
        said = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.not_wanted.items()))
        lines.append(Line("unwanted", f"rows that have nothing to embed: {said}", "dim"))
    if found.is_none and not found.unverified:
        return [*lines, Line("verdict", "no difference", "good")]
    return lines if flags.repair else [*lines, Line("next", _next_command(found, work))]


def _next_command(found: Difference, work: Work) -> str:
    words = work.command.replace(" --json", "")
    words += " --repair --delete-orphans" if found.orphans else " --repair"
    return words + (" --adopt" if found.unverified else "")


def _say_whose(found: Difference) -> str:
    said = ""
    if found.left_behind:
        said += (
            f"; of {len(found.left_behind):,} the row is there, without a text or left out by the target's conditions"
        )
    return said + (f"; {len(found.strangers):,} this ledger has not written" if found.strangers else "")


def _keys_line(label: str, keys: Sequence[Key], what: str, more: str = "") -> Line:
    if not keys:
        return Line(label, "0", "dim")
    first = ", ".join(" ".join(key) for key in keys[:_SHOWN])
    rest = ", …" if len(keys) > _SHOWN else ""
    return Line(label, f"{len(keys):,} {what}{more}: {first}{rest}", "warn")


def _show(view: View, lines: Sequence[Line]) -> None:
    from cli.visit import show

    view.abandon()
    show(list(lines))


def _as_json(found: Difference) -> dict[str, object]:
    lists = {name: [" ".join(key) for key in keys] for name, keys in _lists(found).items()}
    counts = {"rows": found.rows, "vectors": found.vectors, "good": found.good, "not_wanted": found.not_wanted}
    more = {"claimed": [" ".join(key) for key in found.claimed], "left_behind": sorted(found.left_behind)}
    more["strangers"] = sorted(found.strangers)
    return {**counts, **lists, **more}


def _lists(found: Difference) -> dict[str, Sequence[Key]]:
    return {
        "missing": found.missing,
        "stale": found.stale,
        "other_model": found.other_model,
        "denied": found.denied,
        "unverified": found.unverified,
        "orphans": [(id_,) for id_ in found.orphans],
    }


def _make_folder(folder: Path) -> None:
    """Before an hour of comparing, not after it."""
    from queries.errors import Misconfigured

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "missing.txt").touch()
    except OSError as error:
        raise Misconfigured(f"--out {folder}: {error.strerror}", fix="name a folder that is yours") from error


def _write_files(folder: Path, found: Difference) -> None:
    for name, keys in _lists(found).items():
        (folder / f"{name}.txt").write_text("".join(map(_as_line, keys)), encoding="utf-8")


def _as_line(key: Key) -> str:
    """As it is; one that would not be a line, or drive the terminal that shows it, as JSON writes it."""
    text = " ".join(key)
    return (text if text.isprintable() and not text.startswith('"') else json.dumps(text)) + "\n"


def _exit_of(found: Difference) -> int:
    return 0 if found.is_none else 3
