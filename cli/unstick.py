"""--reset-stuck: what has sat in PROCESSING for too long is listed, and put back before anything is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from cli.layout import count
from cli.quantities import show_duration
from cli.untrusted import clean
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from cli.reprocess_flags import ReprocessFlags
    from cli.view import View
    from jobs.engine.database import Database
    from jobs.engine.options import Options
    from jobs.targets import Target
    from queries.message_ledger import MessageLedger, Stuck

_NAMED_MOST = 20
_UNASKED_MOST = 1_000


async def unstick(
    flags: ReprocessFlags,
    options: Options,
    targets: tuple[Target, Target],
    messages: MessageLedger,
    database: Database,
    view: View,
    ready: Callable[[], Awaitable[Sequence[str]]],
) -> None:
    """`targets`: what is sent, and what is put back. Not for a queue that is not there; a dry run lists only."""
    from jobs.stuck_videos import Unsticking

    assert flags.reset_stuck is not None  # noqa: S101
    sent, stuck = targets
    task = Unsticking(messages, database, stuck, sent.name, flags.reset_stuck, options.where)
    found = await task.find(_UNASKED_MOST + 1)
    longer = f"sat in PROCESSING for more than {show_duration(flags.reset_stuck)}"
    if flags.dry_run:
        view.say(
            f"would put back {count(len(found), 'video')} that {longer}" + (", at least" if _is_many(found) else "")
        )
        _name(found, view, "would put back")
        return
    if not found:
        view.say(f"no video has {longer}")
        return
    await ready()
    if _is_many(found) and not flags.yes:
        raise Misconfigured(f"more than {_UNASKED_MOST:,} videos have {longer}", fix="say --yes to mean it")
    done = 0
    while found:
        back = [row async for row in task.put_back(found)]
        _name(back if done == 0 else (), view, "put back")
        done += len(back)
        if not _is_many(found):
            break
        found = await task.find(_UNASKED_MOST + 1)
    view.say(f"put back {count(done, 'video')} that had {longer}")


def _is_many(found: Sequence[Stuck]) -> bool:
    return len(found) > _UNASKED_MOST


def _name(rows: Sequence[Stuck], view: View, verb: str) -> None:
    for row in rows[:_NAMED_MOST]:
        since = f"{show_duration(row.seconds)}, since {row.since[:19]}"
        view.say(f"{verb} {clean(' '.join(row.key), 40)}: in PROCESSING for {since}")
    if len(rows) > _NAMED_MOST:
        view.say(f"and {len(rows) - _NAMED_MOST:,} more")
