"""catchup init: look at a database, then write catchup.toml and .env for it. Nothing is overwritten."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.drafts import draft_changes, draft_summaries, draft_vectors, find_plain
from cli.flags import WorldFlags, takes
from cli.layout import Line
from cli.main import new_app
from cli.report import write_json
from cli.settings import VARIABLES, Settings
from cli.visit import Place, settings_for, show, visit
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from jobs.targets import Target
    from queries.catalog import FoundTable

app = new_app("Look at a database and write catchup.toml and .env for it.")
_GIVEN = (
    *("DATABASE_URL", "SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    *("PINECONE_API_KEY", "PINECONE_INDEX_HOST", "PINECONE_CONTROLLER_HOST"),
)
_DRAFTS_MOST = 3  # of each job


@dataclass(frozen=True, kw_only=True)
class InitFlags(WorldFlags):
    force_ask: Annotated[
        bool, typer.Option("--ask", help="Ask for the database's address on the terminal, hidden while you type.")
    ] = False


@app.command("init", epilog="Example: catchup init --local")
@takes(InitFlags)
def init(flags: InitFlags) -> None:
    """Look at a database and write catchup.toml and .env for it.

    Takes the database from the environment, from --ask or from --local, and overwrites nothing."""
    settings = settings_for(flags)
    if not (flags.local or settings.local or settings.database_url or settings.supabase_url):
        if not (flags.force_ask or sys.stdin.isatty()):
            _write_new(Path(".env"), env_text({}))
            raise Misconfigured(
                "no database to look at; .env is there to be filled in",
                fix="fill in DATABASE_URL or SUPABASE_URL and its key, then run `catchup init` again; or add --local",
            )
        os.environ["DATABASE_URL"] = typer.prompt("Postgres address (postgresql://…)", hide_input=True)
        settings = settings_for(flags)
    fitting, tables = visit(flags, _look)
    drafts = _drafts(settings, fitting, tables)
    wrote = {
        "catchup.toml": _write_new(Path("catchup.toml"), toml_text(settings, flags, fitting, drafts)),
        ".env": _write_new(Path(".env"), env_text(_given(settings))),
    }
    if flags.json:
        write_json({"type": "init", "wrote": wrote, "targets": [target.name for target in fitting]})
        return
    lines = [Line(name, "written" if new else "was there already and is left alone") for name, new in wrote.items()]
    lines += [
        Line("fits", f"{target.name}: table {target.spec.table}, cell {target.spec.cells[0]}") for target in fitting
    ]
    show([*lines, Line("next", _following(fitting, drafts if wrote["catchup.toml"] else ()))])


def _following(fitting: Sequence[Target], drafts: Sequence[str]) -> str:
    if fitting:
        return "catchup migrate"
    first = "uncomment a target in catchup.toml" if drafts else "describe a target in catchup.toml (docs/targets.md)"
    return f"{first}, then catchup migrate"


async def _look(place: Place) -> tuple[list[Target], list[FoundTable]]:
    """Default targets that fit and, where the catalogs can be read, the tables one could be written for."""
    from cli.migrate import fitting_targets

    fitting, _ = await fitting_targets(place)
    if not place.dsn:
        return fitting, []
    from queries.catalog import list_tables

    return fitting, await list_tables(place.dsn)


def _drafts(settings: Settings, fitting: Sequence[Target], tables: Sequence[FoundTable]) -> list[str]:
    """For tables that no target is about yet; summaries only where nothing fits at all."""
    about = {(target.spec.schema, target.spec.table) for target in fitting}
    free = [table for table in find_plain(tables) if (table.schema, table.table) not in about]
    summaries = [] if fitting else [draft_summaries(table) for table in free]
    vectors = [draft_vectors(table, pinecone=settings.pinecone_api_key is not None) for table in free]
    return [*list(filter(None, summaries))[:_DRAFTS_MOST], *list(filter(None, vectors))[:_DRAFTS_MOST]]


def _write_new(path: Path, text: str) -> bool:
    """Creates the file for its owner alone; False when it exists."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def _given(settings: Settings) -> dict[str, str]:
    values = {}
    for name in _GIVEN:
        value = getattr(settings, VARIABLES[name][0])
        if value:
            values[name] = value if isinstance(value, str) else value.get_secret_value()
    return values


def env_text(values: dict[str, str]) -> str:
    """Every name, those without a value commented out."""
    lines = ["# Settings of catchup for this directory; keep this file to yourself. All names: .env.example"]
    for name in VARIABLES:
        value = values.get(name)
        escaped = value.replace("\\", "\\\\").replace("'", "\\'") if value else ""
        lines.append(f"{name}='{escaped}'" if value else f"# {name}=")
    return "\n".join(lines) + "\n"


def toml_text(settings: Settings, flags: WorldFlags, fitting: Sequence[Target], drafts: Sequence[str]) -> str:
    parts = ["# What catchup does here. Secrets belong in .env, not in this file."]
    if flags.local or settings.local:
        parts.append(
            '# The embedded PostgreSQL and the local provider, chosen on purpose.\n[local]\ndirectory = ".catchup/db"'
        )
    parts.append(
        "[limits]  # US dollars; flags come before these\nmax_cost_run = 5.0\nmax_cost_day = 20.0\ndb_load = 0.25"
    )
    parts += [draft_changes(target) for target in fitting]
    return "\n\n".join([*parts, *drafts]) + "\n"
