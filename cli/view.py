"""What shows a run to its operator: chosen once, by what the output is."""

from __future__ import annotations

import os
import sys
from typing import Protocol

from jobs.engine.verdict import Verdict
from jobs.engine.watch import Watcher


class View(Watcher, Protocol):
    """A watcher with a beginning and an end."""

    def say(self, text: str) -> None:
        """A line of context before the run: which database, which settings file."""
        ...

    def finish(self, verdict: Verdict) -> None: ...

    def dismiss(self) -> None:
        """Takes back an open question: a signal came instead of an answer."""
        ...

    def abandon(self) -> None:
        """Leaves the terminal usable when the process must go at once."""
        ...


def open_view(*, as_json: bool, quiet: bool, verbose: bool = False) -> View:
    if as_json:
        from cli.plain import Machine

        return Machine()
    if sys.stdout.isatty() and not quiet and os.environ.get("TERM", "dumb") != "dumb":
        from cli.screen import Screen

        return Screen()
    from cli.plain import EVERY_S, Plain

    return Plain(quiet=quiet, every_s=5.0 if verbose else EVERY_S)
