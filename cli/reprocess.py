"""catchup reprocess-videos: what was stuck is put back, the rest is sent, and then watched; or done here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cli.reprocess_flags import ReprocessFlags
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from cli.flags import RunFlags
    from cli.signals import Signals
    from cli.view import View
    from jobs.engine.work import Work

_OF_MODELS = ("model", "price", "provider", "max_cost", "redo_where", "max_rate", "concurrency")


def reprocess(name: str, flags: ReprocessFlags, command: str) -> int:
    """The exit code of the one road or the other."""
    if flags.inline:
        from cli.inline import run_inline

        return run_inline(flags, command)
    for option in _OF_MODELS:
        if getattr(flags, option) is not None:
            said = f"--{option.replace('_', '-')}"
            raise Misconfigured(f"{said} means nothing where messages are sent", fix="leave it out, or say --inline")
    from cli.job_command import run_job

    return run_job(name, flags, command, task=send_to_verdict)


async def send_to_verdict(work: Work, flags: RunFlags, view: View, signals: Signals) -> int:
    """The run to its verdict; then, if asked for, the videos to their end."""
    from cli.job_command import finish, run_work
    from jobs.engine.verdict import Exit

    assert isinstance(flags, ReprocessFlags)  # noqa: S101
    began = time.monotonic()
    verdict = await run_work(work, view, signals)
    finish(verdict, flags, view)
    is_over = verdict.exit in (Exit.DONE, Exit.SOME_NAMED, Exit.NOTHING_TO_DO)
    if not flags.follow or flags.dry_run or not is_over:
        return int(verdict.exit)
    from cli.follow import follow
    from cli.sending import open_following

    deadline = None if flags.max_runtime is None else began + flags.max_runtime
    return await follow(open_following(work, verdict.run_id), flags, deadline) or int(verdict.exit)
