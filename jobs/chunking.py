"""Texts cut into what is embedded: by kind of content, within the model's limit, the same way every time.

No splitter is imported. Compared on 2026-11-21, on texts of 200 kB and 600 tokens a chunk: semantic-text-splitter 0.33
(MIT, one author, active, 19 MB) holds the limit, but counts each character 8 to 54 times (0.2 to 1.4 s; here 3 to 5
times, 0.04 to 0.3 s), may cut elsewhere after an upgrade, which would mean paying again, and knows neither seconds nor
an overlap in them. langchain-text-splitters 1.1 (MIT, 70 MB with what it needs) went over the limit: 601. chonkie 1.7
(MIT, 90 MB) fails with a counter that is not its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from jobs.chunking_atoms import Atom, break_segments, break_text
from jobs.chunking_packing import Packing, Rule
from jobs.chunking_segments import Segment
from queries.embed import TEXT_TOKENS_MOST
from queries.errors import Misconfigured
from queries.record import record

Kind = Literal["whole", "segments", "paragraphs", "sentences", "fixed"]
Count = Callable[[str], int]

LIMIT = TEXT_TOKENS_MOST - 1
"""OpenAI refuses a text of more than 8,192 tokens; its own guide says 8,191."""

# DOMAIN's figures: paragraphs of 400 to 600 tokens, 256 as a target. A minute of fast speech is about 300 tokens.
_MOST: dict[Kind, int] = {"whole": LIMIT, "segments": 512, "paragraphs": 600, "sentences": 256, "fixed": 256}
_OVERLAP: dict[Kind, float] = {"segments": 0.12, "fixed": 0.12}
# How strong an end a kind looks for: a paragraph's end means nothing to sentences, no end means anything to fixed size.
_STRONGEST: dict[Kind, int] = {"whole": 0, "segments": 3, "paragraphs": 3, "sentences": 1, "fixed": 0}
_FULL_ENOUGH = 2 / 3
"""400 of 600: from here on a chunk may close at a good place."""
_VERSION = 1
"""Goes into the mark: raise it when the same text and settings give other chunks."""


@record(frozen=True, slots=True)
class Chunk:
    """One text to embed. `tokens` is its exact count; the seconds are there if its source had them."""

    text: str
    tokens: int
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a target's texts are cut. None means what is usual for the kind.

    `sentences` are whole sentences packed up to the size, `fixed` cuts at words, `segments` needs timestamps.
    """

    kind: Kind = "whole"
    tokens_most: int | None = None
    tokens_least: int = 16
    overlap_share: float | None = None
    seconds_least: float = 30
    seconds_most: float = 60

    def __post_init__(self) -> None:
        wrong = self._find_wrong()
        if wrong:
            raise Misconfigured(f"chunking: {wrong}", fix="see docs/targets.md for what each kind takes")

    @property
    def most(self) -> int:
        return _MOST[self.kind] if self.tokens_most is None else self.tokens_most

    @property
    def overlap(self) -> float:
        return _OVERLAP.get(self.kind, 0.0) if self.overlap_share is None else self.overlap_share

    @property
    def mark(self) -> str:
        """Goes into the content hash: another mark means other chunks, hence embedding again."""
        if self.kind == "whole":
            return f"whole:{self.most}"
        seconds = f"{self.seconds_least:g}-{self.seconds_most:g}s:" if self.kind == "segments" else ""
        return f"{self.kind}/{_VERSION}:{seconds}{self.tokens_least}-{self.most}:{round(self.overlap * 100, 4):g}%"

    def within(self, tokens: int) -> Chunking:
        """The same for a model that reads fewer tokens (MiniLM: 256) than this kind would give it."""
        return self if self.most <= tokens else replace(self, tokens_most=tokens)

    def _find_wrong(self) -> str:
        if self.kind not in get_args(Kind):
            return f"there is no kind {self.kind!r}; one of {', '.join(get_args(Kind))}"
        if not 8 <= self.most <= LIMIT:
            return f"tokens_most is {self.most}, not from 8 to {LIMIT}"
        if not 1 <= self.tokens_least <= self.most // 2:
            return f"tokens_least is {self.tokens_least}, not from 1 to half of tokens_most ({self.most})"
        if not 0 <= self.overlap <= 0.5:
            return f"overlap_share is {self.overlap:g}, not from 0 to 0.5"
        if not 0 < self.seconds_least <= self.seconds_most:
            return (
                f"seconds_least is {self.seconds_least:g}, not above 0 and up to seconds_most ({self.seconds_most:g})"
            )
        return ""


def chunk_text(text: str, chunking: Chunking, count: Count) -> list[Chunk]:
    """In order, without a word lost; nothing of a blank text, one chunk of whatever fits into one.

    A text has no segments: it is cut by paragraphs then.
    """
    text = text.strip()
    if not text:
        return []
    chunking = _without_times(chunking)
    tokens = count(text)
    if tokens <= chunking.most:
        return [Chunk(text, tokens)]
    atoms = break_text(text, chunking.most, count, by_sentence=_STRONGEST[chunking.kind] > 0)
    return _pack(text, atoms, chunking, count)


def chunk_segments(segments: Sequence[Segment], chunking: Chunking, count: Count) -> list[Chunk]:
    """As `chunk_text`, with the time each chunk covers; without timestamps segments are read as one text."""
    spoken = [segment for segment in segments if segment.text.strip()]
    if any(segment.start_s is None or segment.end_s is None for segment in spoken):
        return chunk_text("\n".join(segment.text for segment in spoken), chunking, count)
    if not spoken:
        return []
    # A piece of a long segment must be short enough to be an overlap.
    seconds = chunking.seconds_most * max(chunking.overlap, 0.1) if chunking.kind == "segments" else None
    text, atoms = break_segments(spoken, chunking.most, seconds, count)
    if chunking.kind != "segments":
        tokens = count(text)
        if tokens <= chunking.most:
            return [_read_time(Chunk(text, tokens), atoms)]
    return _pack(text, atoms, chunking, count)


def _without_times(chunking: Chunking) -> Chunking:
    """The segments' settings do not suit paragraphs, except a limit, which a model's window may have set."""
    if chunking.kind != "segments":
        return chunking
    most = _MOST["paragraphs"] if chunking.tokens_most is None else chunking.tokens_most
    return Chunking("paragraphs", most, chunking.tokens_least)


def _pack(text: str, atoms: Sequence[Atom], chunking: Chunking, count: Count) -> list[Chunk]:
    rule = Rule(
        most=chunking.most,
        enough=int(chunking.most * _FULL_ENOUGH),
        least=chunking.tokens_least,
        overlap=chunking.overlap,
        strongest=_STRONGEST[chunking.kind],
        seconds=(chunking.seconds_least, chunking.seconds_most) if chunking.kind == "segments" else None,
    )
    packing = Packing(text, atoms, rule, count)
    return [
        _read_time(Chunk(packing.read(cut.start, cut.end), cut.tokens), atoms[cut.start : cut.end])
        for cut in packing.pack()
    ]


def _read_time(chunk: Chunk, atoms: Sequence[Atom]) -> Chunk:
    starts = [atom.start_s for atom in atoms if atom.start_s is not None]
    ends = [atom.end_s for atom in atoms if atom.end_s is not None]
    return replace(chunk, start_s=min(starts), end_s=max(ends)) if starts and ends else chunk
