"""docs/fault-matrix.md names a test for every fault that this job can meet, and no test that is not there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.servers.shell import ROOT

PAGE = (ROOT / "docs/fault-matrix.md").read_text(encoding="utf-8")
ROWS = {int(number): cells for number, cells in re.findall(r"^\| F(\d+) \|(.*)\|$", PAGE, re.MULTILINE)}
LATER = {4, 47}
OF_OTHER_JOBS = set(range(34, 47))


def written_tests() -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_fault_of_this_job_has_a_row() -> None:
    """Fifty faults, less those of other jobs and the two that come later."""
    assert set(ROWS) == set(range(1, 51)) - LATER - OF_OTHER_JOBS


@pytest.mark.parametrize("number", sorted(ROWS))
def test_every_fault_has_a_test_that_exists(number: int) -> None:
    """A name that was changed in the tests and not on the page is found here."""
    named = re.findall(r"`(test_\w+)`", ROWS[number])
    assert named
    assert set(named) <= written_tests()


def test_every_test_that_bears_a_faults_number_is_on_the_page() -> None:
    """And stands in the row of that number."""
    numbered = {name: int(found.group(1)) for name in written_tests() if (found := re.match(r"test_f(\d+)_", name))}
    assert {name: number for name, number in numbered.items() if name not in ROWS.get(number, PAGE)} == {}
