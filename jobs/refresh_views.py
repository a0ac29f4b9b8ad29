"""refresh-views: YouTube's statistics for every video that is due, a snapshot each, inside the quota."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import orjson

from jobs.engine.job import Ask, Bad, Good, Means, Packing, Skip
from jobs.targets import Target
from queries.table import Row, TableSpec, ViewTables
from queries.youtube import IDS_MOST, MODEL, ViewsAnswer, ViewsRequest, is_video_id

VIDEO_VIEWS = Target(
    name="video-views",
    job="refresh-views",
    spec=TableSpec(
        table="videos",
        key=("id",),
        read=("published_at",),
        cells=("view_count", "like_count", "comment_count"),  # in this order: views, likes, comments
        pending=(),
        filters=("channel_id",),
    ),
    cells={"view_count": "answer"},
    prompt="",
    model=MODEL,
    text=(),
    max_completion_tokens=0,
    keep_provenance=False,
    views=ViewTables(),
)
_PACKING = Packing(texts_most=IDS_MOST, tokens_most=IDS_MOST, is_first_full=True)
_ANSWER_BYTES = 200  # of each video in the journal, about


@dataclass(frozen=True, slots=True)
class RefreshViews:
    name: str = "refresh-views"
    service: Literal["views"] = "views"
    packing: Packing = _PACKING
    example: str = "catchup refresh-views --dry-run"
    targets: tuple[Target, ...] = (VIDEO_VIEWS,)

    def expects(self, row: Row, means: Means) -> tuple[str, ...]:
        return ()

    def prepare(self, row: Row, means: Means) -> Ask | Skip:
        """An id that is none would spoil the request of forty-nine others."""
        if not is_video_id(row.key[0]):
            return Skip(row, "no YouTube id")
        return Ask((row,), ViewsRequest(row.key[:1]), 0, source=_since(row), answer_bytes=_ANSWER_BYTES)

    def pack(self, asks: Sequence[Ask]) -> Ask:
        return replace(
            asks[0],
            rows=tuple(row for ask in asks for row in ask.rows),
            request=ViewsRequest(tuple(id_ for ask in asks for id_ in ask.request.ids)),
            answer_bytes=4_096 + _ANSWER_BYTES * len(asks),
            texts=len(asks),
            parts=tuple(asks),
        )

    def judge(self, ask: Ask, answer: ViewsAnswer, means: Means) -> list[Good | Bad | Skip]:
        return [_judge_row(row, answer) for row in ask.rows]


def _judge_row(row: Row, answer: ViewsAnswer) -> Good | Bad | Skip:
    """A count that is not told is not zero, and neither is a video that is not there."""
    id_ = row.key[0]
    counts = answer.found.get(id_)
    if counts is not None and counts.views is not None:
        told = [counts.views, counts.likes, counts.comments, _told_at(row, answer)]
        return Good(row, orjson.dumps(told).decode())
    if counts is not None:
        return Bad(row, "no view count", "the video is there and its views are not told; its counts stay as they were")
    if id_ in answer.odd:
        return Bad(row, answer.odd[id_], "what the service says of this video cannot be believed")
    first, today = row.values.get("absent_on"), str(row.values.get("today"))
    if first is None or str(first) >= today:
        return Skip(row, "absent", "not there today; a second time, on another day, makes it unavailable")
    return Bad(row, "unavailable", f"deleted or private: absent on {first} and on {today} (UTC); not asked for again")


def _told_at(row: Row, answer: ViewsAnswer) -> str | None:
    """A journal may be stored days later. Before the day in which the row was read nobody can have been asked."""
    is_sane = answer.at is not None and answer.at[:10] >= str(row.values.get("today"))
    return answer.at if is_sane else None


def _since(row: Row) -> str:
    """For the plan: since when it is due, in its tier."""
    since = f"due since {row.key[1][:16]}" if len(row.key) > 1 and row.key[1] else "due"
    tier = row.values.get("tier")
    return since if tier is None else f"{since}, tier {tier}"


JOB = RefreshViews()
