"""What videos.list answered: read strictly, item by item, so that one odd item never costs the others."""

from __future__ import annotations

import re
from typing import Any

from queries.errors import CatchupError
from queries.youtube import COUNT_MOST, VideoCounts, ViewsAnswer, ViewsRequest
from queries.youtube_errors import malformed

_COUNT = re.compile(r"0|[1-9][0-9]{0,19}")


def read_answer(found: Any, request: ViewsRequest) -> ViewsAnswer | CatchupError:
    """The counts of every video that is there, or why the answer as a whole is none."""
    if not isinstance(found, dict):
        return malformed("it is no object")
    items = found.get("items")
    if not isinstance(items, list):
        return malformed("it has no list of items")
    wanted, counts, odd, strays = frozenset(request.ids), dict[str, VideoCounts](), dict[str, str](), 0
    for item in items:
        video_id = item.get("id") if isinstance(item, dict) else None
        if not isinstance(video_id, str) or video_id not in wanted:
            strays += 1
            continue
        read = _read_item(video_id, item)
        if isinstance(read, str):
            odd[video_id] = read
        elif counts.setdefault(video_id, read) != read:
            odd[video_id] = "told twice, differently"
    for video_id in odd:
        counts.pop(video_id, None)
    # An item without one of our ids may be the one that is missing, and so may be one on a page we were not sent.
    if strays or found.get("nextPageToken"):
        odd |= {each: "not told, among strangers" for each in request.ids if each not in counts and each not in odd}
    return ViewsAnswer(found=counts, odd=odd, strays=strays)


def _read_item(video_id: str, item: dict[str, Any]) -> VideoCounts | str:
    """Its counts, or why they cannot be believed. Nothing is half stored."""
    statistics = item.get("statistics")
    if statistics is None:  # seen in the wild: nothing of it is told
        statistics = {}
    if not isinstance(statistics, dict):
        return "statistics unreadable"
    read = [_read_count(statistics.get(name)) for name in ("viewCount", "likeCount", "commentCount")]
    for name, value in zip(("views", "likes", "comments"), read, strict=True):
        if isinstance(value, str):
            return f"{name} {value}"
    views, likes, comments = (value if isinstance(value, int) else None for value in read)
    return VideoCounts(video_id, views, likes, comments)


def _read_count(told: object) -> int | str | None:
    """A count exactly, None where it is not told, or why it is none: "1e3", "-1" and 12.5 are no counts."""
    if told is None:
        return None
    if isinstance(told, str) and _COUNT.fullmatch(told):
        told = int(told)
    if type(told) is not int or told < 0:  # a bool is an int
        return "no whole number"
    return told if told <= COUNT_MOST else "beyond 64 bits"
