"""Token counts are exact offline, never too low otherwise, and never reach for a network."""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queries import tokens
from queries.tokens import TokenCounter, seed


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiktoken")


@pytest.fixture(scope="module")
def exact(cache_dir: Path) -> TokenCounter:
    return TokenCounter("gpt-4o-mini", cache_dir)


@pytest.fixture(scope="module")
def bound(cache_dir: Path) -> TokenCounter:
    return TokenCounter("some-local-model", cache_dir)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection to the outside is a failure of this module's promise."""

    def refuse(*_: object) -> None:
        raise AssertionError("a token count reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("hello world", 2), ("hello world, éà 日本語", 7), ("<|endoftext|>", 7), ("a" * 8, 1)],
    ids=["empty", "two", "accents", "special-as-text", "run"],
)
def test_known_counts(exact: TokenCounter, text: str, count: int) -> None:
    """The counts of tiktoken's own o200k_base; a special token in a transcript is plain text."""
    assert exact.exact
    assert exact.note == ""
    assert exact.count(text) == count


@pytest.mark.parametrize(
    "model", ["gpt-4o-mini-2024-07-18", "gpt-4.1-nano", "gpt-5-mini", "text-embedding-3-small", "o3"]
)
def test_priced_models_are_counted_exactly(model: str, cache_dir: Path) -> None:
    """Snapshots and families find their tokenizer by name."""
    assert TokenCounter(model, cache_dir).exact


def test_an_unknown_model_is_counted_in_bytes_and_says_so(bound: TokenCounter) -> None:
    """The note stands where a screen can show it."""
    assert not bound.exact
    assert "UTF-8 bytes" in bound.note
    assert bound.count("日本語") == 9


@given(text=st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_the_bound_is_never_too_low(exact: TokenCounter, bound: TokenCounter, text: str) -> None:
    """Byte-level BPE makes at most one token of a byte."""
    assert exact.count(text) <= bound.count(text)


def test_a_missing_wheel_means_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without data nothing is downloaded: the count is the bound and the note says why."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    counter = TokenCounter("gpt-4o-mini", tmp_path)
    assert not counter.exact
    assert "not installed" in counter.note


def test_an_unwritable_cache_means_the_bound(tmp_path: Path) -> None:
    """A cache that is a file, not a directory, ends no run."""
    place = tmp_path / "file"
    place.write_text("")
    assert not TokenCounter("gpt-4o-mini", place).exact


@pytest.mark.parametrize("damage", [b"", b"garbage", None], ids=["empty", "garbage", "torn"])
def test_a_damaged_cache_file_is_replaced_not_downloaded(tmp_path: Path, damage: bytes | None) -> None:
    """tiktoken would delete the file and fetch it from the network; ours is verified first."""
    place = seed("o200k_base", tmp_path)
    whole = place.read_bytes()
    place.write_bytes(whole[:-100] if damage is None else damage)
    assert seed("o200k_base", tmp_path).read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == [place.name]


def test_the_environment_is_left_as_it_was(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TIKTOKEN_CACHE_DIR is the user's, before and after."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "theirs")
    TokenCounter("gpt-4o", cache_dir)
    assert os.environ["TIKTOKEN_CACHE_DIR"] == "theirs"


@pytest.mark.parametrize(
    "text", ["a" * 200_000, " " * 200_000, "^" * 200_000, "\n" * 200_000, "日" * 70_000, "a" + "\u0301" * 100_000],
    ids=["letters", "spaces", "signs", "newlines", "cjk", "accents"],
)  # fmt: skip
def test_pathological_runs_are_not_quadratic(exact: TokenCounter, text: str) -> None:
    """200 kB of one character took 0.07 s at most when measured; ten times that is still no hang."""
    began = time.process_time()
    exact.count(text)
    assert time.process_time() - began < 1.0


def test_a_lone_surrogate_is_counted(exact: TokenCounter, bound: TokenCounter) -> None:
    """Broken text must reach the item's verdict, not crash the counter."""
    assert exact.count("ab\ud800cd") > 0
    assert bound.count("ab\ud800cd") > 0


def test_a_chat_costs_its_texts_and_eleven_more(exact: TokenCounter, bound: TokenCounter) -> None:
    """Three around each of two messages, their roles, and three to open the answer."""
    assert exact.count_chat("hello world", "hello world") == 4 + 11
    assert bound.count_chat("", "") > 11


STORY = "One. Two is longer! Is three? " * 50


@pytest.mark.parametrize("at_most", [1, 2, 7, 50, 100, 399])
def test_a_cut_ends_with_a_sentence(exact: TokenCounter, at_most: int) -> None:
    """Whole sentences as long as at least half of the room is used."""
    kept = exact.cut(STORY, at_most)
    assert STORY.startswith(kept)
    assert exact.count(kept) <= at_most
    assert kept[-1] in ".!?" or at_most < 7


@pytest.mark.parametrize(("at_most", "kept"), [(0, ""), (-5, ""), (10_000, STORY)])
def test_a_cut_at_the_edges(exact: TokenCounter, bound: TokenCounter, at_most: int, kept: str) -> None:
    """No room, no text; room enough, the very same text."""
    assert exact.cut(STORY, at_most) == kept
    assert bound.cut(STORY, at_most) == kept


@given(text=st.text(max_size=400), at_most=st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_a_cut_is_a_beginning_within_its_room(
    exact: TokenCounter, bound: TokenCounter, text: str, at_most: int
) -> None:
    """For any text, surrogates excepted, with either way of counting."""
    for counter in (exact, bound):
        kept = counter.cut(text, at_most)
        assert text.startswith(kept)
        assert counter.count(kept) <= at_most


def test_a_long_text_without_sentences_is_cut_at_a_space(exact: TokenCounter) -> None:
    """Transcripts often carry no punctuation at all."""
    kept = exact.cut("word " * 1000, 100)
    assert kept.endswith("word")
    assert 90 <= exact.count(kept) <= 100


def test_tiktoken_still_expects_the_files_we_seed() -> None:
    """When tiktoken moves a file or its hash, seeding would silently turn into downloading."""
    found = importlib.util.find_spec("tiktoken_ext.openai_public")
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).read_text()
    for name, digest in tokens._SHA256.items():
        assert f"{tokens._HOST}{name}.tiktoken" in source
        assert digest in source
