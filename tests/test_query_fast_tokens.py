"""The quick count is tiktoken's count, character by character, or it is not used."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.fast_tokens import FastCount
from queries.tokens import TokenCounter

pytest.importorskip("quicktok")
MODELS = {"o200k": "gpt-4o-mini", "cl100k": "text-embedding-3-small"}
STRIDE = 101


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def counter(request: pytest.FixtureRequest, vocabularies: Path) -> TokenCounter:
    made = TokenCounter(request.param, vocabularies)
    made.hurry()
    return made


def truth(counter: TokenCounter, text: str) -> int:
    assert counter._encoding is not None
    return len(counter._encoding.encode_ordinary(text))


def surround(character: str) -> str:
    c = character
    return f"a{c}b A{c}B {c}a {c}A {c}{c} 1{c}2 .{c}. \n{c} {c}\n\n{c}'s a{c}'s A'{c}  {c}a.{c}a\t{c}x{c}\n a{c}Bc{c}D"


def test_every_kind_of_character_counts_the_same(counter: TokenCounter) -> None:
    """One in a hundred of all characters, in a dozen surroundings each."""
    for code in [*range(0, 0xD800, STRIDE), *range(0xE000, 0x110000, STRIDE)]:
        text = surround(chr(code))
        assert counter.count(text) == truth(counter, text), hex(code)
    assert counter._fast is not None
    assert counter._fast.is_trusted


@pytest.mark.parametrize(
    "code", [0x88F, 0xC5C, 0xCDC, 0xA7CE, 0x10940, 0x16EA0, 0x187F8, 0x18D09, 0x2B73A, 0x323B0, 0x1E6C0]
)
def test_what_only_the_newest_unicode_has_is_left_to_tiktoken(counter: TokenCounter, code: int) -> None:
    """The two disagree on these, so the quick one is not asked."""
    assert counter._fast is not None
    assert counter._fast.count(surround(chr(code))) is None
    assert counter.count(surround(chr(code))) == truth(counter, surround(chr(code)))


@given(st.text(max_size=300))
def test_any_text_counts_the_same(vocabularies: Path, text: str) -> None:
    """Junk of all planes, half characters included."""
    counter = _cached(vocabularies)
    assert counter.count(text) == truth(counter, text)


def test_one_that_disagrees_is_never_asked_again(counter: TokenCounter) -> None:
    """A later version that counts otherwise is found by looking twice now and then, and the true count is given."""
    assert counter._encoding is not None
    lied = 0

    def lie(text: str) -> int:
        nonlocal lied
        lied += 1
        return truth(counter, text) + (lied > 700)

    fast = FastCount(counter._encoding, lie, len)
    texts = [f"text number {n} of many" for n in range(2_000)]
    found = [fast.count(text) for text in texts]
    assert found[998:] == [truth(counter, texts[998]) + 1, truth(counter, texts[999]), *[None] * 1_000]
    assert not fast.is_trusted


def test_one_that_is_wrong_from_the_start_is_not_used(counter: TokenCounter) -> None:
    """It is tried on a text with a bit of everything first."""
    assert counter._encoding is not None
    fast = FastCount(counter._encoding, len, lambda texts: [len(text) for text in texts])
    assert fast.count("hello") is None
    assert fast.count_many(["hello", "there"]) == [None, None]


@pytest.mark.parametrize("at_once", [1, 7, 499, 500, 501, 2_000])
def test_one_that_disagrees_about_many_at_once_is_found_as_well(counter: TokenCounter, at_once: int) -> None:
    """However they are bundled, one in five hundred is looked at twice; a bundle with a wrong count is not used."""
    assert counter._encoding is not None
    asked = 0

    def lie_after_700(texts: list[str]) -> list[int]:
        nonlocal asked
        before, asked = asked, asked + len(texts)
        return [truth(counter, text) + (before + n > 700) for n, text in enumerate(texts, start=1)]

    fast = FastCount(counter._encoding, len, lie_after_700)
    fast.is_trusted = True
    texts = [f"text number {n} of many" for n in range(2_000)]
    found = [count for n in range(0, 2_000, at_once) for count in fast.count_many(texts[n : n + at_once])]
    assert not fast.is_trusted
    assert found[1_000:] == [None] * 1_000
    wrong = sum(1 for text, count in zip(texts, found, strict=True) if count not in (None, truth(counter, text)))
    assert wrong < 300


def test_one_that_fails_is_not_asked_again(counter: TokenCounter) -> None:
    """A bundle of texts does not fail for one of them; nor does the next one."""
    assert counter._encoding is not None

    def fail(texts: list[str]) -> list[int]:
        raise RuntimeError

    fast = FastCount(counter._encoding, lambda text: truth(counter, text), fail)
    assert fast.is_trusted
    assert fast.count_many(["hello", "there"]) == [None, None]
    assert fast.count("hello") is None


@given(st.lists(st.text(max_size=60), max_size=30))
def test_many_at_once_count_as_each_by_itself(vocabularies: Path, texts: list[str]) -> None:
    """Junk of all planes, half characters, new ones and empty texts among them."""
    counter = _cached(vocabularies)
    assert counter.count_many(texts) == [truth(counter, text) for text in texts]
    assert all(n <= counter.at_most(text) for n, text in zip(counter.count_many(texts), texts, strict=True))


_COUNTERS: dict[Path, TokenCounter] = {}


def _cached(vocabularies: Path) -> TokenCounter:
    if vocabularies not in _COUNTERS:
        _COUNTERS[vocabularies] = TokenCounter("gpt-4o-mini", vocabularies)
        _COUNTERS[vocabularies].hurry()
    return _COUNTERS[vocabularies]
