"""What every command that works opens and closes around its task: settings, view, signals and the database."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cli.flags import WorldFlags
    from cli.settings import Settings
    from cli.signals import Signals
    from cli.view import View
    from cli.visit import Place
    from jobs.engine.verdict import Exit, Verdict

    Task = Callable[[Settings, View, Signals], Coroutine[Any, Any, int]]

BEFORE = "stopped before the run began: nothing was written, nothing was paid"
_AFTER = "stopped after the run: what was to follow is not finished"


class Stoppable(Protocol):
    def ask_stop(self, exit_: Exit, why: str) -> None: ...

    async def go(self) -> Verdict: ...


def run_task(flags: WorldFlags, task: Task, *, view: View | None = None, before: str = BEFORE) -> int:
    """The task's exit code; `before` is said of a signal that came before there was anything to stop."""
    from cli.connect import hide_secrets
    from cli.settings import load
    from cli.signals import Signals
    from cli.view import open_view

    settings = load(os.environ, Path.cwd(), flags.env_file)
    hide_secrets(settings)
    view = view or open_view(as_json=flags.json, quiet=flags.quiet, verbose=flags.verbose)
    signals = Signals(view.abandon)

    async def do() -> int:
        signals.install()
        return await task(settings, view, signals)

    try:
        return asyncio.run(do())
    except asyncio.CancelledError:
        sys.stderr.write(f"{_AFTER if signals.had_run else before}\n")
        return int(signals.exit or 1)
    finally:
        view.abandon()


@asynccontextmanager
async def open_place(
    settings: Settings, flags: WorldFlags, view: View, *, more: tuple[str, ...] = ()
) -> AsyncIterator[Place]:
    """Says which database it is, and `more`, before it is opened."""
    from cli import connect
    from cli.visit import Place

    choice = connect.choose_database(settings, flags.local)
    details = connect.details(settings) if flags.verbose else ()
    for text in (f"database: {choice.said}", *settings.warnings, *details, *more):
        view.say(text)
    async with connect.open_road(settings, choice, flags.allow_host or ()) as (road, dsn):
        yield Place(settings, choice, road, dsn)


async def go_under(signals: Signals, going: Stoppable, view: View) -> Verdict:
    """Signals end it in order; what a command does afterwards is ended by a signal like anything else."""

    def stop(exit_: Exit, why: str) -> None:
        going.ask_stop(exit_, why)
        view.dismiss()

    signals.ask = stop
    try:
        return await going.go()
    finally:
        signals.ask, signals.had_run = None, True
