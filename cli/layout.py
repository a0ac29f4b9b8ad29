"""Labelled rows, the same words for a terminal, a pipe and 20 columns. No control character passes here."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cli.untrusted import keep_printable

if TYPE_CHECKING:
    from rich.text import Text

Tone = Literal["", "good", "bad", "warn", "dim"]
_STYLES: dict[Tone, str] = {"": "", "good": "green", "bad": "bold red", "warn": "yellow", "dim": "dim"}
_NARROW = 50


@dataclass(frozen=True, slots=True)
class Line:
    """One labelled line; without a label the text starts at the left edge."""

    label: str
    text: str
    tone: Tone = ""


def lay_out(lines: Iterable[Line], width: int) -> list[tuple[Line, str, str]]:
    """Each output line with its label and its text, wrapped to `width`; narrow screens get no label column."""
    rows = [Line(keep_printable(line.label), keep_printable(line.text), line.tone) for line in lines]
    column = max((len(line.label) for line in rows), default=0) + 2
    laid = []
    for line in rows:
        indent = column if line.label and width >= _NARROW else 2 if line.label else 0
        room, is_narrow = max(width - indent, 8), width < _NARROW  # a statement broken inside a word cannot be pasted
        pieces = textwrap.wrap(line.text, room, break_on_hyphens=False, break_long_words=is_narrow) or [""]
        if line.label.strip() and width < _NARROW:
            if len(line.label) + 1 + len(line.text) <= width:
                laid.append((line, line.label + " ", line.text))
                continue
            laid.append((line, line.label, ""))
            laid += [(line, "  ", piece) for piece in pieces]
            continue
        labels = [line.label.ljust(indent)] + [" " * indent] * (len(pieces) - 1)
        laid += [(line, label, piece) for label, piece in zip(labels, pieces, strict=True)]
    return laid


def as_plain(lines: Iterable[Line], width: int = 100) -> str:
    return "".join(f"{(label + text).rstrip()}\n" for _, label, text in lay_out(lines, width))


def as_rich(lines: Iterable[Line], width: int) -> Text:
    from rich.text import Text

    whole = Text()
    for line, label, text in lay_out(lines, width):
        whole.append(label, style="cyan" if line.label.strip() else "")
        whole.append(text, style=_STYLES[line.tone])
        whole.append("\n")
    return whole


def count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def reasons(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{reason} {number:,}" for reason, number in counts)
