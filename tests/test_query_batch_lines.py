"""A line of a result file is judged as the same answer of a live call, and no file can stop its reading."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queries.batch_lines import Garbage, Line, judge_chat, judge_vectors, read_lines
from queries.chat import ChatAnswer
from queries.embed import EmbedAnswer, EmbedRequest
from queries.errors import CatchupError, Misconfigured, OutOfMoney, Transient
from queries.openai_answers import read_answer
from queries.openai_errors import classify
from queries.openai_vectors import read_vectors
from tests.recorded_openai import ANSWERS, NO_ANSWERS, Recorded

TEXT = "the transcript that was sent, which no message may repeat to anybody"
GOOD: list[tuple[str, dict[str, Any]]] = [
    ("stop", {"choices": [{"message": {"content": "A talk."}, "finish_reason": "stop"}], "model": "m"}),
    ("length", {"choices": [{"message": {"content": "A ta"}, "finish_reason": "length"}]}),
    ("filter", {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}),
    ("refusal", {"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}),
    ("parts", {"choices": [{"message": {"content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}}]}),
    ("surrogate", {"choices": [{"message": {"content": "odd \ud800 text"}, "finish_reason": "stop"}]}),
]  # fmt: skip
VECTOR_ANSWERS: list[tuple[str, Any]] = [
    ("right", [(0, [1.0, 2.0]), (1, [3.0, 4.0])]),
    ("shuffled", [(1, [3.0, 4.0]), (0, [1.0, 2.0])]),
    ("short", [(0, [1.0, 2.0])]),
    ("double", [(0, [1.0, 2.0]), (0, [3.0, 4.0])]),
    ("null", [(0, None), (1, [3.0, 4.0])]),
    ("zero", [(0, [0.0, 0.0]), (1, [3.0, 4.0])]),
    ("not-finite", [(0, [float("nan"), 1.0]), (1, [3.0, 4.0])]),
    ("other-dimension", [(0, [1.0, 2.0, 3.0]), (1, [3.0, 4.0, 5.0])]),
    ("empty", []),
]
REQUEST = EmbedRequest("text-embedding-3-small", ("one", "two"), 2)


def as_line(status: int, body: bytes, custom_id: str = "c-1") -> bytes:
    """As the service writes it: a body that is JSON as it is, anything else as a string."""
    try:
        json.loads(body.decode())
        inside = body.strip()
    except (ValueError, RecursionError):
        inside = json.dumps(body.decode("utf-8", "replace")).encode()
    inside = inside.replace(b"\n", b" ")
    head = json.dumps({"id": "batch_req_1", "custom_id": custom_id})[:-1].encode()
    return head + b', "response": {"status_code": %d, "request_id": "r", "body": %b}, "error": null}\n' % (
        status,
        inside,
    )


def write(folder: Path, *lines: bytes) -> Path:
    path = folder / "out.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def only(found: Iterable[Line | Garbage]) -> Line:
    (line,) = found
    assert isinstance(line, Line), line
    return line


def seen(verdict: Any) -> tuple[Any, ...]:
    """All that is decided by a verdict."""
    if isinstance(verdict, CatchupError):
        return (type(verdict), *(getattr(verdict, name, None) for name in ("code", "reason", "words", "retry_after_s")))
    return (verdict,)


@pytest.mark.parametrize("recorded", ANSWERS, ids=lambda each: each.name)
def test_a_recorded_answer_is_the_same_as_a_line(recorded: Recorded, tmp_path: Path) -> None:
    """B11, O1-O12: each recorded body inside a line becomes the very error it is live; only headers are not there."""
    body = recorded.body.encode() if isinstance(recorded.body, str) else json.dumps(recorded.body).encode()
    live = classify(recorded.status, body, {}, private=TEXT)
    if recorded.status == 200:
        live = _live_chat(body)
    line = only(read_lines(write(tmp_path, as_line(recorded.status, body))))
    assert seen(judge_chat(line, private=TEXT))[:3] == seen(live)[:3]
    assert line.is_paid == (recorded.status == 200)


@pytest.mark.parametrize(("name", "body"), NO_ANSWERS, ids=[name for name, _ in NO_ANSWERS])
def test_a_200_that_is_no_answer_is_none_as_a_line_either(name: str, body: bytes, tmp_path: Path) -> None:
    """O8: no malformed body is believed because it came in a file."""
    live = _live_chat(body)
    found = only(read_lines(write(tmp_path, as_line(200, body))))
    assert seen(judge_chat(found))[:2] == seen(live)[:2]
    assert isinstance(live, Transient)


@pytest.mark.parametrize(("name", "body"), GOOD, ids=[name for name, _ in GOOD])
def test_a_whole_answer_is_the_same_as_a_line(name: str, body: dict[str, Any], tmp_path: Path) -> None:
    """O9, O10: cut off, filtered, refused and good answers reach the job's judgement exactly as they do live."""
    line = only(read_lines(write(tmp_path, as_line(200, json.dumps(body).encode()))))
    assert judge_chat(line) == read_answer(json.dumps(body).encode(), {})


@pytest.mark.parametrize("as_base64", [True, False], ids=["base64", "floats"])
@pytest.mark.parametrize(("name", "vectors"), VECTOR_ANSWERS, ids=[name for name, _ in VECTOR_ANSWERS])
def test_vectors_are_the_same_as_a_line(name: str, vectors: Any, as_base64: bool, tmp_path: Path) -> None:
    """O12: count, order, dimension and finiteness are checked in a line as they are live."""
    body = json.dumps({"data": [{"index": n, "embedding": _written(v, as_base64)} for n, v in vectors]}).encode()
    try:
        live: Any = read_vectors(body, {}, REQUEST)
    except CatchupError as error:
        live = error
    line = only(read_lines(write(tmp_path, as_line(200, body))))
    assert seen(judge_vectors(line, REQUEST)) == seen(live)
    assert isinstance(live, EmbedAnswer | Transient | Misconfigured)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"custom_id":"a","response":{"status_code":0,"request_id":"","body":{}},"error":null}', "status_0"),
        (b'{"custom_id":"a","response":null,"error":null}', "status_0"),
        (b'{"custom_id":"a","response":null,"error":{"code":"batch_expired","message":"..."}}', "batch_expired"),
        (b'{"custom_id":"a","response":null,"error":{"code":"batch_cancelled","message":"..."}}', "batch_cancelled"),
        (b'{"custom_id":"a"}', "status_0"),
    ],
    ids=["status-0", "nothing", "expired", "cancelled", "bare"],
)
def test_what_was_not_worked_may_be_sent_again(line: bytes, code: str, tmp_path: Path) -> None:
    """B6, B8: a request nobody worked is not paid, not the item's fault, and told from one that failed."""
    found = only(read_lines(write(tmp_path, line)))
    verdict = judge_chat(found)
    assert isinstance(verdict, Transient)
    assert (verdict.code, found.is_paid, found.was_reached) == (code, False, False)


def test_fatal_words_without_a_status_are_fatal(tmp_path: Path) -> None:
    """A used-up balance in a line's own error stops like a live one."""
    line = b'{"custom_id":"a","response":null,"error":{"code":"insufficient_quota","message":"quota"}}'
    assert isinstance(judge_chat(only(read_lines(write(tmp_path, line)))), OutOfMoney)


def test_garbage_is_named_by_its_line_and_the_rest_is_read(tmp_path: Path) -> None:
    """Lines that name no request are counted, where they stand and why; none of what they say is repeated."""
    good = as_line(200, json.dumps(GOOD[0][1]).encode())
    path = write(
        tmp_path, good, b"\n", b"[1]\n", b"<html>\n", b"\xff\xfe{}\n", b'{"custom_id": 7}\n', good[:40] + b"\n", good
    )
    found = list(read_lines(path))
    assert [each.number for each in found if isinstance(each, Line)] == [1, 8]
    assert [(each.number, each.why) for each in found if isinstance(each, Garbage)] == [
        (3, "no custom_id"), (4, "no JSON"), (5, "no JSON"), (6, "no custom_id"), (7, "no JSON"),
    ]  # fmt: skip


def test_a_line_of_another_shape_that_names_a_request_is_an_answer_that_is_none(tmp_path: Path) -> None:
    """Its row is asked again once; that it was paid is assumed."""
    found = only(read_lines(write(tmp_path, b'{"custom_id": "a", "response": [1], "error": null}\n')))
    verdict = judge_chat(found)
    assert (found.custom_id, found.is_paid, seen(verdict)[:2]) == ("a", True, (Transient, "malformed"))


def test_a_service_that_repeats_the_text_is_not_quoted(tmp_path: Path) -> None:
    """A row's text gets into no message by way of a result file."""
    body = json.dumps({"error": {"message": f"Bad text: {TEXT}", "code": "odd"}}).encode()
    verdict = judge_chat(only(read_lines(write(tmp_path, as_line(400, body)))), private=TEXT)
    assert "transcript" not in f"{verdict} {getattr(verdict, 'words', '')}"


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode))))
def test_junk_never_stops_the_reading(tmp_path: Path, lines: list[bytes]) -> None:
    """Whatever a file holds, every line of it is either a request's or named; judging raises nothing."""
    path = write(tmp_path, b"\n".join(lines))
    for each in read_lines(path):
        if isinstance(each, Line):
            assert isinstance(judge_chat(each), ChatAnswer | CatchupError)


def test_reading_a_large_file_holds_one_line_at_a_time(tmp_path: Path) -> None:
    """A file of 40 MB is read in the memory of a few lines."""
    body = json.dumps(GOOD[0][1] | {"filler": "x" * 2_000}).encode()
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        for n in range(20_000):
            file.write(as_line(200, body, f"c-{n}"))
    tracemalloc.start()
    count = sum(1 for each in read_lines(path) if isinstance(each, Line))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 4 << 20


def _live_chat(body: bytes) -> Any:
    try:
        return read_answer(body, {})
    except CatchupError as error:
        return error


def _written(vector: list[float] | None, as_base64: bool) -> Any:
    if vector is None or not as_base64:
        return vector
    return base64.b64encode(np.array(vector, "<f4").tobytes()).decode()
