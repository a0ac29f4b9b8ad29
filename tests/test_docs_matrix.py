"""docs/fault-matrix.md names a test for every fault that each job can meet, and no test that is not there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache

import pytest

from tests.servers.shell import ROOT

PAGE = (ROOT / "docs/fault-matrix.md").read_text(encoding="utf-8")
EVERY, LATER = set(range(1, 51)), {4, 47}
RICH = "rich semantics: --inline and catchup worker"  # what it decides itself: the rest is the engine's
NOT_MET = {
    "backfill-summaries": set(range(34, 47)),
    "vectorize": {32, *range(35, 40), *range(43, 47)},
    "reprocess-videos": set(range(27, 45)),
    "refresh-views": {*range(27, 43), *range(45, 48)},
    RICH: {*range(4, 8), *range(9, 14), *range(15, 20), 21, 22, 24, 27, *range(29, 32), *range(34, 47)},
}
FILES = {
    "reprocess-videos": re.compile(r"test_(job_messages|cli_reprocess|engine_kill_messages)"),
    RICH: re.compile(r"test_(job_rich|cli_inline|cli_worker|engine_kill_inline)"),
    "vectorize": re.compile(r"test_(job_vectorize|engine_kill_vectors)"),
    "refresh-views": re.compile(r"test_(job_views|engine_kill_views)"),
    "submit-batch": re.compile(r"test_(job_batch|engine_kill_batches)"),
}
"""Which files the numbered tests of a job are in; all others are of the first job, or of the engine made with it."""


def read_rows(job: str) -> dict[int, str]:
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = [each for each in section if each.startswith(f"{job}\n")]
    return {int(number): cells for number, cells in re.findall(r"^\| F(\d+) \|(.*)\|$", text, re.MULTILINE)}


ROWS = {job: read_rows(job) for job in NOT_MET}


@cache
def written_tests(job: str = "") -> Counter[str]:
    """Of one job, or all of them."""
    return Counter(
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        if not job or job == next((name for name, file in FILES.items() if file.match(path.name)), "backfill-summaries")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("job", NOT_MET)
def test_every_fault_of_a_job_has_a_row(job: str) -> None:
    """Fifty faults, less those that this job does not meet and the two that come later."""
    assert set(ROWS[job]) - LATER == EVERY - LATER - NOT_MET[job]


@pytest.mark.parametrize(("job", "number"), [(job, number) for job, rows in ROWS.items() for number in sorted(rows)])
def test_every_fault_has_a_test_that_exists(job: str, number: int) -> None:
    """A name that was changed in the tests and not on the page is found here; so is one of another job's test."""
    named = re.findall(r"`(test_\w+)`", ROWS[job][number])
    assert named
    assert set(named) <= set(written_tests(job))


@pytest.mark.parametrize("job", NOT_MET)
def test_every_test_that_bears_a_faults_number_is_on_the_page(job: str) -> None:
    """And stands in the row of that number."""
    tests = written_tests(job)
    numbered = {name: int(found.group(1)) for name in tests if (found := re.match(r"test_f(\d+)_", name))}
    assert {name: number for name, number in numbered.items() if name not in ROWS[job].get(number, "")} == {}


def test_every_other_test_that_is_named_exists() -> None:
    """Those of the sentences below the tables."""
    assert set(re.findall(r"`(test_\w+)`", PAGE)) <= set(written_tests())
