"""How many tokens may be handed in now: the organisation's enqueued-token limit, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from queries.batches import CANCELLING, ENDED, FINALIZING, IN_PROGRESS, VALIDATING

_MARGIN = 0.95  # their count of tokens is not ours to the last one
_WORTH = 0.5  # of the limit: smaller files would only be more of them


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch at the provider, of whoever it is. `tokens` is None where only its owner knows."""

    status: str
    tokens: int | None
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Allowed:
    """`tokens` None: no limit is known. `why` says what is waited for where nothing is allowed."""

    tokens: int | None
    why: str = ""


def allow(
    limit: int | None, ours: Iterable[Waiting], others: Iterable[Waiting], *, was_refused: bool, tokens_each: float
) -> Allowed:
    """Validating batches take room; after a refusal those in progress too (DOMAIN 1.2, DECISIONS 31)."""
    takes = {VALIDATING, "", IN_PROGRESS, FINALIZING, CANCELLING} if was_refused else {VALIDATING, ""}
    mine = [each for each in ours if each.status in takes or each.status not in _KNOWN]
    if limit is None:
        if mine:
            return Allowed(0, "the batch before them to be validated: how many tokens may be enqueued is not known yet")
        return Allowed(None)
    theirs = [each for each in others if each.status in takes]
    taken = sum(each.tokens or 0 for each in mine)
    taken += sum(_guess(each, tokens_each, limit) for each in theirs)
    usable = int(limit * _MARGIN)
    if usable - taken >= usable * _WORTH or taken == 0:
        return Allowed(usable - taken)
    whose = "others in the organisation" if theirs and not mine else "batches at the provider"
    return Allowed(0, f"room among the {limit:,} tokens that may be enqueued ({taken:,} are taken by {whose})")


_KNOWN = frozenset({VALIDATING, IN_PROGRESS, FINALIZING, CANCELLING, "", *ENDED})


def _guess(other: Waiting, tokens_each: float, limit: int) -> int:
    """Nobody says how many tokens another's batch has; before it is validated, not even how many requests."""
    if other.tokens is not None:
        return other.tokens
    return int(other.requests * tokens_each) if other.requests else limit // 3
