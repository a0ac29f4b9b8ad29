"""The one dialect for a video platform's statistics: ids in, the counts of each video that is there out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from queries.errors import RateLimits

# Documented for videos.list (its page and docstring in google-api-python-client 2.202, read 2026-11-21).
IDS_MOST = 50
UNITS_A_CALL = 1
MODEL = "youtube-data-v3"
COUNT_MOST = 2**63 - 1
"""Counts are unsigned 64-bit numbers there; a bigint holds them up to here."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


def is_video_id(text: str) -> bool:
    """Eleven of these signs today; their number is not promised."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class ViewsRequest:
    """At most fifty ids; the call costs one unit, whatever their number."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VideoCounts:
    """The counts of one video; None is hidden or not told, which is not zero."""

    video_id: str
    views: int | None
    likes: int | None
    comments: int | None


@dataclass(frozen=True, slots=True)
class ViewsAnswer:
    """`odd` are asked-for ids whose item cannot be believed, with a short stable word why: neither there nor absent.

    `strays` counts items that name no video we asked for; they are nobody's counts. `at` is the service's own clock.
    """

    found: Mapping[str, VideoCounts]
    odd: Mapping[str, str] = field(default_factory=dict)
    strays: int = 0
    at: str | None = None
    model: str = MODEL
    tokens_in: int = 0
    tokens_out: int = 0
    text: str | None = None
    limits: RateLimits | None = None

    def absent(self, request: ViewsRequest) -> tuple[str, ...]:
        """What was asked for and is not there: deleted or private, or so the service says this once."""
        return tuple(each for each in request.ids if each not in self.found and each not in self.odd)


class Views(Protocol):
    """A provider. `ask` makes exactly one attempt and raises only what queries.errors names."""

    name: str
    is_local: bool

    @property
    def note(self) -> str: ...

    async def ask(self, request: ViewsRequest) -> ViewsAnswer: ...

    async def close(self) -> None: ...
