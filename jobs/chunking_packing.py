"""Atoms put together to chunks: full, closed at the best place near the end, never over the limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from jobs.chunking_atoms import WORD, Atom

_EARLY = 0.4
"""Rather a chunk filled to this share of enough than a sentence broken."""
_OVERLAP_SLACK = 1.25
"""12 % may become 15, DOMAIN's upper figure: whole atoms cannot meet it exactly."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`enough` tokens, or the first of `seconds`, let a chunk close; `most` and the second must hold."""

    most: int
    enough: int
    least: int
    overlap: float
    strongest: int
    seconds: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Cut:
    """Atoms start to end; those before `fresh` repeat the chunk before. `tokens` is the exact count."""

    start: int
    fresh: int
    end: int
    tokens: int


class Packing:
    """One text. Sums over the atoms say where to cut, one count of each chunk says whether it holds."""

    def __init__(self, text: str, atoms: Sequence[Atom], rule: Rule, count: Callable[[str], int]) -> None:
        self._text, self._atoms, self._rule, self._count = text, atoms, rule, count
        self._sums = [0, *accumulate(atom.tokens for atom in atoms)]

    def pack(self) -> list[Cut]:
        cuts: list[Cut] = []
        fresh = 0
        while fresh < len(self._atoms):
            cuts.append(self._take(self._go_back(cuts[-1]) if cuts else fresh, fresh))
            fresh = cuts[-1].end
        return self._mend(cuts)

    def read(self, start: int, end: int) -> str:
        return self._text[self._atoms[start].begin : self._atoms[end - 1].end].strip()

    def _measure(self, start: int, end: int) -> int:
        return self._count(self.read(start, end))

    def _sum(self, start: int, end: int) -> int:
        return self._sums[end] - self._sums[start]

    def _last(self, start: int, end: int) -> float:
        """Seconds from the first atom's start to the last one's end."""
        return (self._atoms[end - 1].end_s or 0.0) - (self._atoms[start].start_s or 0.0)

    def _take(self, start: int, fresh: int) -> Cut:
        """The next chunk, with at least one fresh atom."""
        while start < fresh and not self._holds(start, fresh + 1):
            start += 1
        end = fresh + 1
        while end < len(self._atoms) and self._goes_on(start, fresh, end):
            end += 1
        if end < len(self._atoms):
            end = self._choose_end(start, fresh, end)
        # Tokens do not quite add up, in either direction: only this count is the truth.
        while (tokens := self._measure(start, end)) > self._rule.most:
            if end - fresh > 1:
                end = self._choose_end(start, fresh, end - 1)
            elif start < fresh:
                start += 1
            else:
                break
        return Cut(start, fresh, end, tokens)

    def _holds(self, start: int, end: int) -> bool:
        in_time = self._rule.seconds is None or self._last(start, end) <= self._rule.seconds[1]
        return in_time and self._sum(start, end) <= self._rule.most

    def _goes_on(self, start: int, fresh: int, end: int) -> bool:
        """A few words before a long silence wait for more: alone they would find nothing."""
        if self._sum(fresh, end) < self._rule.least:
            return self._sum(start, end + 1) <= self._rule.most
        return self._holds(start, end + 1)

    def _fill(self, start: int, end: int) -> float:
        """1 is full enough."""
        tokens = self._sum(start, end) / self._rule.enough
        return tokens if self._rule.seconds is None else max(tokens, self._last(start, end) / self._rule.seconds[0])

    def _choose_end(self, start: int, fresh: int, reach: int) -> int:
        """The strongest end where the chunk is full enough, and of equals the last."""

        def level(end: int) -> int:
            return min(self._atoms[end - 1].level, self._rule.strongest)

        ends = [end for end in range(fresh + 1, reach + 1) if self._sum(fresh, end) >= self._rule.least]
        chosen = max((end for end in ends if self._fill(start, end) >= 1), key=lambda e: (level(e), e), default=reach)
        if level(chosen) > WORD:
            return chosen
        early = [end for end in ends if level(end) > WORD and self._fill(start, end) >= _EARLY]
        return early[-1] if early else chosen

    def _go_back(self, before: Cut) -> int:
        """Where the next chunk starts: as many of the last atoms again as come nearest to the overlap's share."""
        start, share = before.end, self._rule.overlap
        if not share:
            return start
        while start - 1 > before.start and self._share(start - 1, before) <= share * _OVERLAP_SLACK:
            start -= 1
        if start - 1 > before.start:
            less, more = (abs(self._share(at, before) - share) for at in (start, start - 1))
            start -= more < less
        return start

    def _share(self, start: int, cut: Cut) -> float:
        tokens = self._sum(start, cut.end) / max(1, self._sum(cut.start, cut.end))
        whole = self._last(cut.start, cut.end)
        if self._rule.seconds is None or whole <= 0:
            return tokens
        return max(tokens / 2, self._last(start, cut.end) / whole)

    def _mend(self, cuts: list[Cut]) -> list[Cut]:
        """A last chunk that says too little joins the one before, or takes from it what it lacks."""
        if len(cuts) < 2:
            return cuts
        before, last = cuts[-2:]
        least, most = self._rule.least, self._rule.most
        if (last.tokens if last.start == last.fresh else self._measure(last.fresh, last.end)) >= least:
            return cuts
        tokens = self._measure(before.start, last.end)
        if tokens <= most:
            return [*cuts[:-2], Cut(before.start, before.fresh, last.end, tokens)]
        for at in range(last.fresh - 1, before.fresh, -1):
            if not least <= (tokens := self._measure(at, last.end)) <= most:
                continue
            left = self._measure(before.start, at)
            if left <= most and self._measure(before.fresh, at) >= least:
                return [*cuts[:-2], Cut(before.start, before.fresh, at, left), Cut(at, at, last.end, tokens)]
            break
        return cuts
