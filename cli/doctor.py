"""catchup doctor: what is in use here, what it may do, and what is wrong with it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

import typer

from cli.destinations import examine
from cli.flags import WorldFlags, takes
from cli.layout import Line
from cli.main import new_app, own_version
from cli.migrate import fitting_targets
from cli.quantities import show_duration
from cli.report import write_json
from cli.settings import Settings
from cli.untrusted import clean
from cli.visit import Place, show, visit
from jobs.targets import Target
from queries.errors import CatchupError

app = new_app("Show which settings, role, ledger and state directory are in use.")


@app.command("doctor", epilog="Example: catchup doctor")
@takes(WorldFlags)
def doctor(flags: WorldFlags) -> None:
    """Show which settings, role, ledger and state directory are in use; exit 10 if one of them cannot work."""
    lines = visit(flags, _examine)
    bad = [line for line in lines if line.tone == "bad"]
    if flags.json:
        facts = [{"name": line.label, "text": line.text, "ok": line.tone != "bad"} for line in lines]
        write_json({"type": "doctor", "exit": 10 if bad else 0, "facts": facts})
    else:
        show(lines)
    raise typer.Exit(10 if bad else 0)


async def _examine(place: Place) -> list[Line]:
    return [*_settings_lines(place.settings), *_state_lines(place.settings), *await _database_lines(place)]


def _settings_lines(settings: Settings) -> list[Line]:
    provider = urlsplit(settings.openai_base_url or "https://api.openai.com").hostname
    limits = settings.limits
    money = [("run", limits.max_cost_run), ("hour", limits.max_cost_hour), ("day", limits.max_cost_day)]
    said = ", ".join(f"${usd:.2f} a {name}" for name, usd in money if usd is not None)
    lines = [
        Line("catchup", own_version()),
        Line(".env", clean(settings.env_file or "none here")),
        Line("catchup.toml", clean(settings.toml_file or "none here")),
        Line("provider", f"{provider}, {'a key is set' if settings.openai_api_key else 'no key is set'}"),
        Line("pinecone", "a key is set" if settings.pinecone_api_key else "no key is set"),
        Line("youtube", "a key is set" if settings.youtube_api_key else "no key is set"),
        Line("broker", _show_broker(settings)),
        Line("ceilings", said or "none: only --max-cost limits a run", "" if said else "warn"),
        Line("outage", f"given up after {show_duration(limits.max_outage)}; database load {limits.db_load:.0%}"),
    ]
    return lines + [Line("warning", clean(text, 300), "warn") for text in settings.warnings]


def _show_broker(settings: Settings) -> str:
    if settings.broker_url is None:
        return "none is set"
    host = urlsplit(settings.broker_url.get_secret_value().strip()).hostname
    queue = settings.queue
    whose = f"queue {queue.name} of {queue.library}, task {queue.task}" if queue else "whose workers is not: [queue]"
    return clean(f"{host}, {whose}")


def _state_lines(settings: Settings) -> list[Line]:
    """Proves that a journal could be written, as a run does before it pays."""
    from jobs.engine.state_dir import StateDir

    try:
        StateDir(settings.state_dir).prepare()
    except CatchupError as error:
        return [Line("state", clean(error.what, 300), "bad")]
    mode = stat.S_IMODE(os.stat(settings.state_dir).st_mode)
    return [Line("state", f"{settings.state_dir}, writable, mode {mode:04o}", "bad" if mode & 0o077 else "")]


async def _database_lines(place: Place) -> list[Line]:
    fitting, left = await fitting_targets(place)
    hello = await place.ledger.hello()
    lines = [Line("database", clean(f"{place.road.where} over {place.road.name}"))]
    lines += [Line("no fit", clean(text, 200), "dim") for text in left]
    if not fitting:
        lines.append(Line("targets", "none fits this database", "bad"))
    if hello.schema_version is None:
        return [*lines, Line("ledger", "not installed: run `catchup migrate`", "bad")]
    lines.append(Line("ledger", f"version {hello.schema_version}, seen as role {clean(hello.role)}"))
    about = {target.name: await _target_lines(place, target) for target in fitting}
    return [*lines, *_excuse(about, place.settings)]


def _excuse(about: Mapping[str, list[Line]], settings: Settings) -> Iterator[Line]:
    """A default target that merely fits, and cannot run, is nobody's mistake while another one can."""
    broken = {name for name, lines in about.items() if any(line.tone == "bad" for line in lines)}
    excused = broken - set(settings.targets) if broken != set(about) else set()
    for name, lines in about.items():
        for line in lines:
            yield replace(line, tone="warn") if line.tone == "bad" and name in excused else line


async def _target_lines(place: Place, target: Target) -> list[Line]:
    """Which of the two promises holds for the cells, and what else an UPDATE would set off."""
    from jobs.engine.opening import check_ledger, check_table

    hello = await place.ledger.hello(target.spec, target.name)
    try:
        check_ledger(hello, target)
        facts = await place.ledger.facts(target.spec)
        notes = check_table(target, facts)
    except CatchupError as error:
        return [Line(target.name, clean(f"{error.what}; {error.fix}", 300), "bad")]
    kept = "the database itself: this role can update nothing else" if hello.least_privilege else "our functions only"
    rows = f"~{facts.estimated_rows:,} rows" if facts.estimated_rows else "not analyzed by Postgres yet, or empty"
    lines = [Line(target.name, f"table {target.spec.table}, {rows}; cells kept by {kept}")]
    if target.spec.pending and not facts.pending_index:
        lines.append(Line(target.name, "no partial index on what is pending: `catchup migrate` prints one", "warn"))
    fires = (*facts.triggers, *(f"publication {name}" for name in facts.publications))
    if fires:
        lines.append(Line(target.name, clean(f"each written row fires {', '.join(fires)}", 300), "warn"))
    lines += [Line(target.name, clean(note, 300), "warn") for note in notes]
    return lines + await examine(place, target)
