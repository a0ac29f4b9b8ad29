"""Exact counts in a fifth of tiktoken's time, by quicktok, where the two are known to agree; where not, by tiktoken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken

# tiktoken 0.14 follows a newer Unicode than quicktok 0.4: over all 1,112,064 characters in a dozen surroundings each
# they differed for 4,699, all of which are in the newest Unicode only (2026-11-21). These are the beginnings of their
# UTF-8; a text with one of them is counted by tiktoken.
_NEW_CHARACTERS = (
    b"\xe0\xa2\x8f", b"\xe0\xb1\x9c", b"\xe0\xb3\x9c", b"\xe1\xab", b"\xea\x9f", b"\xf0\x90\xa5", b"\xf0\x90\xbb",
    b"\xf0\x91\xad", b"\xf0\x91\xb7", b"\xf0\x96\xba", b"\xf0\x96\xbb", b"\xf0\x96\xbf", b"\xf0\x98", b"\xf0\x9e\x9b",
    b"\xf0\xab\x9c", b"\xf0\xac\xba", b"\xf0\xb2", b"\xf0\xb3",
)  # fmt: skip
_FOUR_BYTES = b"\xf0"
_THREE_BYTES = tuple(each for each in _NEW_CHARACTERS if each[:1] != _FOUR_BYTES)
_CHECKED = (
    "It's 12,345 o'clock\u2026 \u00fcber: \u65e5\u672c\u8a9e \U0001f44d\U0001f3fd!\n\n\tdon'T  <|endoftext|> \r\n"
)
_LOOK_EVERY = 500
"""A text in so many is counted by both: another version of either may disagree where these do not."""


class FastCount:
    """`count` gives None where it must be left to tiktoken; once the two have disagreed, everything is."""

    def __init__(self, exact: tiktoken.Encoding, count: Callable[[str], int]) -> None:
        self._exact, self._count = exact, count
        self._seen = 0
        self.is_trusted = count(_CHECKED) == len(exact.encode_ordinary(_CHECKED))

    def count(self, text: str) -> int | None:
        if not self.is_trusted or (not text.isascii() and _has_new_characters(text)):
            return None
        found = self._count(text)
        self._seen += 1
        if self._seen % _LOOK_EVERY == 0:
            truth = len(self._exact.encode_ordinary(text))
            self.is_trusted = truth == found
            return truth
        return found


def load_fast(exact: tiktoken.Encoding) -> FastCount | None:
    """None where it is not installed, or does not know this encoding."""
    try:
        import quicktok  # noqa: PLC0415 - only a run that counts needs it

        return FastCount(exact, quicktok.get_encoding(exact.name).count)
    except (ImportError, OSError, RuntimeError, ValueError, KeyError):
        return None


def _has_new_characters(text: str) -> bool:
    try:
        data = text.encode()
    except UnicodeEncodeError:  # half a character, which tiktoken replaces
        return True
    looked_for = _NEW_CHARACTERS if _FOUR_BYTES in data else _THREE_BYTES
    return any(each in data for each in looked_for)
