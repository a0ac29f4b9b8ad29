"""What is done next with a chunk, as one table: B1's eight states with and without each file, and the way there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobs.batching.room import Waiting, allow
from jobs.batching.states import Act, Next, is_stalled, next_act, say_state
from queries.batch_ledger import Chunk
from queries.batches import RemoteBatch

CHUNK = Chunk(
    "run-1", "run", "t", "f", "gpt-4o-mini", "here", "/v1/chat/completions", 9, 900, 100, "0" * 64, 0.1, out=9
)
SENT = replace(CHUNK, file_id="file-1", batch_id="batch-1", upload_age_s=9.0, create_age_s=5.0, files={"input": {}})
WAIT = Next(Act.WAIT)
AT_THE_END = {
    "validating": (WAIT, WAIT),
    "in_progress": (WAIT, WAIT),
    "finalizing": (WAIT, WAIT),
    "cancelling": (WAIT, WAIT),
    "failed": (Next(Act.COLLECT, "refused"), Next(Act.PUT_BACK, "refused")),
    "completed": (Next(Act.COLLECT, "missing", counts=True),) * 2,
    "expired": (Next(Act.COLLECT, "expired"),) * 2,
    "cancelled": (Next(Act.COLLECT, "cancelled"),) * 2,
}
CASES = [
    pytest.param(status, output, error, found[0] if output or error else found[1], id=f"{status}-{output}-{error}")
    for status, found in AT_THE_END.items()
    for output in ("file-out", None)
    for error in ("file-err", None)
]


@pytest.mark.parametrize(("status", "output", "error", "expected"), CASES)
def test_b1_every_state_with_and_without_each_file_is_defined(
    status: str, output: str | None, error: str | None, expected: Next
) -> None:
    """A file that is named is read whatever the state says; without any, nothing was done for any row."""
    remote = RemoteBatch("batch-1", status, "file-1", output_file_id=output, error_file_id=error)
    assert next_act(SENT, remote, has_file=True) == expected


def test_b1_all_thirty_two_cases_are_there() -> None:
    """Eight states, each with and without an output and an error file."""
    assert len(CASES) == 32


@pytest.mark.parametrize("status", ["queued", "", "paused_for_review"])
def test_b1_an_unknown_state_is_waited_for_and_said(status: str) -> None:
    """A word of tomorrow is no reason to send anything again."""
    remote = RemoteBatch("batch-1", status, "file-1")
    assert next_act(SENT, remote, has_file=True) == WAIT
    assert "we do not know" in say_state(SENT, remote)


@pytest.mark.parametrize(
    ("known", "has_file", "act"),
    [
        pytest.param({}, True, Act.UPLOAD, id="sealed, not uploaded"),
        pytest.param({"upload_age_s": 3.0}, True, Act.UPLOAD, id="upload begun, id unknown"),
        pytest.param({"upload_age_s": 3.0}, False, Act.UPLOAD, id="upload begun on another host"),
        pytest.param({"file_id": "f"}, True, Act.CREATE, id="uploaded"),
        pytest.param({"file_id": "f", "create_age_s": 1.0}, True, Act.CREATE, id="create begun, id unknown"),
        pytest.param({"file_id": "f", "create_age_s": 1.0}, False, Act.CREATE, id="create begun on another host"),
        pytest.param({"file_id": "f", "batch_id": "b"}, False, Act.POLL, id="created"),
        pytest.param({}, False, Act.PUT_BACK, id="never sealed, or its file is elsewhere"),
    ],
)
def test_b9_each_stage_is_found_again_by_what_was_written_before_it(
    known: dict[str, Any], has_file: bool, act: Act
) -> None:
    """The intent in the ledger says where to look, and nothing is repeated that may have happened."""
    assert next_act(replace(CHUNK, **known), None, has_file=has_file).act == act


def test_b2_a_refusal_for_room_puts_the_rows_back() -> None:
    """Failed after create had succeeded: no row is at fault."""
    said = "Enqueued token limit reached for gpt-4o-mini in organization org-x. Limit: 2,000,000 enqueued tokens."
    remote = RemoteBatch("batch-1", "failed", "file-1", errors=(("token_limit_exceeded", said),))
    assert next_act(SENT, remote, has_file=True) == Next(Act.PUT_BACK, "no room")


@pytest.mark.parametrize(
    ("idle_h", "age_h", "status", "stalled"),
    [
        (5.9, 5.9, "in_progress", False),
        (6.1, 7.0, "in_progress", True),
        (0.1, 25.1, "finalizing", True),
        (0.1, 24.9, "finalizing", False),
        (30.0, 30.0, "completed", False),
        (7.0, 7.0, "validating", True),
    ],
)
def test_b13_what_stands_still_is_seen(idle_h: float, age_h: float, status: str, stalled: bool) -> None:
    """No progress for --stall, or an hour more than the provider promises."""
    chunk = replace(SENT, idle_s=idle_h * 3600, create_age_s=age_h * 3600, age_s=age_h * 3600)
    assert is_stalled(chunk, RemoteBatch("batch-1", status, "file-1"), 6 * 3600.0) is stalled


MINE, NEXT = Waiting("validating", 10_000_000), Waiting("in_progress", 10_000_000)


@pytest.mark.parametrize(
    ("limit", "ours", "others", "was_refused", "allowed"),
    [
        pytest.param(None, [], [], False, None, id="nothing known, nothing there"),
        pytest.param(None, [MINE], [], False, 0, id="unknown limit: one at a time until it is validated"),
        pytest.param(None, [NEXT], [], False, None, id="unknown limit: validated batches do not count"),
        pytest.param(20_000_000, [], [], False, 19_000_000, id="all of it, less a margin"),
        pytest.param(20_000_000, [NEXT], [], False, 19_000_000, id="in progress takes no room"),
        pytest.param(20_000_000, [NEXT], [], True, 0, id="after a refusal it does"),
        pytest.param(40_000_000, [MINE], [], False, 28_000_000, id="what is left"),
        pytest.param(20_000_000, [MINE], [], False, 0, id="too little left to be worth a file"),
        pytest.param(
            20_000_000, [], [Waiting("validating", None, 30_000)], False, 0, id="somebody else's, by requests"
        ),
        pytest.param(
            20_000_000, [], [Waiting("in_progress", None, 30_000)], False, 19_000_000, id="theirs in progress"
        ),
    ],
)
def test_b2_what_may_be_handed_in_now(
    limit: int | None, ours: list[Waiting], others: list[Waiting], was_refused: bool, allowed: int | None
) -> None:
    """Only what is validating takes room; after one refusal also what is in progress (DOMAIN 1.2)."""
    assert allow(limit, ours, others, was_refused=was_refused, tokens_each=600.0).tokens == allowed
