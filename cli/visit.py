"""The short visits to a database that are not a run: settings, choice, road, and one piece of work."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cli.connect import Choice, choose_database, details, hide_secrets, open_road
from cli.flags import WorldFlags
from cli.layout import Line, as_plain, as_rich
from cli.settings import Settings, load
from queries.errors import Misconfigured
from queries.ledger import Ledger
from queries.road import Road

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a visit goes; `dsn` is empty over REST."""

    settings: Settings
    choice: Choice
    road: Road
    dsn: str

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.road)


def settings_for(flags: WorldFlags) -> Settings:
    settings = load(os.environ, Path.cwd(), flags.env_file)
    hide_secrets(settings)
    return settings


def visit(flags: WorldFlags, work: Callable[[Place], Awaitable[Found]], *, needs_ledger: bool = False) -> Found:
    """Opens the chosen database, does one piece of work there, closes it."""
    settings = settings_for(flags)
    choice = choose_database(settings, flags.local)
    if not flags.quiet:
        more = details(settings) if flags.verbose else ()
        sys.stderr.write("".join(f"{text}\n" for text in (f"database: {choice.said}", *settings.warnings, *more)))

    async def go() -> Found:
        async with open_road(settings, choice, flags.allow_host or ()) as (road, dsn):
            place = Place(settings, choice, road, dsn)
            if needs_ledger and (await place.ledger.hello()).schema_version is None:
                raise Misconfigured("the ledger is not installed in this database", fix="run `catchup migrate` once")
            return await work(place)

    return asyncio.run(go())


def show(lines: list[Line]) -> None:
    """Lines on stdout, coloured where that is a terminal."""
    if not sys.stdout.isatty():
        sys.stdout.write(as_plain(lines))
        sys.stdout.flush()
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(as_rich(lines, max(20, min(console.width, 120))), end="")
