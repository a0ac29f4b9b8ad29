"""Bugs of reprocess-videos, of messages and of the work done here, planted like those of tests.chaos.planted."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from jobs import reprocess_videos, rich_videos
from queries.sent_record import SentRecord


def note_before_sending() -> None:
    """A message counts as sent when it is about to be."""
    has = SentRecord.has

    def has_now(self: SentRecord, id_: str) -> bool:
        was = has(self, id_)
        self.note(id_)
        return was

    SentRecord.has = has_now  # type: ignore[method-assign]


def note_nothing() -> None:
    """What the broker has confirmed is known to the request alone, which a kill takes with it."""
    SentRecord.note = lambda self, id_: None  # type: ignore[method-assign]


def name_anew() -> None:
    """An id that follows from nothing."""
    reprocess_videos.message_id = lambda row, target: str(uuid.uuid4())


def flag_too_early() -> None:
    """A video is summed up from whatever is there of its scenes."""
    say = rich_videos._say
    rich_videos._say = lambda scene, target: say(scene, target) or "nothing yet"


PLANTS: dict[str, Callable[[], None]] = {
    "noted-before-sent": note_before_sending,
    "sent-not-noted": note_nothing,
    "another-id-each-time": name_anew,
    "flagged-too-early": flag_too_early,
}
