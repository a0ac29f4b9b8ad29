"""The documents say what the program says."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from cli.choices import targets_of
from cli.settings import load
from docs.generate import README, filled
from jobs.engine.job import Ask, Good, Job, Means
from jobs.engine.options import Options
from jobs.engine.verdict import Exit
from jobs.registry import find_jobs, load_job
from queries.chat import ChatAnswer
from queries.prices import load_price
from queries.table import Row
from queries.tokens import TokenCounter
from tests.servers.shell import ROOT

TARGETS = (ROOT / "docs/targets.md").read_text(encoding="utf-8")
EXAMPLES = [
    block
    for found in re.findall(r"(?:^(?: {4}.*)?\n)+", TARGETS, re.MULTILINE)
    if "[targets." in (block := dedent(found))
]
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


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: re.search(r"targets\.([\w-]+)", text)[1])
def test_every_target_of_the_page_is_one_that_a_command_takes(tmp_path: Path, example: str) -> None:
    """What is copied from the page is not refused."""
    (tmp_path / "catchup.toml").write_text(example)
    settings = load({}, tmp_path)
    known = {name for job in find_jobs() for name in targets_of(load_job(job), settings)}
    assert settings.targets.keys() <= known


def test_the_page_has_an_example_of_every_place_and_of_both_kinds_of_transcripts() -> None:
    """Four ways to keep vectors, five examples, and one of sentences."""
    wholes = [next(iter(tomllib.loads(example)["targets"].values())) for example in EXAMPLES]
    assert [table.get("store") for table in wholes] == [None, "pinecone", "pgvector", "column", "pgvector", "pgvector"]
    assert ["joined" in table for table in wholes] == [False] * 5 + [True]


def test_the_job_of_the_page_is_a_job(tmp_path: Path) -> None:
    """Copied from the page it asks and judges, and lacks nothing that the engine asks of a job."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/adding-a-job.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    made = ModuleType("jobs.make_titles")
    sys.modules[made.__name__] = made  # where dataclasses look up their annotations
    try:
        exec(code[1], vars(made))  # noqa: S102 - our own page
    finally:
        del sys.modules[made.__name__]
    job, tokens = made.JOB, TokenCounter("gpt-4o-mini", tmp_path)
    assert {name for name in vars(Job) if not name.startswith("_")} <= set(dir(job))
    means = Means(made.POSTS, "gpt-4o-mini", tokens, load_price("gpt-4o-mini"), Options(min_words=3))
    row = Row(("1",), "guard", {"body": "The cranes of the harbour were restored by volunteers last year."}, {})
    ask = job.prepare(row, means)
    assert isinstance(ask, Ask)
    answer = ChatAnswer("Volunteers restored the harbour's cranes", "stop", None, "gpt-4o-mini", 10, 8)
    assert [type(verdict) for verdict in job.judge(ask, answer, means)] == [Good]


def test_the_files_that_answer_questions_exist() -> None:
    """The table of the page names files of this repository."""
    table = (ROOT / "docs/adding-a-job.md").read_text(encoding="utf-8").partition("## Where things are")[2]
    named = re.findall(r"`([\w/]+\.(?:py|sql))`", table)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_picture_fetches_nothing() -> None:
    """An image that loads fonts from elsewhere tells elsewhere who reads this page."""
    assert not re.search(r"url\((?!#)|@import|<script|href=", (ROOT / "docs/run.svg").read_text(encoding="utf-8"))
