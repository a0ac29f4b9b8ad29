"""Result files by id: order, doubles, strangers and garbage change nothing (B6, B7)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from jobs.batching import results
from jobs.batching.results import Results


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" if not isinstance(line, str) else line + "\n" for line in lines))
    return path


def line(custom_id: str, status: int = 200, text: str = "x") -> dict[str, object]:
    return {"custom_id": custom_id, "response": {"status_code": status, "body": {"text": text}}, "error": None}


def test_b7_a_shuffled_file_gives_every_row_its_own_line(tmp_path: Path) -> None:
    """Position is never used."""
    lines = [line(f"run-1-{n}", text=f"text {n}") for n in range(200)]
    random.Random(7).shuffle(lines)
    found = Results("run-1", 200, [write(tmp_path / "o", *lines)])
    assert all(json.loads(found.line_of(n).body)["text"] == f"text {n}" for n in range(200))  # type: ignore[union-attr]


def test_b6_of_two_lines_the_paid_one_counts(tmp_path: Path) -> None:
    """An error line beside an answer never hides it, whichever comes first, in whichever file."""
    output = write(
        tmp_path / "o", line("run-1-0", 500), line("run-1-0"), line("run-1-1"), line("run-1-2", text="first")
    )
    errors = write(tmp_path / "e", line("run-1-1", 429), line("run-1-2", text="second"))
    found = Results("run-1", 3, [output, errors])
    assert [found.line_of(n).status for n in range(3)] == [200, 200, 200]  # type: ignore[union-attr]
    assert b"first" in found.line_of(2).body  # type: ignore[union-attr]
    assert found.odd.doubled == 3


def test_b6_strangers_and_garbage_are_counted_and_harm_nobody(tmp_path: Path) -> None:
    """Other ids, near misses of ours, and what is no line at all."""
    strangers = ["run-2-0", "run-1-00", "run-1-", "run-1--1", "somebody", "run-1-٣", "run-1-1000000000000"]
    path = write(tmp_path / "o", line("run-1-0"), *map(line, strangers), "[1]", "<html>", '{"custom_id": "run-1-0"', "")
    found = Results("run-1", 1, [path, tmp_path / "not there"])
    assert found.line_of(0) is not None
    assert (found.odd.foreign, found.odd.garbage, found.odd.doubled) == (len(strangers), 3, 0)
    assert "in the files of run-1" in found.odd.said("run-1")


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_a_large_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    """Memory holds some rows' lines at a time; oddities are counted once all the same."""
    path = write(tmp_path / "o", *(line(f"run-1-{n}") for n in range(50)), line("run-1-3"), line("else-1"))
    monkeypatch.setattr(results, "_AT_ONCE_BYTES", max(1, path.stat().st_size * rows_at_once // 50))
    found = Results("run-1", 50, [path])
    assert all(found.line_of(n) is not None for n in range(50))
    assert (found.odd.doubled, found.odd.foreign) == (1, 1)
