"""catchup verify: what differs between the rows and their vectors; with --repair, exactly that is put right."""

from __future__ import annotations

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
    from jobs.engine.verification import Difference
    from jobs.engine.work import Work
    from queries.table import Key

app = new_app("Compare rows and their vectors, both ways; repair what differs.")
_SHOWN = 5
_ORPHANS_ASKED = 1_000
_DELETED_AT_ONCE = 1_000


@app.command("verify", epilog="Example: catchup verify summaries --repair")
@takes(VerifyFlags)
def verify(
    flags: VerifyFlags,
    name: Annotated[str | None, typer.Argument(metavar="TARGET", help="Picked by the columns if left out.")] = None,
) -> None:
    """Compare the rows that should have a vector with the vectors that exist, both ways.

    Exit 0: no difference. Exit 3: there is one, and it is named. With --repair the exit code is the repair's."""
    from cli.job_command import run_job

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
    from jobs.engine.database import Database
    from jobs.engine.database_load import DatabaseLoad
    from jobs.engine.destination import check_destination
    from jobs.engine.verification import Verification

    assert isinstance(flags, VerifyFlags)  # noqa: S101
    _check_flags(flags, work)
    options = work.options
    database = Database(DatabaseLoad(options.db_load, work.clock), work.ledger, work.clock, options.max_outage_s)
    facts = await database.insist(lambda: work.ledger.facts(work.target.spec))
    looking = replace(work, options=replace(options, dry_run=True))
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
    left = (await look()).orphans  # a row may have come back while the repair was at work
    if left and flags.delete_orphans and code in (0, 3):
        await delete_orphans(work, flags, view, left)
    elif left:
        view.say(f"{len(left):,} orphaned vectors are left: --delete-orphans deletes them")
        code = code or 3
    if flags.json:
        write_json({"type": "verdict", "target": work.target.name, "exit": code, "orphans": len(left)})
    return code


def _check_flags(flags: VerifyFlags, work: Work) -> None:
    """What would delete too much, or nothing at all, is refused before anything is listed."""
    from queries.errors import Misconfigured

    if flags.adopt and work.target.embedding is not None and work.target.embedding.has_many:
        raise Misconfigured(
            f"--adopt: target {work.target.name} is in chunks, and nobody knows how many vectors each row has",
            fix="leave it out; rows that are not marked as done are embedded again by `catchup vectorize`",
        )

    if flags.delete_orphans and not flags.repair:
        raise Misconfigured("--delete-orphans does nothing without --repair", fix="say both, or neither")
    if flags.delete_orphans and (flags.where or flags.slice):
        raise Misconfigured(
            "--delete-orphans needs the whole table: of a part of it nobody can say which vectors are too many",
            fix="leave out --where and --slice",
        )


async def _repair(work: Work, flags: VerifyFlags, view: View, signals: Signals, found: Difference) -> int:
    from cli.job_command import run_to_verdict
    from jobs.engine.answers import Answers
    from queries.table import Redo

    only = found.to_repair(adopt=flags.adopt)
    code = 0
    if only.keys:
        answers = Answers(work.state_dir, work.ledger.road.where, work.target.name).find(work.made_by, only.keys)
        if answers:
            view.say(f"{len(answers):,} of these are kept from earlier runs and are not paid for again")
        options = replace(
            work.options, redo=Redo("any"), edited_if_small=False, only=only, limit=None, adopt=flags.adopt
        )
        code = await run_to_verdict(replace(work, options=options, answers=answers), flags, view, signals)
    return code


async def delete_orphans(work: Work, flags: RunFlags, view: View, orphans: Sequence[str]) -> None:
    """Only where this target is the one that the place belongs to: another's vectors look like orphans too."""
    from jobs.engine.destination import place_of
    from jobs.engine.insistence import Insistence
    from queries.errors import Misconfigured

    assert work.space is not None  # noqa: S101
    assert work.target.embedding is not None  # noqa: S101
    place = await work.ledger.places.find(place_of(work, work.target.embedding))
    if place is None or place.target != work.target.name:
        owner = place.target if place else "no target"
        raise Misconfigured(
            f"{work.space.where} belongs to {owner}, not to {work.target.name}: nothing was deleted",
            fix="delete them with the target that wrote them",
            service=work.space.name,
        )
    if len(orphans) > _ORPHANS_ASKED and not flags.yes:
        raise Misconfigured(
            f"{len(orphans):,} vectors would be deleted from {work.space.where}",
            fix="look at them with --out, then --yes",
        )
    if flags.dry_run:
        view.say(f"{len(orphans):,} orphaned vectors would be deleted from {work.space.where}")
        return
    service = Insistence(work.space.name, work.clock, work.options.max_outage_s)
    for start in range(0, len(orphans), _DELETED_AT_ONCE):
        part = orphans[start : start + _DELETED_AT_ONCE]
        await service.insist(lambda part=part: work.space.delete(part))  # type: ignore[misc]
    view.say(f"{len(orphans):,} orphaned vectors deleted from {work.space.where}")


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
        _keys_line("orphaned", [(id_,) for id_ in found.orphans], "vectors that belong to no row"),
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
    can_adopt = work.target.embedding is not None and not work.target.embedding.has_many
    return words + (" --adopt" if found.unverified and can_adopt else "")


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
    return {**counts, **lists, "claimed": [" ".join(key) for key in found.claimed]}


def _lists(found: Difference) -> dict[str, Sequence[Key]]:
    return {
        "missing": found.missing,
        "stale": found.stale,
        "other_model": found.other_model,
        "denied": found.denied,
        "unverified": found.unverified,
        "orphans": [(id_,) for id_ in found.orphans],
    }


def _write_files(folder: Path, found: Difference) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, keys in _lists(found).items():
        (folder / f"{name}.txt").write_text("".join(" ".join(key) + "\n" for key in keys), encoding="utf-8")


def _exit_of(found: Difference) -> int:
    return 0 if found.is_none else 3
