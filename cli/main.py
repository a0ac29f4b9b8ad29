"""The console script. Nothing but typer is imported until a command is chosen."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any

import typer
from typer.core import TyperGroup

from jobs.registry import find_jobs

HELP = """Jobs that fill and maintain columns of a Postgres table, and never lie, lose or pay twice.

Start with `catchup init`, look with `--dry-run`, then run the job."""

# name: (module, what it does). A module is imported when its command is used.
COMMANDS = {
    "submit-batch": ("cli.submit_batch", "A job's work at half the price, by OpenAI's Batch API: hand in, collect."),
    "batches": ("cli.batches", "List, show, cancel and collect batches."),
    "plan": ("cli.lanes", "Compare the live road, batches and both: when each is done, and what it costs."),
    "worker": ("cli.worker", "Take videos from the workers' queue and do the work; run as many as needed."),
    "runs": ("cli.runs", "List, show, resume, cancel and prune runs."),
    "verify": ("cli.verify", "Compare rows and their vectors, both ways; repair what differs."),
    "search": ("cli.search", "Find the rows whose text is nearest to what is asked."),
    "index": ("cli.index", "Build the HNSW index that makes search over pgvector fast."),
    "init": ("cli.init", "Look at a database and write catchup.toml and .env for it."),
    "migrate": ("cli.migrate", "Install or check the ledger in your database, or print its SQL."),
    "doctor": ("cli.doctor", "Show which settings, role, ledger and state directory are in use."),
    "db": ("cli.db", "The embedded database: stop it."),
}


class Commands(MutableMapping[str, Any]):
    """Commands by name; looking one up imports its module."""

    def __init__(self) -> None:
        self.jobs = find_jobs()
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> Any:
        from importlib import import_module

        if name in self.jobs:
            return import_module("cli.job_command").build(name)
        return typer.main.get_command(import_module(COMMANDS[name][0]).app)

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self.jobs, *COMMANDS])

    def __len__(self) -> int:
        return len(self.jobs) + len(COMMANDS)


class _LazyGroup(TyperGroup):
    """Help and completion list every command without importing one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._lazy = Commands()
        self.commands = self._lazy

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self._lazy)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, rows in (("Jobs", self._lazy.jobs), ("Commands", {n: text for n, (_, text) in COMMANDS.items()})):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(list(rows.items()))


def new_app(help_text: str, *, cls: type[TyperGroup] = TyperGroup, add_completion: bool = False) -> typer.Typer:
    """Every Typer of ours: plain help, no panels, never a local variable in a traceback."""
    return typer.Typer(
        cls=cls,
        help=help_text,
        no_args_is_help=True,
        add_completion=add_completion,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        pretty_exceptions_show_locals=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


app = new_app(HELP, cls=_LazyGroup, add_completion=True)


def own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("catchup")
    except PackageNotFoundError:
        return "(run from its sources)"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"catchup {own_version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main() -> None:
    """Runs one command; whatever is raised becomes a sentence and an exit code of the documented set."""
    from cli import streams
    from cli.memory import look_for_garbage_seldom

    look_for_garbage_seldom()
    streams.guard()
    try:
        refuse_keys(sys.argv[1:])
        app(prog_name="catchup")
    except Exception as error:
        from cli.report import fail

        sys.exit(fail(error))


# OpenAI, Supabase (secret and legacy JWT), a DSN with a password: the process list is world-readable.
_KEY = re.compile(r"(?:^|=)(?:sk-\S{8,}|sb_secret_|eyJ[\w-]{8,}|postgres(?:ql)?://[^/@]*:[^/@]*@)")


def refuse_keys(words: list[str]) -> None:
    """Stops before a key given as a flag is used: it was visible to everyone on this machine."""
    for position, word in enumerate(words, 1):
        if _KEY.search(word):
            from queries.errors import Misconfigured

            raise Misconfigured(
                f"word {position} of the command line looks like a key, and `ps` shows it to everybody on this machine",
                fix="put it into the environment or .env (see .env.example), and consider that key leaked",
            )
