"""What is shown: text that is not ours cannot drive the terminal, and no width or locale breaks a view."""

from __future__ import annotations

import io
import json
import re
import sys
from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from cli import report, streams
from cli.layout import as_plain, as_rich
from cli.plain import Machine, Plain, progress_line
from cli.plan_view import plan_lines
from cli.runs import run_lines, run_table
from cli.screen import Screen, draw
from cli.streams import Forgiving
from jobs.engine.books import Books
from jobs.engine.verdict import Exit, Money, Named, Verdict
from jobs.engine.watch import Plan, Snapshot
from queries.errors import Misconfigured
from queries.ledger import RowVerdict, RunRecord
from queries.table import Slice
from tests.servers.hostile import TITLES

# Everything below 0x20 but the line feed, DEL, C1, and what turns the reading direction.
NEVER = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
OURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def _books() -> Books:
    return Books(312, 290, Counter({"too short": 8, "empty": 2}), Counter({"refusal": 2}), 4, 5, 1)


def _verdict(text: str = "a title") -> Verdict:
    return Verdict(
        run_id="3f2a9c01b2",
        job="backfill-summaries",
        target="video-summaries",
        model="gpt-4o-mini",
        where=f"host/{text}",
        exit=Exit.SOME_NAMED,
        headline=f"finished {text}",
        books=_books(),
        money=Money(0.0791, 0.0812, 0.0002, 0.0103),
        calls=305,
        tokens_in=410_233,
        tokens_out=12_034,
        throttled=7,
        recovered=6,
        per_min=451.4,
        bound_by="tokens per minute",
        seconds=187.0,
        stop_reason=f"because {text}",
        fix=f"mend {text}",
        next_command="catchup runs show 3f2a9c01b2",
        notes=(text,),
        named=tuple(Named(text, "failed", text, text) for _ in range(11)),
    )


def _plan(text: str = "a title") -> Plan:
    return Plan(
        "backfill-summaries", "video-summaries", "public.videos", f"host/{text}", text, "openai", ("llm_summary",),
        1001, True, 178_000, 21.5, 200, 180.4, 210_000_000, 12, (text,), (text,), "$5.00 a run",
        samples=((text, text),), would_skip=((text, 3),), notes=(text,), standing=((text, 2),),
    )  # fmt: skip


def _snapshot(text: str = "a title") -> Snapshot:
    return Snapshot("running", _books(), 14, 451.4, text, 0.41, 0.0003, 5.0, 1200, 41.2, "", (text, text))


def _record(text: str) -> RunRecord:
    return RunRecord(
        "3f2a", "job", "target", "f", {"model": text}, Slice(), "stopped", text, "h", (text,), None, 3, 0.1,
        {"wrote": 3}, 0.1, 0.1, 3, text, False, text, text,
    )  # fmt: skip


def _rendered(what: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, markup=False, highlight=False)
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def _every_view(text: str) -> list[str]:
    error = Misconfigured(f"{text}\nand {text}", fix=text, service=text, code=text, words=text)
    lines = [
        report.verdict_lines(_verdict(text)),
        plan_lines(_plan(text)),
        run_table([_record(text)]),
        run_lines(_record(text), [RowVerdict((text,), "g", "failed", text, text)]),
        report.error_lines(error, Exit.REFUSED),
    ]
    waiting = replace(_snapshot(text), waiting_for=text)
    drawn = [_rendered(draw(shot, text, width), width) for shot in (_snapshot(text), waiting) for width in (20, 80)]
    plain = [as_plain(some, width) for some in lines for width in (20, 100)]
    rich = [_rendered(as_rich(some, width), width) for some in lines for width in (20, 100)]
    return [*drawn, *plain, *rich, progress_line(_snapshot(text)), progress_line(waiting)]


@pytest.mark.parametrize("title", TITLES, ids=range(len(TITLES)))
def test_a_hostile_title_drives_no_view(title: str) -> None:
    """X6: nothing raises, and no control character of the data's reaches the terminal."""
    for seen in _every_view(title):
        without_ours = OURS.sub("", seen)
        assert not NEVER.search(without_ours)
        assert "\x1b[2J" not in seen
        assert "\x1b[31mtitle" not in seen


def test_there_are_sixty_hostile_titles() -> None:
    """The table does not shrink unnoticed."""
    assert len(TITLES) == 60


@pytest.mark.parametrize("title", TITLES, ids=range(len(TITLES)))
async def test_json_lines_stay_one_ascii_object_a_line(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    """X12: machines get every character, escaped; no title can end a line or forge a verdict."""
    view = Machine()
    view.notice(title)
    view.plan(_plan(title))
    assert not await view.confirm(_plan(title), title)
    view.finish(_verdict(title))
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["notice", "plan", "refused", "verdict"]
    assert all(line.isascii() and line.isprintable() for line in lines)


@pytest.mark.parametrize("text", ['?key=abc"', 'Bearer x"y', 'password=\\"', 'sk-0123456789abcdef"'], ids=repr)
def test_hiding_secrets_never_breaks_a_json_line(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks like a key beside a quote is hidden inside its value, and the line stays one object."""
    monkeypatch.setattr(streams, "_secrets", ["sk-configured-secret"])
    monkeypatch.setattr(sys, "stdout", Forgiving(sys.stdout))
    report.write_json({"type": "notice", "text": f"{text} sk-configured-secret", "rate": float("inf")})
    line = capsys.readouterr().out
    assert json.loads(line)["type"] == "notice"
    assert "configured" not in line


def test_the_verdict_shows_every_number() -> None:
    """Selected, wrote, skipped, failed, changed, gone, to do, calls, tokens, cost, pace, time: each is there."""
    text = as_plain(report.verdict_lines(_verdict()), 200)
    for number in (
        "312", "290", "10   too short 8, empty 2", "2   refusal 2", "4", "5", "1", "305", "410,233", "12,034",
        "7 throttled", "6 recovered", "$0.0812", "$0.0791", "$0.0002", "$0.0103", "451/min", "tokens per minute",
        "3:07",
    ):  # fmt: skip
        assert number in text
    assert "1 more: catchup runs show 3f2a9c01b2" in text
    assert text.rstrip().endswith("finished, and some rows are named as failed or changed")


def test_books_that_do_not_balance_are_shouted() -> None:
    """No wrong sum hides among other numbers."""
    off = replace(_verdict(), books=replace(_books(), selected=400))
    assert "DO NOT BALANCE" in as_plain(report.verdict_lines(off))


def test_a_plan_marks_what_is_not_exact() -> None:
    """A floor says "at least", the planner's guess carries a tilde."""
    text = as_plain(plan_lines(_plan()))
    assert "at least 1,001 pending (the table has ~178,000)" in text
    assert "~$21.50" in text
    assert "~210.0 MB" in text


def test_plain_progress_comes_at_most_every_30_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """R20: an hour of a log is 120 lines, without a control code."""
    now = [0.0]
    view = Plain(now=lambda: now[0])
    for _ in range(36_000):
        now[0] += 0.1
        view.progress(_snapshot())
    seen = capsys.readouterr()
    assert 115 <= len(seen.err.splitlines()) <= 120
    assert not NEVER.search(seen.err)
    assert seen.out == ""


@pytest.mark.parametrize("width", [20, 40, 60, 120])
def test_no_line_of_the_screen_is_wider_than_the_terminal(width: int) -> None:
    """20 columns cut lines; they never wrap the live area into a staircase."""
    drawn = OURS.sub("", _rendered(draw(_snapshot(), "title " * 30, width), width))
    assert max(len(line) for line in drawn.splitlines()) <= width


def test_a_terminal_that_fails_costs_the_picture_only() -> None:
    """The watcher never raises into the engine."""

    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError("gone")

    screen = Screen(Console(file=Broken(), force_terminal=True))
    screen.plan(_plan())
    screen.notice("x")
    screen.progress(_snapshot())
    screen.finish(_verdict())
    screen.abandon()


async def test_without_a_terminal_to_type_at_the_answer_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed input does not say yes."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    screen = Screen(Console(file=io.StringIO(), force_terminal=True))
    assert not await screen.confirm(_plan(), "this is more than 1,000 rows")
