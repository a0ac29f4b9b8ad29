"""Chunks hold every word, stay within the limit, and are the same every time: of texts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.chunking import LIMIT, Chunk, Chunking, Kind, chunk_text
from queries.errors import Misconfigured
from queries.tokens import TokenCounter

KINDS: tuple[Kind, ...] = ("whole", "segments", "paragraphs", "sentences", "fixed")
SMALL = {"tokens_most": 40, "tokens_least": 6}

# Latin, accents apart from their letters, Chinese, Thai, Devanagari, an emoji family; ends of sentences, lines, spaces
PIECES = ["a", "word", "longer-than-others", "e\u0301", "文本", "ภาษา", "नमस्ते", "👨\u200d👩\u200d👧", "x" * 90, "1.5"]
GLUE = [" ", " ", " ", ". ", "! ", "。", ", ", "\n", "\n\n", " \n \n", "", "\t", "…\u00a0"]
texts = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(GLUE)), max_size=120).map(
    lambda pairs: "".join(piece + glue for piece, glue in pairs)
) | st.text(max_size=400)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], int]:
    """Counts as text-embedding-3 does."""
    counter = TokenCounter("text-embedding-3-small", tmp_path_factory.mktemp("tiktoken"))
    assert counter.exact
    return counter.count


def squeeze(text: str) -> str:
    return "".join(text.split())


def in_bytes(text: str) -> int:
    return len(text.encode())


def assert_covered(chunks: Sequence[Chunk], text: str) -> None:
    """Every chunk begins inside or right after what is covered already, and reaches further."""
    whole, covered = squeeze(text), {0}
    for chunk in chunks:
        words = squeeze(chunk.text)
        # repeated words fit in several places: all of them are followed
        covered = {
            at + len(words)
            for end in covered
            for at in range(max(0, end - len(words) + 1), end + 1)
            if whole.startswith(words, at)
        }
        assert covered, f"{chunk.text!r} does not continue what is before it"
    assert len(whole) in covered


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
@example(text="\u3000\x1c\x85")
@settings(max_examples=120, deadline=None)
def test_no_word_is_lost_and_no_limit_passed(exact: Callable[[str], int], kind: Kind, text: str) -> None:
    """Whatever is written, in the model's own tokens; the count a chunk says is its count; twice the same."""
    chunking = Chunking(kind, **SMALL)
    chunks = chunk_text(text, chunking, exact)
    assert [exact(chunk.text) for chunk in chunks] == [chunk.tokens for chunk in chunks]
    assert all(0 < chunk.tokens <= 40 and chunk.text == chunk.text.strip() for chunk in chunks)
    assert chunks == chunk_text(text, chunking, exact)
    assert_covered(chunks, text)


@pytest.mark.parametrize("overlap", [0.0, 0.12, 0.5])
@given(text=texts, most=st.integers(8, 80))
@settings(max_examples=80, deadline=None)
def test_small_limits_hold_in_bytes(overlap: float, most: int, text: str) -> None:
    """Also where an unknown model's tokens are counted in bytes, at any size and overlap."""
    chunks = chunk_text(text, Chunking("fixed", most, 2, overlap), in_bytes)
    assert all(chunk.tokens <= most for chunk in chunks)
    assert_covered(chunks, text)


@given(text=texts)
@settings(max_examples=150, deadline=None)
def test_without_overlap_the_chunks_are_the_text(text: str) -> None:
    """Nothing is said twice unless it was asked for."""
    chunks = chunk_text(text, Chunking("paragraphs", **SMALL), in_bytes)
    assert squeeze("".join(chunk.text for chunk in chunks)) == squeeze(text)


@pytest.mark.parametrize("text", ["", " ", "\n\t \n", "\u3000"], ids=["empty", "space", "lines", "wide-space"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_blank_text_gives_nothing(kind: Kind, text: str) -> None:
    """No provider takes an empty input."""
    assert chunk_text(text, Chunking(kind), in_bytes) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_short_text_is_one_chunk(exact: Callable[[str], int], kind: Kind) -> None:
    """Below the least there is a chunk all the same: short clips once had none and were never found."""
    assert chunk_text(" Hi there. \n", Chunking(kind), exact) == [Chunk("Hi there.", 3)]


@pytest.mark.parametrize("kind", ["paragraphs", "sentences", "fixed"])
@given(words=st.integers(30, 200))
@settings(max_examples=60, deadline=None)
def test_no_last_chunk_says_too_little(kind: Kind, words: int) -> None:
    """What is left at the end joins the chunk before or takes from it; the limit holds for both."""
    text = " ".join(f"w{n:03}" for n in range(words))
    chunks = chunk_text(text, Chunking(kind, 40, 12, 0.0), lambda text: len(text.split()))
    assert all(12 <= chunk.tokens <= 40 for chunk in chunks)


def test_paragraphs_end_where_the_text_does(exact: Callable[[str], int]) -> None:
    """400 to 600 tokens, closed at a paragraph's end where there is one in that range."""
    paragraph = " ".join(f"Sentence number {n} says something about a subject of its own." for n in range(16))
    text = "\n\n".join([paragraph] * 12)
    chunks = chunk_text(text, Chunking("paragraphs"), exact)
    assert len(chunks) == 6
    assert all(400 <= chunk.tokens <= 600 for chunk in chunks)
    assert {chunk.text for chunk in chunks} == {"\n\n".join([paragraph] * 2)}


def test_sentences_stay_whole(exact: Callable[[str], int]) -> None:
    """Up to 256 tokens of sentences; a point inside a number or before a small letter ends none."""
    sentence = "Version 3.11 of e.g. this program is faster than the one before it, and nobody knows quite why."
    chunks = chunk_text(" ".join([sentence] * 60), Chunking("sentences"), exact)
    assert all(chunk.text.startswith("Version") and chunk.text.endswith("why.") for chunk in chunks)
    assert all(200 <= chunk.tokens <= 256 for chunk in chunks[:-1])


def test_fixed_size_overlaps_by_its_share(exact: Callable[[str], int]) -> None:
    """About 12 % of each chunk stands in the next one again, in whole words."""
    words = [f"word{n}" for n in range(2_000)]
    chunks = chunk_text(" ".join(words), Chunking("fixed"), exact)
    for before, after in pairwise(chunks):
        again = [word for word in before.text.split() if word in set(after.text.split())]
        assert before.text.endswith(" ".join(again))
        assert 0.05 <= len(again) / len(before.text.split()) <= 0.2
    assert {word for chunk in chunks for word in chunk.text.split()} == set(words)


def test_whole_is_whole_until_the_model_refuses(exact: Callable[[str], int]) -> None:
    """8,191 tokens are one chunk; one more is cut in parts and never shortened in silence."""
    fits = " a" * LIMIT
    assert exact(fits.strip()) == LIMIT
    assert [chunk.tokens for chunk in chunk_text(fits, Chunking(), exact)] == [LIMIT]
    chunks = chunk_text(fits + " b", Chunking(), exact)
    assert len(chunks) == 2
    assert squeeze("".join(chunk.text for chunk in chunks)) == squeeze(fits + " b")


def test_no_cut_falls_between_a_letter_and_its_mark() -> None:
    """Accents, vowel signs and joined emoji stay with what they belong to."""
    text = "e\u0301" * 200 + "👨\u200d👩\u200d👧" * 60
    for chunk in chunk_text(text, Chunking("fixed", 60, 4, 0.0), in_bytes):
        assert chunk.text[0] in "e👨👩👧"
        assert chunk.text[-1] not in "e\u200d"


HOSTILE = {
    "prose": "He spoke of many things, and then of one. It was late!\n\n" * 3_500,
    "no-points": "so and then you take the thing and put it there " * 4_100,
    "chinese": "向量数据库把文本变成数字，然后比较距离。今天我们学习切分" * 7_100,
    "one-word": "a" * 200_000,
    "dots": "." * 200_000,
    "spaces": "a" + " " * 200_000 + "b",
    "lines": "a" + "\n \n" * 66_000 + "b",
    "marks": "e" + "\u0301" * 200_000,
    "quotes": ".\"')" * 50_000,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_200_kb_in_linear_time(text: str, kind: Kind) -> None:
    """Twice the text means about twice the characters counted: at most 7 times each, in a second or so."""
    spent = 0

    def count(piece: str) -> int:
        nonlocal spent
        spent += len(piece)
        return in_bytes(piece) // 4 + 1

    begun = time.perf_counter()
    chunks = chunk_text(text, Chunking(kind), count)
    assert time.perf_counter() - begun < 5  # 0.1 s on a quiet core; quadratic would be minutes
    assert spent <= 7 * len(text)
    most = Chunking("paragraphs" if kind == "segments" else kind).most
    assert all(count(chunk.text) <= most for chunk in chunks)


def test_the_mark_names_every_setting() -> None:
    """Stable words for the content hash: another setting is another mark, a default spelled out is the same."""
    marks = {
        Chunking().mark: "whole:8191",
        Chunking("segments").mark: "segments/1:30-60s:16-512:12%",
        Chunking("segments", None, 16, 0.15, 20, 45).mark: "segments/1:20-45s:16-512:15%",
        Chunking("paragraphs").mark: "paragraphs/1:16-600:0%",
        Chunking("paragraphs", 600).mark: "paragraphs/1:16-600:0%",
        Chunking("sentences", overlap_share=0.125).mark: "sentences/1:16-256:12.5%",
        Chunking("fixed", tokens_least=20).mark: "fixed/1:20-256:12%",
    }
    assert all(mark == expected for mark, expected in marks.items())
    assert Chunking("paragraphs").within(256) == Chunking("paragraphs", 256)
    assert Chunking("fixed").within(8_191) == Chunking("fixed")


def test_chunks_do_not_change_by_themselves(exact: Callable[[str], int]) -> None:
    """Other chunks under the same mark would leave stale vectors: whoever changes this raises the version."""
    text = "One. Two, three!\n\nFour 五。" * 150
    found = {}
    for kind in KINDS:
        chunks = chunk_text(text, Chunking(kind, 200), exact)
        digest = hashlib.sha256("|".join(chunk.text for chunk in chunks).encode()).hexdigest()
        found[kind] = (len(chunks), digest[:12])
    assert found == {
        "whole": (8, "c4fa7f5f1a17"),
        "segments": (9, "bf6a81217f93"),
        "paragraphs": (9, "bf6a81217f93"),
        "sentences": (9, "37c15d9596ab"),
        "fixed": (9, "5069d0f2dce0"),
    }


@pytest.mark.parametrize(
    ("settings_", "word"),
    [
        ({"kind": "scenes"}, "no kind"),
        ({"tokens_most": 9_000}, "tokens_most"),
        ({"tokens_most": 4}, "tokens_most"),
        ({"kind": "fixed", "tokens_most": 20}, "tokens_least"),
        ({"tokens_least": 0}, "tokens_least"),
        ({"overlap_share": 0.9}, "overlap_share"),
        ({"overlap_share": float("nan")}, "overlap_share"),
        ({"seconds_least": 90}, "seconds_least"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_settings_that_cannot_hold_are_refused(settings_: dict[str, object], word: str) -> None:
    """Before a run starts, by the name as it stands in the configuration."""
    with pytest.raises(Misconfigured, match=word):
        Chunking(**settings_)  # type: ignore[arg-type]
