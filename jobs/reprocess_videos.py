"""reprocess-videos: send videos to the workers' queue, or do the work here with --inline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jobs.engine.job import Ask, Bad, Good, Means, Packing
from jobs.messages import MessageLayout, lay_out, message_id
from jobs.stuck_videos import STUCK
from jobs.targets import Target
from queries.messages import PublishAnswer, PublishRequest
from queries.table import Condition, Row, TableSpec

_NEVER = "00000000-0000-0000-0000-000000000000"  # no row's guard: the ledger books such a row as changed
_PACKING = Packing(texts_most=200, tokens_most=1_000_000)  # only for speed: a kill leaves one message in doubt, not all

VIDEOS = Target(
    name="to-reprocess",
    job="reprocess-videos",
    spec=TableSpec(
        table="videos",
        key=("id",),
        read=("status", "has_rich_semantics"),  # a message waits for as long as these stay as they were
        cells=(),  # sending changes nothing in the row: that is the worker's
        pending=(Condition("status", "=", "READY"), Condition("has_rich_semantics", "is not true")),
        filters=("owner_id",),
    ),
    cells={},
    prompt="",
    model="",
    text=(),
    max_completion_tokens=0,
    message=MessageLayout(queue="video_processing", task="process_video"),
    is_first=True,
)


@dataclass(frozen=True, slots=True)
class ReprocessVideos:
    name: str = "reprocess-videos"
    service: Literal["publish"] = "publish"
    packing: Packing = _PACKING
    example: str = "catchup reprocess-videos --dry-run"
    targets: tuple[Target, ...] = (VIDEOS, STUCK)

    def expects(self, row: Row, means: Means) -> tuple[str, ...]:
        return ()

    def prepare(self, row: Row, means: Means) -> Ask:
        message = lay_out(row, means.target, message_id(row, means.target))
        return Ask(
            (row,),
            PublishRequest((message,), ((row.key, row.guard),)),
            0,
            source=f"message {message.id}",
            answer_bytes=200,
        )

    def pack(self, asks: Sequence[Ask]) -> Ask:
        messages = tuple(message for ask in asks for message in ask.request.messages)
        return replace(
            asks[0],
            rows=tuple(row for ask in asks for row in ask.rows),
            request=PublishRequest(messages, tuple(seen for ask in asks for seen in ask.request.seen)),
            answer_bytes=200 * len(messages),
            texts=len(messages),
            parts=tuple(asks),
        )

    def judge(self, ask: Ask, answer: PublishAnswer, means: Means) -> list[Good | Bad]:
        """What the broker confirmed is sent, whatever its worker has done to the row since."""
        sent = [(row, message.id in answer.sent) for row, message in zip(ask.rows, ask.request.messages, strict=True)]
        return [Good(row, "", is_sent=True) if there else Good(replace(row, guard=_NEVER), "") for row, there in sent]


JOB = ReprocessVideos()
