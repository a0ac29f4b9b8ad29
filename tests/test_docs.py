"""The documents say what the program says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import README, filled
from jobs.engine.verdict import Exit
from tests.servers.shell import ROOT

PAGES = sorted([README, *(ROOT / "docs").glob("*.md")])


def test_the_command_reference_is_what_help_prints() -> None:
    """`make docs` was run after the last change of an option."""
    text = README.read_text(encoding="utf-8")
    assert text == filled(text), "run: make docs"


def test_every_exit_code_is_documented_and_no_other() -> None:
    """The table of exit codes is the enumeration."""
    table = README.read_text(encoding="utf-8").partition("<!-- generated: exit codes -->")[2].partition("<!-- end")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) ", table, re.MULTILINE)] == sorted(Exit)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page is a file of this repository."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_picture_fetches_nothing() -> None:
    """An image that loads fonts from elsewhere tells elsewhere who reads this page."""
    assert not re.search(r"url\((?!#)|@import|<script|href=", (ROOT / "docs/run.svg").read_text(encoding="utf-8"))
