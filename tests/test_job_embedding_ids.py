"""Ids of vectors: one row and chunk has one id, no other has it, and the row is read out of it again."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.embedding import Embedding
from queries.table import Key

TEMPLATES = ("{key}", "{key}#{n}", "p-{key}", "p-{key}-x-{n}5")
# Small alphabets, so that what could be taken for one another often meets.
PARTS = st.text("a1é:%#{n}-", max_size=6) | st.text(st.characters(codec="utf-8"), max_size=8)
QUOTED = PARTS.map(quote) | PARTS.map(quote).map(quote)
ONE = st.tuples(PARTS | QUOTED)
TWO = st.tuples(PARTS | QUOTED, PARTS | QUOTED)
KEYS = st.tuples(ONE, ONE) | st.tuples(TWO, TWO)
NUMBERS = st.integers(0, 120)


def embedding_of(template: str) -> Embedding:
    return Embedding(into="pinecone", dimensions=3, index="i", vector_id=template)


@pytest.mark.parametrize("template", TEMPLATES)
@given(keys=KEYS, numbers=st.tuples(NUMBERS, NUMBERS))
@example(keys=(("a:b", "c"), ("a", "b:c")), numbers=(0, 0))
@example(keys=(("é",), ("%C3%A9",)), numbers=(0, 0))
@example(keys=(("%C3%A9",), ("%25C3%25A9",)), numbers=(0, 0))
@example(keys=(("a{n}",), ("a0",)), numbers=(0, 0))
@example(keys=(("a",), ("a#1",)), numbers=(11, 1))
def test_no_two_chunks_have_one_id_and_the_key_is_read_out_of_it(
    template: str, keys: tuple[Key, Key], numbers: tuple[int, int]
) -> None:
    """Injective over keys and chunk numbers, in ASCII wherever the keys are not plain, and `key_of` inverts it."""
    embedding = embedding_of(template)
    numbers = numbers if "{n}" in template else (0, 0)
    chunks = list(zip(keys, numbers, strict=True))
    ids = [embedding.id_of(key, number) for key, number in chunks]
    assert (ids[0] == ids[1]) == (chunks[0] == chunks[1])
    assert all(id_.isascii() for id_ in ids)
    assert [embedding.key_of(id_, len(keys[0])) for id_ in ids] == list(keys)


@pytest.mark.parametrize(
    ("key", "id_"),
    [
        (("v000001",), "v000001"),
        (("a:b",), "a:b"),
        (("100%",), "100%"),
        (("https://e.org/a%20b?c=%2F",), "https://e.org/a%20b?c=%2F"),
        (("7", "en"), "7:en"),
        (("é",), "%C3%A9"),
        (("é:50%",), "%C3%A9:50%25"),
        (("a:b", "100%"), "a%3Ab:100%25"),
    ],
    ids=["plain", "colon", "percent", "url", "two", "accent", "accent-percent", "two-escaped"],
)
def test_an_id_that_is_stored_today_stays(key: Key, id_: str) -> None:
    """Plain keys of one column stand in it as they are: another id would be a second vector."""
    assert embedding_of("{key}").id_of(key, 0) == id_


@pytest.mark.parametrize(
    ("template", "id_", "columns"),
    [
        ("p-{key}", "q-1", 1),
        ("{key}#{n}", "v1", 1),
        ("{key}#{n}", "v1#01", 1),
        ("{key}", "a:b:c", 2),
        ("{key}", "alone", 2),
        ("{key}", "%FF", 1),
        ("{key}", "é", 1),
    ],
    ids=["before", "no-number", "leading-zero", "three-parts", "one-part", "no-text", "not-quoted"],
)
def test_an_id_that_we_would_not_write_has_no_key(template: str, id_: str, columns: int) -> None:
    """What `id_of` never makes is of another scheme."""
    assert embedding_of(template).key_of(id_, columns) is None
