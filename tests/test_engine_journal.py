"""The journal: what was paid survives any death, and damage is refused, never guessed away."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.engine import fault_points
from jobs.engine.journal import Journal
from jobs.engine.past import Paid, read
from queries.errors import Misconfigured
from queries.ledger import RowVerdict
from queries.vectors import VectorRecord

HEADER = {"run": "r1", "target": "t", "fingerprint": "f", "place": "p"}


def paid(key: str, text: str = "A sentence.") -> Paid:
    return Paid((key,), "guard-" + key, {"llm_summary": None}, {"llm_summary": text})


def written(path: Path, rows: int = 10) -> Journal:
    """A journal with answers for every row, the first half confirmed by the database."""
    journal = Journal(path)
    journal.create(HEADER)
    for number in range(rows):
        attempt = journal.attempted([(f"k{number}",)], 0.01)
        journal.answered(attempt, 0.002, [paid(f"k{number}")])
    keys = [(f"k{number}",) for number in range(rows // 2)]
    spend = {"usd": 0.002 * (rows // 2), "possibly_usd": 0.0, "calls": rows // 2, "tokens": [0, 0]}
    journal.writing("w1", {"keys": keys, "verdicts": [], "books": {}, "checkpoint": None, "back": [], **spend})
    journal.confirmed("w1")
    return journal


def test_what_was_paid_and_not_confirmed_is_found_again(tmp_path: Path) -> None:
    """Only confirmed rows leave the journal's debt; money is counted exactly."""
    written(tmp_path / "j").close(keep=True)
    past, _, attempts = read(tmp_path / "j")
    assert sorted(past.paid) == [(f"k{number}",) for number in range(5, 10)]
    assert past.confirmed == {(f"k{number}",) for number in range(5)}
    assert attempts == 10
    assert past.spent_usd == pytest.approx(0.02)
    assert past.spent_usd - past.booked_usd == pytest.approx(0.01)


def test_an_unanswered_attempt_stays_booked_as_possibly_billed(tmp_path: Path) -> None:
    """Sent and never answered: at the worst case, once, also after a second death."""
    journal = Journal(tmp_path / "j")
    journal.create(HEADER)
    journal.attempted([("k",)], 0.05)
    journal.close(keep=True)
    for _ in range(3):
        again = Journal(tmp_path / "j")
        assert again.resume().possibly_usd == pytest.approx(0.05)
        again.close(keep=True)


def test_a_journal_cut_at_every_byte_gives_all_whole_lines_or_nothing(tmp_path: Path) -> None:
    """A kill can tear the last line; every line before it is used."""
    journal = written(tmp_path / "whole", rows=4)
    journal.close(keep=True)
    content = (tmp_path / "whole").read_bytes()
    for cut in range(len(content) + 1):
        path = tmp_path / "cut"
        path.write_bytes(content[:cut])
        past, end, _ = read(path)
        whole = content[:cut].rfind(b"\n") + 1
        assert end == whole
        assert past.torn is (whole != cut)


def test_damage_in_the_middle_is_refused_with_its_line(tmp_path: Path) -> None:
    """Anything but a torn tail means that somebody must look."""
    written(tmp_path / "j").close(keep=True)
    content = bytearray((tmp_path / "j").read_bytes())
    third = content.find(b"\n", content.find(b"\n") + 1) + 20
    content[third] ^= 0xFF
    (tmp_path / "j").write_bytes(bytes(content))
    with pytest.raises(Misconfigured, match="damaged at line 3"):
        read(tmp_path / "j")


def test_every_flipped_bit_of_the_header_is_noticed(tmp_path: Path) -> None:
    """No header is believed that is not exactly what was written."""
    written(tmp_path / "j", rows=2).close(keep=True)
    content = (tmp_path / "j").read_bytes()
    for position in range(content.index(b"\n")):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            (tmp_path / "d").write_bytes(bytes(damaged))
            with pytest.raises(Misconfigured):
                read(tmp_path / "d")


def test_another_version_of_the_format_is_refused(tmp_path: Path) -> None:
    """A newer tool's journal is not half understood."""
    journal = Journal(tmp_path / "j")
    journal.create({**HEADER, "v": 99})
    journal.close(keep=True)
    with pytest.raises(Misconfigured, match="format 99"):
        read(tmp_path / "j")


def test_the_row_whose_text_killed_the_process_is_known(tmp_path: Path) -> None:
    """The mark outlives the process; it is counted once a death."""
    for deaths in range(1, 4):
        journal = Journal(tmp_path / "j")
        if deaths == 1:
            journal.create(HEADER)
        else:
            assert journal.resume().crashes == {("poison",): deaths - 1}
        journal.mark(("innocent",))
        journal.mark(None)
        journal.mark(("poison",))
        os.close(journal._handle)
    assert Journal(tmp_path / "j").resume().crashes == {("poison",): 3}


def test_texts_do_not_stay_on_disk_after_a_finished_run(tmp_path: Path) -> None:
    """The journal keeps answers only as long as they are needed."""
    written(tmp_path / "j").close(keep=False)
    assert list(tmp_path.iterdir()) == []


def test_no_money_is_spent_when_the_disk_cannot_take_the_answer(tmp_path: Path) -> None:
    """Space is reserved before a call; a full disk is known while nothing is at stake."""
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from jobs.engine.journal import Journal\n"
        "from queries.errors import Misconfigured\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        "journal = Journal(Path(sys.argv[1])); journal.create({'run': 'r'})\n"
        "sent = 0\n"
        "try:\n"
        "    while True:\n"
        "        journal.reserve(5000); sent += 1; journal.append('paid', {'x': 'y' * 4000})\n"
        "except Misconfigured as full:\n"
        "    print(sent, full.what)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "j")], capture_output=True, text=True, check=True
    )
    sent, _, why = done.stdout.partition(" ")
    assert int(sent) > 200
    assert "cannot grow" in why
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@given(st.lists(st.sampled_from(["ok", "none", "bad", "open"]), max_size=30), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_any_history_replays_to_what_is_owed(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], done: int
) -> None:
    """Paid minus confirmed is owed; judged rows keep their verdict; unanswered ones stay possibly billed."""
    path = tmp_path_factory.mktemp("j") / "j"
    journal = Journal(path)
    journal.create(HEADER)
    for number, kind in enumerate(kinds):
        attempt = journal.attempted([(f"k{number}",)], 0.01)
        if kind == "ok":
            journal.answered(attempt, 0.002, [paid(f"k{number}")])
        elif kind == "bad":
            journal.answered(attempt, 0.002, [], [RowVerdict((f"k{number}",), "g", "failed", "refusal", "")])
        elif kind == "none":
            journal.ended(attempt, 0.0)
    good = [(f"k{number}",) for number, kind in enumerate(kinds) if kind == "ok"]
    spend = {"usd": 0.0, "possibly_usd": 0.0, "calls": 0, "tokens": [0, 0]}
    journal.writing("w", {"keys": good[:done], "verdicts": [], "books": {}, "checkpoint": None, "back": [], **spend})
    journal.confirmed("w")
    journal.close(keep=True)
    past = Journal(path).resume()
    assert sorted(past.paid) == sorted(good[done:])
    assert len(past.judged) == kinds.count("bad")
    assert past.possibly_usd == pytest.approx(0.01 * kinds.count("open"))
    assert past.spent_usd == pytest.approx(0.002 * (kinds.count("ok") + kinds.count("bad")))


async def test_a_long_run_keeps_only_what_is_owed_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compacted while it works: the same debt, the same sums, a fraction of the size."""
    monkeypatch.setattr("jobs.engine.journal._LARGE", 40_000)
    journal = Journal(tmp_path / "j")
    journal.create(HEADER)
    peak = 0
    for number in range(3_000):
        attempt = journal.attempted([(f"k{number}",)], 0.01)
        if number % 500 == 3:
            continue
        journal.answered(attempt, 0.002, [paid(f"k{number}")])
        if number % 10 != 7:
            facts = {"usd": 0.002, "possibly_usd": 0.0, "calls": 1, "tokens": [0, 0]}
            journal.writing(
                f"w{number}",
                {"keys": [(f"k{number}",)], "verdicts": [], "books": {}, "checkpoint": None, "back": [], **facts},
            )
            if number != 2_999:
                journal.confirmed(f"w{number}")
                await journal.shorten()
        peak = max(peak, (tmp_path / "j").stat().st_size)
    journal.close(keep=True)
    past, _, attempts = read(tmp_path / "j")
    assert attempts == past.calls == 3_000
    assert len(past.paid) == 300 + 1
    assert list(past.intents) == ["w2999"]
    assert past.spent_usd == pytest.approx(0.002 * 2_994)
    assert len(past.unanswered) == 6
    assert peak < 1_200_000


@pytest.mark.parametrize("resumed", [False, True], ids=["of this process", "of an earlier one"])
async def test_what_is_owed_is_moved_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    """Compaction copies answers: vectors, odd texts and verdicts are afterwards what they were before."""
    monkeypatch.setattr("jobs.engine.journal._LARGE", 1_000)
    journal = Journal(tmp_path / "j")
    journal.create(HEADER)
    vector = VectorRecord("v", bytes(range(256)) * 8, {"title": "caf\u00e9 \u2028 \ud800", "views": 2**70})
    texts = ["plain", "\ud83d lone", 'quoted "rows":[ and \n']
    owed = [replace(paid(f"k{n}", text), vectors=(vector,), drop=("old",)) for n, text in enumerate(texts)]
    journal.answered(journal.attempted([("k0",)], 0.01), 0.002, owed, [RowVerdict(("bad",), "g", "failed", "why", "")])
    if resumed:
        journal.close(keep=True)
        journal = Journal(tmp_path / "j")
        journal.resume()
    facts = {"verdicts": [], "books": {}, "checkpoint": None, "back": [], "usd": 0.0, "possibly_usd": 0.0, "calls": 1}
    for number in range(20):
        key = f"done{number}"
        journal.answered(journal.attempted([(key,)], 0.01), 0.002, [paid(key, "x" * 500)])
        journal.writing(key, {"keys": [(key,)], "tokens": [0, 0], **facts})
        journal.confirmed(key)
        await journal.shorten()
    journal.close(keep=True)
    past, _, attempts = read(tmp_path / "j")
    assert list(past.paid.values()) == owed
    assert list(past.judged) == [("bad",)]
    assert (attempts, past.calls, past.spent_usd) == (21, 21, pytest.approx(21 * 0.002))


@pytest.mark.parametrize("cancelled", [False, True], ids=["through", "given up"])
async def test_what_comes_while_the_journal_is_made_short_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    """Answers are paid for meanwhile, rows moved are refused, and a run that ends then leaves no second file."""
    monkeypatch.setattr("jobs.engine.journal._LARGE", 1_000)
    monkeypatch.setattr("jobs.engine.moving.AT_ONCE", 2_000)
    journal = written(tmp_path / "j", rows=100)
    shortening = asyncio.create_task(journal.shorten())
    await asyncio.sleep(0)
    number = 0
    while not shortening.done():
        journal.answered(journal.attempted([(f"late{number}",)], 0.01), 0.002, [paid(f"late{number}")])
        number += 1
        if number == 2:
            journal.answered(0, 0.0, [], [RowVerdict(("k60",), "g", "failed", "same text", "")])
            journal.answered(0, 0.0, [paid("k61", "another text")])
        if cancelled:
            shortening.cancel()
        await asyncio.sleep(0)
    assert number > 2
    assert shortening.cancelled() is cancelled
    for _ in range(2):  # the second time from where the first has moved them
        past, _, _ = read(tmp_path / "j")
        late = {(f"late{n}",) for n in range(number)}
        assert set(past.paid) == {(f"k{n}",) for n in range(50, 100) if n != 60} | late
        assert past.paid[("k61",)].cells == {"llm_summary": "another text"}
        assert list(past.judged) == [("k60",)]
        assert past.spent_usd == pytest.approx(0.002 * (100 + number))
        journal._compact_at = 0
        await journal.shorten()
    journal.close(keep=True)
    assert sorted(os.listdir(tmp_path)) == ["j", "j.mark"]


@pytest.mark.parametrize("resumed", [False, True], ids=["of this process", "of an earlier one"])
async def test_a_journal_that_cannot_be_made_short_stays_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    """A second file may not fit on the disk: that is no reason to end a run that has room for its answers."""
    monkeypatch.setattr("jobs.engine.journal._LARGE", 1_000)
    journal = written(tmp_path / "j", rows=100)
    if resumed:
        journal.close(keep=True)
        journal = Journal(tmp_path / "j")
        journal.resume()
    before = set(read(tmp_path / "j")[0].paid)

    def full(reached: str) -> None:
        if reached == "state.tmp_written":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fault_points, "reach", full)
    journal._compact_at = 0
    await journal.shorten()
    journal.answered(journal.attempted([("late",)], 0.01), 0.002, [paid("late")])
    journal.close(keep=True)
    assert set(read(tmp_path / "j")[0].paid) == before | {("late",)}
