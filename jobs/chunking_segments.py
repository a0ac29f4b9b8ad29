"""Transcripts as services and tables keep them, read as segments with seconds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# YouTube says start and duration, Whisper start and end, tables start_s and end_s or start_timestamp and end_timestamp.
_START = ("start", "start_s", "start_timestamp")
_END = ("end", "end_s", "end_timestamp")
_DURATION = ("duration", "duration_s")
_TEXT = ("text", "transcript_segment")


@dataclass(frozen=True, slots=True)
class Segment:
    """What was said from start to end; None where nobody wrote down when."""

    start_s: float | None
    end_s: float | None
    text: str


def read_segments(value: object, start: str = "start_s", end: str = "end_s", text: str = "text") -> list[Segment]:
    """From a list, its JSON, an object with `segments` in it, or joined rows; ValueError says what is wrong and where.

    The names given come first, then those of YouTube and Whisper. A missing end is where the next segment starts.
    """
    read = [
        _read(number, entry, (start, *_START), (end, *_END), (text, *_TEXT))
        for number, entry in enumerate(_unpack(value), start=1)
    ]
    return [segment for segment in _fill_ends(read) if segment.text.strip()]


def _unpack(value: object) -> Sequence[object]:
    if value is None or (isinstance(value, str | bytes) and not value.strip()):
        return ()
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError("the transcript is not JSON") from error
    if isinstance(value, Mapping):
        value = value.get("segments")
    if value is None or isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ValueError("the transcript is not a list of segments")
    return value


def _read(
    number: int, entry: object, starts: tuple[str, ...], ends: tuple[str, ...], texts: tuple[str, ...]
) -> Segment:
    if not isinstance(entry, Mapping):
        raise ValueError(f"segment {number} is not an object")  # noqa: TRY004 - the data is wrong, not the caller
    named = [name for name in texts if name in entry]
    if not named:
        raise ValueError(f"segment {number} has no {texts[0]!r}")
    text = entry[named[0]]
    if not isinstance(text, str | None):
        raise ValueError(f"{named[0]!r} of segment {number} is not text")  # noqa: TRY004
    begin, end = _seconds(number, entry, starts), _seconds(number, entry, ends)
    if begin is not None and end is None:
        duration = _seconds(number, entry, _DURATION)
        end = None if duration is None else begin + duration
    if begin is not None and end is not None and end < begin:
        raise ValueError(f"segment {number} ends ({end:g} s) before it starts ({begin:g} s)")
    return Segment(begin, end, text or "")


def _seconds(number: int, entry: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    """The first of these names that has a value; numbers may be written as strings or be Decimal."""
    for name in names:
        value = entry.get(name)
        if value is None or value == "":
            continue
        try:
            seconds = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"{name!r} of segment {number} is not a number of seconds")
        return seconds
    return None


def _fill_ends(segments: list[Segment]) -> list[Segment]:
    filled = []
    for segment, following in zip(segments, [*segments, None][1:], strict=True):
        if segment.start_s is None or segment.end_s is not None:
            filled.append(segment)
            continue
        after = following.start_s if following and following.start_s is not None else segment.start_s
        filled.append(Segment(segment.start_s, max(segment.start_s, after), segment.text))
    return filled
