"""The words of an error body, whatever its dialect: read without trust, told without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from queries.redact import redact

READ_AT_MOST = 262_144
"""Bytes of an error body worth reading; the service's own are under 2 kB."""
MESSAGE_AT_MOST = 4_000
"""What is searched for codes and numbers; a hostile megabyte would only slow the search down."""
WORDS_AT_MOST = 300
PRIVATE_STRETCH = 24
"""A service that repeats this many characters of the prompt has its words left out of every message."""


@dataclass(frozen=True, slots=True)
class Said:
    """What an error body says, whatever its dialect."""

    code: str = ""
    kind: str = ""
    message: str = ""
    param: str = ""

    def is_one_of(self, names: frozenset[str]) -> bool:
        return self.code.lower() in names or self.kind.lower() in names


def read_error(body: bytes | str) -> Said:
    text = body[:READ_AT_MOST].decode("utf-8", "replace") if isinstance(body, bytes) else body[:READ_AT_MOST]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return Said(message=_plain(text))
    if isinstance(found, list) and found:
        found = found[0]  # Gemini's OpenAI dialect wraps its error in a list
    if not isinstance(found, dict):
        return Said(message=_text(found) if isinstance(found, str) else "")
    error = found.get("error", found)
    if not isinstance(error, dict):
        return Said(message=_text(error) or _text(found.get("message")), code=_text(found.get("code")))
    inner = error.get("innererror")
    code = _text(inner.get("code")) if isinstance(inner, dict) else ""
    return Said(
        code=code or _text(error.get("code")),
        kind=_text(error.get("type")),
        message=_text(error.get("message")) or _detail(found.get("detail")),
        param=_text(error.get("param")),
    )


def _text(value: object) -> str:
    if isinstance(value, str):
        return value[:MESSAGE_AT_MOST]
    return str(value) if isinstance(value, int) and value is not True else ""


def _detail(value: object) -> str:
    """FastAPI's list of complaints, without the `input` it repeats."""
    if isinstance(value, list):
        return "; ".join(_text(each.get("msg")) for each in value[:5] if isinstance(each, dict))
    return _text(value)


def _plain(text: str) -> str:
    """Of a page its title, of plain text its first line."""
    if text.lstrip()[:1] == "<":
        title = re.search(r"<title[^>]*>([^<]{1,200})", text[:20_000], re.I)
        return title.group(1) if title else "an HTML page"
    return text.strip().split("\n", 1)[0][:200]


def clean_words(message: str, secrets: Iterable[str], private: str) -> str:
    """One line of printable words, without secrets, and nothing at all when it repeats the prompt."""
    words = redact(message[:MESSAGE_AT_MOST], secrets)
    words = " ".join("".join(c if c.isprintable() else " " for c in words).split())[:WORDS_AT_MOST]
    if private and _repeats(message[:MESSAGE_AT_MOST], private):
        return "(left out: it repeats the item's text)"
    return words


def _repeats(words: str, private: str) -> bool:
    step = PRIVATE_STRETCH // 2
    return any(words[i : i + step] in private for i in range(0, max(0, len(words) - step + 1), step)) and any(
        words[i : i + PRIVATE_STRETCH] in private for i in range(max(0, len(words) - PRIVATE_STRETCH + 1))
    )
