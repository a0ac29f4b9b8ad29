"""catchup init: look at a database, then write catchup.toml and .env for it. Nothing is overwritten."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
_SECRETS = ("DATABASE_URL", "SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL")
_SUGGESTED_AT_MOST = 3


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
    fitting, suggested = visit(flags, _look)
    wrote = {
        "catchup.toml": _write_new(Path("catchup.toml"), toml_text(settings, flags, fitting, suggested)),
        ".env": _write_new(Path(".env"), env_text(_given(settings))),
    }
    if flags.json:
        write_json({"type": "init", "wrote": wrote, "targets": [target.name for target in fitting]})
        return
    lines = [Line(name, "written" if new else "was there already and is left alone") for name, new in wrote.items()]
    lines += [
        Line("fits", f"{target.name}: table {target.spec.table}, cell {target.spec.cells[0]}") for target in fitting
    ]
    following = "catchup migrate" if fitting else "edit [targets] in catchup.toml, then catchup migrate"
    show([*lines, Line("next", following)])


async def _look(place: Place) -> tuple[list[Target], list[FoundTable]]:
    """Default targets that fit; where none does and the catalogs can be read, tables one could be written for."""
    from cli.migrate import fitting_targets

    fitting, _ = await fitting_targets(place)
    if fitting or not place.dsn:
        return fitting, []
    from queries.catalog import list_tables

    return fitting, await list_tables(place.dsn)


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
    for name in _SECRETS:
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


def toml_text(settings: Settings, flags: WorldFlags, fitting: Sequence[Target], suggested: Sequence[FoundTable]) -> str:
    parts = ["# What catchup does here. Secrets belong in .env, not in this file."]
    if flags.local or settings.local:
        parts.append(
            '# The embedded PostgreSQL and the local provider, chosen on purpose.\n[local]\ndirectory = ".catchup/db"'
        )
    parts.append(
        "[limits]  # US dollars; flags come before these\nmax_cost_run = 5.0\nmax_cost_day = 20.0\ndb_load = 0.25"
    )
    for target in fitting:
        parts.append(
            f"# The default target {target.name} fits this database. Uncomment what you want to change:\n"
            f'# [targets.{target.name}]\n# filters = {_toml_list(target.spec.filters)}\n# model = "{target.model}"'
        )
    parts += [_suggest(table) for table in suggested[:_SUGGESTED_AT_MOST]]
    return "\n\n".join(parts) + "\n"


def _suggest(table: FoundTable) -> str:
    """A whole target over real names, commented out: which cell to fill is the operator's decision."""
    summaries = [name for name in table.empty_able if "summary" in name] or list(table.empty_able)
    cell = summaries[0]
    read = [name for name in table.texts if name != cell and name not in table.key][:3]
    lines = [
        f"Table {table.schema}.{table.table} (~{table.estimated_rows:,} rows). Check every line, then uncomment:",
        f"[targets.{table.table.lower().replace('_', '-')}]",
        f'table = "{table.table}"',
        f'schema = "{table.schema}"',
        f"key = {_toml_list(table.key)}",
        f"read = {_toml_list(read)}",
        f'pending = ["{cell} is null"]',
        f'cells = {{ {cell} = "answer" }}',
        'prompt = "Summarise the text in one or two plain sentences. Use only what it says."',
        'model = "gpt-4o-mini"',
    ]
    return "\n".join(f"# {line}" for line in lines)


def _toml_list(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
