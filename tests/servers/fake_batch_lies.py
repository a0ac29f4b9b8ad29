"""How a fake batch misbehaves: every way of UPSTREAMS.md B1-B13 by name, scripted or drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.servers.fake_script import share

STUCK = ("validating", "in_progress", "finalizing", "somewhere_new")


@dataclass(frozen=True)
class Lie:
    """Nothing given is an honest service. Counts of lines are of the output file, shares of the batch's lines."""

    ends: str = "completed"
    """Or "expired": after a day, or at once where working takes no time."""
    share: float = 1.0
    """How much of it is worked before it ends."""
    stuck: str = ""
    """Stays in this state (validating, in_progress, finalizing, or one nobody knows)."""
    lets_go: bool = False
    """A stuck one expires after a day."""
    cancelled_after_s: float = 0.0
    """Somebody cancels it so long after it was made; 0 is nobody."""
    missing: float = 0.0
    """Share of the answered lines that are in no file."""
    doubled: float = 0.0
    status_zero: float = 0.0
    """Share of lines that are, unpaid, in the error file as status_code 0 and an empty body."""
    shuffled: bool = False
    foreign: int = 0
    """Lines of somebody else's ids."""
    garbage: int = 0
    """Lines that are no JSON, or no object, or cut in the middle."""
    all_failed: bool = False
    """Every line fails unpaid: a completed batch without an output file."""
    counts: str = "true"
    """Or "rosy" (all completed), "zero", "wild"."""
    empty_error_id: bool = False
    """The error file's id is "" where there is none."""
    upload: str = ""
    """lost (cut half-way), unanswered (stored), failing (503, not stored)."""
    create: str = ""
    """unanswered (it exists), failing (500, it does not)."""
    listed_after_s: float = 0.0
    """How long the list call does not show it."""
    content: str = ""
    """cut (connection lost), short (ended politely too early), failing (503), late (404), gone (404 for ever)."""
    content_times: int = 1
    """How many downloads of each file are spoilt that way."""


@dataclass
class LieRule:
    """match: nth (a number or a list), every, after; counted apart for uploads and creates."""

    match: dict[str, Any]
    lie: Lie

    def meets(self, number: int) -> bool:
        nth = self.match.get("nth", number)
        return (
            number in (nth if isinstance(nth, list) else [nth])
            and number % self.match.get("every", 1) == 0
            and number > self.match.get("after", 0)
        )


def draw_lie(seed: int, number: int) -> Lie:
    """A combination for this batch or upload; what keeps it from ever ending is not drawn."""

    def chance(name: str, below: float) -> bool:
        return share(seed, "lie", name, number) < below

    def part(name: str, most: float) -> float:
        return round(most * share(seed, "part", name, number), 3)

    expires = chance("expires", 0.2)
    return Lie(
        ends="expired" if expires else "completed",
        share=part("share", 1.0) if expires else 1.0,
        missing=part("missing", 0.1) if chance("missing", 0.3) else 0.0,
        doubled=part("doubled", 0.1) if chance("doubled", 0.3) else 0.0,
        status_zero=part("zero", 0.1) if chance("zero", 0.3) else 0.0,
        shuffled=chance("shuffled", 0.5),
        foreign=3 if chance("foreign", 0.2) else 0,
        garbage=2 if chance("garbage", 0.2) else 0,
        all_failed=chance("all failed", 0.05),
        counts=_pick(seed, number, "counts", ("true", "true", "rosy", "zero", "wild")),
        empty_error_id=chance("empty id", 0.3),
        upload=_pick(seed, number, "upload", ("", "", "", "lost", "unanswered", "failing")),
        create=_pick(seed, number, "create", ("", "", "", "unanswered", "failing")),
        listed_after_s=part("listed", 120.0) if chance("late", 0.3) else 0.0,
        content=_pick(seed, number, "content", ("", "", "", "cut", "short", "failing", "late")),
        stuck=_pick(seed, number, "stuck", STUCK) if chance("stuck", 0.08) else "",
        lets_go=True,
        cancelled_after_s=part("cancelled", 3_600.0) if chance("cancelled", 0.1) else 0.0,
    )


def _pick(seed: int, number: int, name: str, among: tuple[str, ...]) -> str:
    return among[int(share(seed, "pick", name, number) * len(among))]
