"""What only `catchup reprocess-videos` asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cli import quantities
from cli.flags import RunFlags, option

_TIME = quantities.read_duration_s


@dataclass(frozen=True, kw_only=True)
class ReprocessFlags(RunFlags):
    """Which videos, how fast they are sent, and whether to watch or to do the work here."""

    owner_id: Annotated[str | None, option(metavar="ID", help="Only videos of this owner.")] = None
    status: Annotated[str | None, option(metavar="STATUS", help="Videos in this status instead of READY.")] = None
    ids_from: Annotated[
        Path | None, option(metavar="FILE", help="Only the videos whose ids stand there, one a line; - is stdin.")
    ] = None
    reset_stuck: Annotated[
        float | None,
        option(read=_TIME, metavar="TIME", help="First put back what has sat in PROCESSING longer, such as 30m."),
    ] = None
    delay: Annotated[float | None, option(read=_TIME, metavar="TIME", help="At least this long between messages.")] = (
        None
    )
    max_depth: Annotated[
        int | None, option(min=1, metavar="N", help="Hold while more than N messages wait in the queue.")
    ] = None
    resend_after: Annotated[
        float | None,
        option(read=_TIME, metavar="TIME", help="Send again what was sent this long ago and has not changed since."),
    ] = None
    create_queue: Annotated[
        bool, option("--create-queue", help="In Redis: the queue's name is right, though nothing was ever in it.")
    ] = False
    follow: Annotated[
        bool, option("--follow", help="Then watch the videos until they are done; Ctrl-C ends the watching only.")
    ] = False
    inline: Annotated[
        bool, option("--inline", help="Do the work here, with the engine and a model, instead of sending it.")
    ] = False
