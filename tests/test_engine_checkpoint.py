"""The cursor is the contiguous low-water mark of all pages in flight."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from jobs.engine.checkpoint import Checkpoint
from queries.table import Key


def keys(start: int, stop: int) -> list[Key]:
    return [(f"{number:04}",) for number in range(start, stop)]


def test_a_later_page_settled_first_does_not_move_the_cursor() -> None:
    """Else a kill would skip what is still in flight before it."""
    checkpoint = Checkpoint(None)
    checkpoint.opened(keys(0, 3))
    checkpoint.opened(keys(3, 6))
    checkpoint.settled(keys(3, 6))
    assert checkpoint.key is None
    checkpoint.settled(keys(0, 3))
    assert checkpoint.key == ("0005",)


def test_the_cursor_written_with_a_batch_is_true_once_the_batch_is() -> None:
    """It is known before the write and does not move by asking."""
    checkpoint = Checkpoint(("start",))
    checkpoint.opened(keys(0, 2))
    assert checkpoint.would_be(keys(0, 1)) == ("start",)
    assert checkpoint.would_be(keys(0, 2)) == ("0001",)
    assert checkpoint.key == ("start",)


@given(st.integers(1, 60), st.integers(1, 7), st.randoms())
def test_in_any_order_of_settling_nothing_open_lies_below_the_cursor(
    rows: int, page: int, chance: random.Random
) -> None:
    """The one invariant that makes resuming safe."""
    checkpoint = Checkpoint(None)
    for start in range(0, rows, page):
        checkpoint.opened(keys(start, min(rows, start + page)))
    order = keys(0, rows)
    chance.shuffle(order)
    still_open = set(order)
    for key in order:
        checkpoint.settled([key])
        still_open.discard(key)
        assert not [k for k in still_open if checkpoint.key is not None and k <= checkpoint.key]
    assert checkpoint.key == keys(0, rows)[-1]
    assert checkpoint.open_rows == 0
