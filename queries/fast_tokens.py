"""Exact counts in a fifth of tiktoken's time, by quicktok, where the two are known to agree; where not, by tiktoken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    """A count is None where it must be left to tiktoken; once the two have disagreed, every one is."""

    def __init__(
        self, exact: tiktoken.Encoding, count: Callable[[str], int], count_all: Callable[[list[str]], Iterable[int]]
    ) -> None:
        self._exact, self._count, self._count_all = exact, count, count_all
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

    def count_many(self, texts: Sequence[str]) -> list[int | None]:
        """All in one call, which leaves the interpreter to other threads; they may count by it meanwhile."""
        found: list[int | None] = [None] * len(texts)
        fit = [n for n, text in enumerate(texts) if text.isascii() or not _has_new_characters(text)]
        if not self.is_trusted or not fit:
            return found
        try:
            for n, count in zip(fit, self._count_all([texts[n] for n in fit]), strict=True):
                found[n] = int(count)
        except (MemoryError, RuntimeError, ValueError):  # one text of hundreds, perhaps: tiktoken takes them all
            self.is_trusted = False
            return [None] * len(texts)
        for n in fit[_LOOK_EVERY - 1 - self._seen % _LOOK_EVERY :: _LOOK_EVERY]:
            if len(self._exact.encode_ordinary(texts[n])) != found[n]:
                self.is_trusted = False
                return [None] * len(texts)
        self._seen += len(fit)
        return found


def load_fast(exact: tiktoken.Encoding) -> FastCount | None:
    """None where it is not installed, or does not know this encoding."""
    try:
        import quicktok  # noqa: PLC0415 - only a run that counts needs it

        quick = quicktok.get_encoding(exact.name)
        return FastCount(exact, quick.count, lambda texts: quicktok.count_batch(quick, texts, 1))
    except (ImportError, OSError, RuntimeError, ValueError, KeyError):
        return None


def _has_new_characters(text: str) -> bool:
    try:
        data = text.encode()
    except UnicodeEncodeError:  # half a character, which tiktoken replaces
        return True
    looked_for = _NEW_CHARACTERS if _FOUR_BYTES in data else _THREE_BYTES
    return any(each in data for each in looked_for)
