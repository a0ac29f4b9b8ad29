"""catchup reprocess-videos --inline: the work itself, with the engine and a model, instead of messages to workers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cli import choices
from cli.job_command import finish
from cli.opening import go_under, open_place, run_task
from cli.reprocess_flags import ReprocessFlags
from queries.errors import Misconfigured
from queries.table import Condition

if TYPE_CHECKING:
    from cli.settings import Settings
    from cli.signals import Signals
    from cli.view import View
    from jobs.rich_inline import Selection
    from jobs.rich_steps import Steps

_OF_MESSAGES = ("delay", "max_depth", "resend_after", "create_queue", "follow")


def run_inline(flags: ReprocessFlags, command: str) -> int:
    """Loads settings, opens the view, does the work; returns the exit code."""
    _refuse_flags(flags)

    async def do(settings: Settings, view: View, signals: Signals) -> int:
        return await _do(flags, command, settings, view, signals)

    return run_task(flags, do)


def _refuse_flags(flags: ReprocessFlags) -> None:
    for name in _OF_MESSAGES:
        if getattr(flags, name):
            raise Misconfigured(
                f"--{name.replace('_', '-')} is about messages, and --inline sends none", fix="leave it out"
            )
    if flags.redo_where is not None:
        raise Misconfigured("--redo-where means nothing here: a video is done once it has its flag", fix="leave it out")


async def _do(flags: ReprocessFlags, command: str, settings: Settings, view: View, signals: Signals) -> int:
    from cli.rich import open_steps
    from jobs.rich_inline import Inline

    async with (
        open_place(settings, flags, view) as place,
        open_steps(settings, flags, place.road, place.choice.kind, view, command) as steps,
    ):
        verdict = await go_under(signals, Inline(steps, await _select(flags, steps)), view)
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
