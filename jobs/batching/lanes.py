"""The live road, batches, or both: how long each takes and what it costs, from what is known and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

WINDOW_S = 24 * 3_600.0  # the provider's promise for a batch; mostly it is sooner, and nobody may count on that


@dataclass(frozen=True, slots=True)
class Amount:
    """The work, as a survey counted it."""

    rows: int
    tokens: int
    batch_usd: float
    live_usd: float


@dataclass(frozen=True, slots=True)
class Pace:
    """What is known of each road: rows a minute live, tokens that may be enqueued; None is unknown."""

    live_per_min: float | None
    enqueued_tokens: int | None


@dataclass(frozen=True, slots=True)
class Lane:
    """`seconds` None: nobody can say. `meets` None: there is no deadline, or nobody can say."""

    name: str
    live_rows: int
    batch_rows: int
    usd: float
    seconds: float | None
    meets: bool | None = None


def compare(amount: Amount, pace: Pace, deadline_s: float | None) -> tuple[Lane, Lane, Lane]:
    """Live, Batch, split. The split is as cheap as the deadline allows; without one it takes what fits beside a day."""
    live = _lane("live", amount, amount.rows, pace)
    batch = _lane("batch", amount, 0, pace)
    split = _lane("split", amount, _live_part(amount, pace, deadline_s or WINDOW_S), pace)
    judged = [_judge(each, deadline_s) for each in (live, batch, split)]
    return judged[0], judged[1], judged[2]


def _live_part(amount: Amount, pace: Pace, until_s: float) -> int:
    """As few rows live as are needed so that the rest comes in by batches until then."""
    if not amount.rows:
        return 0
    waves = math.floor(until_s / WINDOW_S)
    if pace.enqueued_tokens is None:
        fits = amount.rows if waves else 0
    else:
        fits = min(amount.rows, int(waves * pace.enqueued_tokens / max(1.0, amount.tokens / amount.rows)))
    return amount.rows - fits


def _lane(name: str, amount: Amount, live_rows: int, pace: Pace) -> Lane:
    batch_rows = amount.rows - live_rows
    share = live_rows / amount.rows if amount.rows else 0.0
    usd = share * amount.live_usd + (1 - share) * amount.batch_usd
    live_s = _live_s(live_rows, pace)
    batch_s = _batch_s(amount, batch_rows, pace)
    return Lane(name, live_rows, batch_rows, usd, None if live_s is None else max(live_s, batch_s))


def _live_s(rows: int, pace: Pace) -> float | None:
    if rows == 0:
        return 0.0
    return None if not pace.live_per_min else 60 * rows / pace.live_per_min


def _batch_s(amount: Amount, rows: int, pace: Pace) -> float:
    """At the longest: each filling of the limit takes its whole day."""
    if rows == 0:
        return 0.0
    tokens = amount.tokens * rows / amount.rows
    return WINDOW_S * (max(1, math.ceil(tokens / pace.enqueued_tokens)) if pace.enqueued_tokens else 1)


def _judge(lane: Lane, deadline_s: float | None) -> Lane:
    meets = None if deadline_s is None or lane.seconds is None else lane.seconds <= deadline_s
    return Lane(lane.name, lane.live_rows, lane.batch_rows, lane.usd, lane.seconds, meets)
