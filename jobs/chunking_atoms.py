"""The pieces that are never cut again: sentences, short segments, else a few words. Linear, whatever the text."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from jobs.chunking_segments import Segment

# How good a place the end of an atom is to end a chunk; a segment's end is worth a line's.
WORD, SENTENCE, LINE, PARAGRAPH = 0, 1, 2, 3

_PER_CHUNK = 4
"""Atoms of at most a quarter: else a long sentence could leave a chunk nearly empty before it."""
_FEW_WORDS = 32
"""Characters that are divided only if they are too many tokens: else small chunks would cut words in two."""
_CUTS = re.compile(
    r"(?P<paragraph>\n\s*\n)|(?P<line>\n)"
    "|(?P<spaced>[.!?\u2026\u061f\u06d4\u0964\u0965\u0589\u1362][\"'\u201d\u2019\u00bb)\\]]{0,3}(?=\\s++[^a-z]))"
    "|(?P<unspaced>[\u3002\uff01\uff1f\uff61][\u201d\u2019\u300d\u300f\uff09]{0,3})"
)
_SENTENCE_END = re.compile(
    "[.!?\u2026\u061f\u06d4\u0964\u0965\u0589\u1362\u3002\uff01\uff1f\uff61][\"'\u201d\u2019\u300d)]{0,3}$"
)
_CLAUSE = re.compile("[,;:\u2013\u2014)](?=\\s)|[\uff0c\u3001\uff1b\uff1a]")


@dataclass(frozen=True, slots=True)
class Atom:
    """text[begin:end], white space in front included, as tokenizers count a word with the space before it."""

    begin: int
    end: int
    tokens: int
    level: int
    start_s: float | None = None
    end_s: float | None = None


def break_text(text: str, most: int, count: Callable[[str], int], *, by_sentence: bool) -> list[Atom]:
    """All of `text`, in order."""
    room = most // _PER_CHUNK
    cuts = _find_cuts(text) if by_sentence else [(len(text), WORD)]
    longest = len(text) if by_sentence else max(_FEW_WORDS, room)
    atoms: list[Atom] = []
    begin = 0
    for end, level in cuts:
        pieces = _break_span(text, begin, end, room, longest, count)
        atoms += [Atom(a, b, tokens, level if b == end else WORD) for a, b, tokens in pieces]
        if atoms and not pieces:
            atoms[-1] = replace(atoms[-1], level=max(level, atoms[-1].level))
        begin = end
    return atoms


def break_segments(
    segments: Sequence[Segment], most: int, seconds: float | None, count: Callable[[str], int]
) -> tuple[str, list[Atom]]:
    """The segments joined to one text, and its atoms; those of a long segment get their share of its time.

    Captions stay on the screen while the next ones are spoken: a share ends where the next segment starts.
    """
    words = [" ".join(segment.text.split()) for segment in segments]
    text, atoms, begin = " ".join(words), [], 0
    for segment, following, spoken in zip(segments, [*segments[1:], None], words, strict=True):
        start, stop = segment.start_s or 0.0, segment.end_s or 0.0
        said_by = stop if following is None else max(start, min(stop, following.start_s or 0.0))
        end = begin + len(spoken) + (1 if begin else 0)
        longest = end - begin
        if seconds is not None and stop - start > seconds:
            longest = max(_FEW_WORDS, int(longest * seconds / (stop - start)))
        level = PARAGRAPH if _SENTENCE_END.search(spoken, len(spoken) - 4 if len(spoken) > 4 else 0) else LINE
        pace = (said_by - start) / (end - begin)
        for a, b, tokens in _break_span(text, begin, end, most // _PER_CHUNK, longest, count):
            until = stop if b == end else start + (b - begin) * pace
            atoms.append(Atom(a, b, tokens, level if b == end else WORD, start + (a - begin) * pace, until))
        begin = end
    return text, atoms


def _find_cuts(text: str) -> Iterator[tuple[int, int]]:
    """Ends of sentences, lines and paragraphs; the white space there belongs to what follows."""
    held: tuple[int, int] | None = None
    for found in _CUTS.finditer(text):
        level = {"paragraph": PARAGRAPH, "line": LINE}.get(found.lastgroup or "", SENTENCE)
        at = found.end() if level == SENTENCE else found.start()
        if held and held[0] != at:
            yield held
        held = (at, level)  # at the same place the stronger one is found last
    if held and held[0] != len(text):
        yield held
    yield len(text), PARAGRAPH


def _break_span(
    text: str, begin: int, end: int, room: int, longest: int, count: Callable[[str], int]
) -> list[tuple[int, int, int]]:
    """Pieces with words in them: a blank one would be a chunk that says nothing new."""
    pieces: list[tuple[int, int, int]] = []
    blank = 0
    for a, b, tokens in _fit(text, begin, end, room, longest, count):
        if text[a:b].isspace():
            blank += tokens
        else:
            pieces.append((a, b, tokens + blank))
            blank = 0
    if blank and pieces:
        a, _, tokens = pieces[-1]
        pieces[-1] = (a, end, tokens + blank)
    return pieces


def _fit(
    text: str, begin: int, end: int, room: int, longest: int, count: Callable[[str], int]
) -> Iterator[tuple[int, int, int]]:
    """The span as it is if it fits, else in smaller ones; a single character is never divided."""
    length = end - begin
    if length <= longest or length == 1:
        tokens = count(text[begin:end])
        if tokens <= room or length == 1:
            yield begin, end, tokens
            return
    size = max(1, min(longest, max(room, _FEW_WORDS), length // 2))
    for a, b in _cut_windows(text, begin, end, size):
        yield from _fit(text, a, b, room, longest, count)


def _cut_windows(text: str, begin: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Of about one size: a last one of two letters would be no overlap worth the name."""
    while (length := end - begin) > size:
        at = _find_break(text, begin, begin + math.ceil(length / math.ceil(length / size)))
        yield begin, at
        begin = at
    yield begin, end


def _find_break(text: str, begin: int, limit: int) -> int:
    """The last clause's end in the second half, else the last space, else between two whole characters."""
    half = begin + (limit - begin) // 2
    clauses = [found.end() for found in _CLAUSE.finditer(text, half, limit)]
    if clauses:
        return clauses[-1]
    places = range(limit, half, -1)
    spaces = (at for at in places if text[at].isspace())
    whole = (at for at in places if not _clings(text, at))
    return next(spaces, None) or next(whole, None) or limit


def _clings(text: str, at: int) -> bool:
    """Whether this character belongs to the one before it: an accent, a vowel sign, part of an emoji."""
    mark = text[at]
    return (
        "\u200d" in (mark, text[at - 1])
        or "\U0001f3fb" <= mark <= "\U0001f3ff"
        or unicodedata.category(mark).startswith("M")
    )
