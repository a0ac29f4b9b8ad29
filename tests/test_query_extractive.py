"""The local provider: sentences are copied, chosen with some sense, and never invented."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queries.chat import ChatRequest
from queries.extractive import LONGEST, LocalChat, summarise
from queries.sentences import split_sentences

TALKS = Path(__file__).parents[2] / "shared" / "data" / "talks.jsonl"

TALK = """Title: Packaging without tears
Channel: pycon

Hey everybody, welcome back to my channel! Don't forget to SUBSCRIBE and hit the bell.
This video is sponsored by SomeCorp: use code SAVE10 for 10% off at https://somecorp.example/save10.

Python packaging changed from setup.py scripts to declarative metadata in
pyproject.toml. We build a wheel, publish it to a private index and pin every
hash, so that an installation can be repeated on another machine. Wheels are archives, e.g. of compiled code.

0:00 Intro
4:11 Building a wheel
#python #packaging #wheels
Follow us on Twitter: https://twitter.example/pycon
Jane Doe is a senior software engineer at SomeCorp.
"""


def ask_about(description: str, title: str = "A title about nothing") -> str:
    return summarise(f"Title: {title}\nChannel: a channel\n\n{description}")


def test_it_quotes_what_the_text_is_about_and_none_of_what_surrounds_it() -> None:
    """Greetings, sponsors, chapter marks, hashtags, links and biographies are left out."""
    assert summarise(TALK) == (
        "Python packaging changed from setup.py scripts to declarative metadata in pyproject.toml. "
        "We build a wheel, publish it to a private index and pin every hash, so that an installation can be repeated "
        "on another machine."
    )


async def test_the_answer_bears_the_name_of_what_made_it_and_costs_nothing() -> None:
    """Provenance says extractive-v1 whatever model was asked for; no token is booked."""
    chat = LocalChat()
    answer = await chat.ask(ChatRequest("gpt-4o-mini", "Summarise.", TALK, 160))
    await chat.close()
    assert (answer.model, chat.name, chat.is_local) == ("extractive-v1", "extractive-v1", True)
    assert (answer.finish_reason, answer.refusal, answer.tokens_in, answer.tokens_out) == ("stop", None, 0, 0)


@pytest.mark.parametrize(
    "description",
    [
        pytest.param("", id="empty"),
        pytest.param("https://example.org/a https://example.org/b", id="links only"),
        pytest.param("Thanks for watching! Please subscribe to our newsletter.", id="promotion only"),
        pytest.param("#one #two #three #four #five #six", id="hashtags only"),
        pytest.param("QUJD" * 400, id="base64"),
        pytest.param("0:00 Intro\n1:30 First part\n12:45 Second part\n", id="chapters only"),
        pytest.param("Too short.", id="a fragment"),
    ],
)
async def test_where_nothing_is_worth_quoting_it_says_nothing(description: str) -> None:
    """No text at all, so that the job names the row instead of storing noise."""
    chat = LocalChat()
    answer = await chat.ask(ChatRequest("extractive-v1", "", f"Title: x\nChannel: y\n\n{description}", 160))
    await chat.close()
    assert answer.text is None


def test_the_title_decides_between_sentences_of_equal_weight() -> None:
    """Of two themes the one named in the title wins."""
    text = (
        "Tomatoes in pots want a deep one. Basil in pots wants a flat one. Chives in pots want any one at all, or none."
    )
    long = (
        text
        + " "
        + "Whoever waters at noon will see brown leaves in the evening, since drops of water focus light. " * 2
    )
    assert "Basil" in ask_about(long, "Growing basil")
    assert "Chives" in ask_about(long, "Growing chives")


def test_the_titles_own_words_are_not_a_summary() -> None:
    """A first line that only repeats the title is passed over."""
    text = "Deep learning with small data sets.\n\nTransfer of weights from a larger network makes training feasible."
    assert ask_about(text, "Deep learning with small data sets") == (
        "Transfer of weights from a larger network makes training feasible."
    )


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        pytest.param("It works, e.g. in Python 3.11. Really well done.", 2, id="abbreviations and versions"),
        pytest.param("He met Dr. Smith in the U.S. yesterday. They spoke.", 2, id="titles and initials"),
        pytest.param("これは試験です。文は二つあります。", 2, id="no spaces"),
        pytest.param("One wrapped\nline ends here. Another", 2, id="wrapped lines"),
        pytest.param("- first point of three\n- second point\n- third", 3, id="bullets"),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, pieces: int) -> None:
    """Full stops inside abbreviations, versions and initials end nothing."""
    assert len(split_sentences(text)) == pieces


@given(st.text(max_size=600), st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_at_all_gets_an_answer_that_is_short_and_repeatable(description: str, title: str) -> None:
    """Whatever was put into the column: no exception, at most 360 characters, the same twice."""
    answer = ask_about(description, title)
    assert len(answer) <= LONGEST
    assert answer == ask_about(description, title)


@given(st.lists(st.sampled_from(TALK.split()), min_size=8, max_size=80))
@settings(max_examples=100, deadline=None)
def test_every_word_of_the_answer_stands_in_the_text(words: list[str]) -> None:
    """It copies; it has nothing else to say."""
    description = " ".join(words)
    assert all(word.rstrip("…") in description for word in ask_about(description).split())


HOSTILE = {
    "one letter": "a" * 200_000, "brackets": "[" * 200_000, "asterisks": "*" * 200_000, "full stops": ". " * 100_000,
    "half a mail address": "a@" * 100_000, "half a tag": "<a" * 100_000, "lines": "a\n" * 100_000,
    "schemes": "http://" * 30_000, "abbreviations": "e.g. " * 40_000, "roles": ":a:`" * 50_000,
    "initials": "A." * 100_000,
    "rulers": "#" * 200_000, "entities": "&amp;" * 40_000, "commas": "word, " * 40_000,
    "sentences": "".join(f"Number {n} sat on mat {n} with a hat. " for n in range(6_000)),
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_text_costs_no_more_than_a_long_one(text: str) -> None:
    """200 kB built to make patterns backtrack take well under a second of processor time."""
    before = time.process_time()
    ask_about(text)
    assert time.process_time() - before < 0.5


async def test_the_loop_stays_alive_while_many_texts_are_read() -> None:
    """Work happens in a thread: between two heartbeats the loop's own has next to none, by its own clock."""
    chat, busy = LocalChat(), 0.0
    asks = [asyncio.ensure_future(chat.ask(ChatRequest("m", "", TALK * 5, 160))) for _ in range(100)]
    while not all(ask.done() for ask in asks):
        before = time.thread_time()
        await asyncio.sleep(0.005)
        busy = max(busy, time.thread_time() - before)
    await chat.close()
    assert busy < 0.05


@pytest.mark.skipif(not TALKS.exists(), reason=f"needs {TALKS.name} beside the project, which is not part of it")
def test_four_hundred_real_descriptions_take_a_second_and_nine_of_ten_get_sentences_of_their_own() -> None:
    """On records of real talks: 400 a CPU second, quotes for nine of ten, and hardly two rows with the same."""
    rows = [json.loads(line) for line in TALKS.read_text().splitlines()]
    rows = random.Random(7).sample([row for row in rows if len(row.get("description") or "") > 120], 800)
    before = time.process_time()
    texts = [ask_about(row["description"], row["title"]) for row in rows]
    spent_s = time.process_time() - before
    found = [text for text in texts if text]
    assert len(rows) / spent_s > 400
    assert len(found) > 0.9 * len(rows)
    assert len(set(found)) > 0.97 * len(found)
