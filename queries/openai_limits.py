"""What the headers of OpenAI's dialect say about limits and waiting."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from queries.errors import RateLimits

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s|d)")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|h|m|s|d))+")
_TRY_AGAIN = re.compile(
    r"(?:try again|retry|wait)\s+(?:in|after|for)\s+((?:[0-9]+(?:\.[0-9]+)?\s?(?:ms|[hmsd])[a-z]*\s*)+)", re.I
)
_WORD = re.compile(r"\s+|(?<=[hmsd])(?:illiseconds?|ours?|inutes?|econds?|ecs?|ins?|rs?|ays?)", re.I)
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_limits(headers: Mapping[str, str]) -> RateLimits:
    """The x-ratelimit-* headers; what is missing or garbage is None."""
    found = {k.lower(): v for k, v in headers.items() if k[:12].lower() == "x-ratelimit-"}
    if not found:
        return RateLimits()
    return RateLimits(
        requests_per_min=_whole(found.get("x-ratelimit-limit-requests")),
        tokens_per_min=_whole(found.get("x-ratelimit-limit-tokens")),
        remaining_requests=_whole(found.get("x-ratelimit-remaining-requests")),
        remaining_tokens=_whole(found.get("x-ratelimit-remaining-tokens")),
        reset_requests_s=parse_duration_s(found.get("x-ratelimit-reset-requests", "")),
        reset_tokens_s=parse_duration_s(found.get("x-ratelimit-reset-tokens", "")),
    )


def told_wait_s(headers: Mapping[str, str], message: str = "", *, now_s: float | None = None) -> float | None:
    """The longest wait the answer asks for, since a server's wait is never shortened; None when it names none."""
    found = {k.lower(): v for k, v in headers.items() if k.lower() in ("retry-after", "retry-after-ms", "date")}
    waits = [
        _seconds(found.get("retry-after-ms"), 0.001),
        _seconds(found.get("retry-after"), 1.0),
        _until(found.get("retry-after"), found.get("date"), now_s),
        _hinted(message),
    ]
    told = [wait for wait in waits if wait is not None]
    return max(told) if told else None


def parse_duration_s(text: str) -> float | None:
    """ "1s", "6m0s", "12ms", "1h2m", or a bare number of seconds."""
    text = text.strip().lower()
    if _DURATION.fullmatch(text):
        seconds = sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
        return seconds if math.isfinite(seconds) else None
    return _seconds(text, 1.0)


def _whole(text: str | None) -> int | None:
    number = _seconds(text, 1.0)
    return None if number is None else int(number)


def _seconds(text: str | None, unit_s: float) -> float | None:
    if text is None or not text.strip().isascii():
        return None
    try:
        number = float(text) * unit_s
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _until(text: str | None, date: str | None, now_s: float | None) -> float | None:
    """A date to wait for, counted from the server's own clock where it shows one: ours may be wrong."""
    then, now = _moment(text), _moment(date)
    now = now_s if now is None else now
    if then is None or now is None:
        return None
    return then - now if then > now else None


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _hinted(message: str) -> float | None:
    """ "Please try again in 3.89s", "174ms", "7m12s", "in 6 seconds"."""
    found = _TRY_AGAIN.search(message)
    return None if found is None else parse_duration_s(_WORD.sub("", found.group(1)))
