"""Texts into the word pieces of BERT's uncased models; in plain Python, since tokenizer packages bring hub clients."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import NamedTuple

PAD, UNKNOWN, OPEN, CLOSE = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
LONGEST_WORD = 100  # BERT's own limit (max_input_chars_per_word in its tokenizer): a longer word is unknown
WORDS_KEPT = 65_536  # of a corpus's words a few thousand are nearly all of it

# The blocks BERT's tokenizer calls Chinese: each character is a word.
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class Pieces(NamedTuple):
    """What the model reads of one text, both marks included; `whole` is False where its end was left out."""

    ids: tuple[int, ...]
    whole: bool
    known: bool
    """Whether there is anything in it that the vocabulary has."""


class WordPieces:
    """A vocabulary and the greedy cut of words into it; words met once are remembered."""

    def __init__(self, vocabulary: list[str]) -> None:
        self._ids = {piece: number for number, piece in enumerate(vocabulary)}
        self._unknown = (self._ids[UNKNOWN],)
        self._open, self._close = self._ids[OPEN], self._ids[CLOSE]
        self._table = _Spelling()
        self._cut = lru_cache(maxsize=WORDS_KEPT)(self._cut_word)
        self.pad = self._ids[PAD]

    def read(self, text: str, at_most: int) -> Pieces:
        """The pieces of `text`, never more than `at_most`; marks like [SEP] in it are plain text."""
        ids, whole = [self._open], True
        for word in text.translate(self._table).split():
            ids += self._cut(word)
            if len(ids) >= at_most:
                ids, whole = ids[: at_most - 1], False
                break
        known = any(one not in self._unknown for one in ids[1:])
        return Pieces((*ids, self._close), whole, known)

    def count(self, text: str) -> int:
        """All the pieces of `text` without the two marks, however many."""
        return sum(len(self._cut(word)) for word in text.translate(self._table).split())

    def _cut_word(self, word: str) -> tuple[int, ...]:
        """The longest known beginning, then the longest known continuation, and so on; or unknown as a whole."""
        if len(word) > LONGEST_WORD:
            return self._unknown
        found: list[int] = []
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            for end in range(len(word), start, -1):
                piece = self._ids.get(mark + word[start:end])
                if piece is not None:
                    found.append(piece)
                    start = end
                    break
            else:
                return self._unknown
        return tuple(found)


class _Spelling(dict[int, str]):
    """For str.translate: what becomes of a character. Filled as characters are met."""

    def __missing__(self, code: int) -> str:
        self[code] = spelt = _spell(chr(code))
        return spelt


def _spell(char: str) -> str:
    """Lower case without accents; blanks around whatever is a word of its own; nothing for what cannot be seen."""
    if char in "\t\n\r" or (char.isspace() and unicodedata.category(char)[0] == "Z"):
        return " "
    if char in "\0\ufffd" or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co"):
        return ""
    bare = "".join(part for part in unicodedata.normalize("NFD", char) if unicodedata.category(part) != "Mn")
    spelt = "".join(f" {part} " if _is_mark(part) else part for part in bare.lower())
    return f" {spelt} " if any(first <= ord(char) <= last for first, last in _CHINESE) else spelt


def _is_mark(char: str) -> bool:
    """Punctuation, and ASCII's symbols ($ + < = > ^ ` | ~) with it, as BERT has it."""
    return unicodedata.category(char)[0] == "P" or (char.isascii() and char.isprintable() and not char.isalnum())
