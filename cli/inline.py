"""catchup reprocess-videos --inline: the work itself, with the engine and a model, instead of messages to workers."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli import choices
from cli.job_command import finish
from cli.reprocess_flags import ReprocessFlags
from queries.errors import Misconfigured
from queries.table import Condition

if TYPE_CHECKING:
    from cli.settings import Settings
    from cli.signals import Signals
    from cli.view import View
    from jobs.engine.verdict import Exit
    from jobs.rich_inline import Selection
    from jobs.rich_steps import Steps

_OF_MESSAGES = ("delay", "max_depth", "resend_after", "create_queue", "follow")


def run_inline(flags: ReprocessFlags, command: str) -> int:
    """Loads settings, opens the view, does the work; returns the exit code."""
    from cli.connect import hide_secrets
    from cli.settings import load
    from cli.signals import Signals
    from cli.view import open_view

    _refuse_flags(flags)
    settings = load(os.environ, Path.cwd(), flags.env_file)
    hide_secrets(settings)
    view = open_view(as_json=flags.json, quiet=flags.quiet, verbose=flags.verbose)
    signals = Signals(view.abandon)
    try:
        return asyncio.run(_do(flags, command, settings, view, signals))
    except asyncio.CancelledError:
        sys.stderr.write("stopped before the run began: nothing was written, nothing was paid\n")
        return int(signals.exit or 1)
    finally:
        view.abandon()


def _refuse_flags(flags: ReprocessFlags) -> None:
    for name in _OF_MESSAGES:
        if getattr(flags, name):
            raise Misconfigured(
                f"--{name.replace('_', '-')} is about messages, and --inline sends none", fix="leave it out"
            )
    if flags.redo_where is not None:
        raise Misconfigured("--redo-where means nothing here: a video is done once it has its flag", fix="leave it out")


async def _do(flags: ReprocessFlags, command: str, settings: Settings, view: View, signals: Signals) -> int:
    from cli import connect
    from cli.rich import open_steps
    from jobs.rich_inline import Inline

    signals.install()
    choice = connect.choose_database(settings, flags.local)
    for text in (f"database: {choice.said}", *settings.warnings, *(connect.details(settings) if flags.verbose else ())):
        view.say(text)
    async with (
        connect.open_road(settings, choice, flags.allow_host or ()) as (road, _),
        open_steps(settings, flags, road, choice.kind, view, command) as steps,
    ):
        inline = Inline(steps, await _select(flags, steps))

        def stop(exit_: Exit, why: str) -> None:
            inline.ask_stop(exit_, why)
            view.dismiss()

        signals.ask = stop
        try:
            verdict = await inline.go()
        finally:
            signals.ask, signals.had_run = None, True
    finish(verdict, flags, view)
    return int(verdict.exit)


async def _select(flags: ReprocessFlags, steps: Steps) -> Selection:
    from cli.id_list import key_type, read_ids
    from jobs.rich_inline import Selection

    summary = steps.summary.target
    where = choices.filters_from(replace(flags, where=flags.where or []), summary)
    if flags.owner_id is not None:
        where = (*where, ("owner_id", flags.owner_id))
    ids = None
    if flags.ids_from is not None:
        ids = tuple(read_ids(flags.ids_from, await key_type(steps.summary.ledger, summary.spec)))
    pending = (Condition("status", "=", flags.status or "READY"),)
    return Selection(pending, where, flags.limit, ids)
