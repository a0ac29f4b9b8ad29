"""Bodies of upserts: exact in size and in every bit, and nothing in them that Pinecone refuses."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.errors import DataRejected, Misconfigured
from queries.pinecone_bodies import BYTES_MOST, METADATA_MOST, RECORDS_MOST, encode_metadata, encode_record, pack
from queries.vectors import VectorRecord


def values(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def records(count: int, size: int = 0) -> list[VectorRecord]:
    return [VectorRecord(f"v{n:05}", values(1.0, n), {"t": "x" * size} if size else {}) for n in range(count)]


def test_a_body_is_the_request_of_the_api() -> None:
    """Ids, values, metadata and namespace stand where the API wants them."""
    body = next(pack([VectorRecord('a"b', values(0.5, -2.0), {"t": "é", "n": 3, "tags": ["x"], "ok": True})], "ns"))
    assert json.loads(body.body) == {
        "vectors": [{"id": 'a"b', "values": [0.5, -2.0], "metadata": {"t": "é", "n": 3, "tags": ["x"], "ok": True}}],
        "namespace": "ns",
    }
    assert json.loads(next(pack(records(1), "")).body) == {"vectors": [{"id": "v00000", "values": [1.0, 0.0]}]}


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_every_bit_of_a_vector_survives(numbers: list[float]) -> None:
    """The shortest digits read back as the very same float32."""
    sent = encode_record(VectorRecord("a", values(*numbers)))
    assert np.array(orjson.loads(sent)["values"], "<f4").tobytes() == values(*numbers)


@pytest.mark.parametrize("size", [0, 500, 3_000, 30_000, 39_980])
def test_requests_are_full_and_never_over(size: int) -> None:
    """At most 1,000 records and 2,000,000 bytes; one record more would not have fitted; none lost, order kept."""
    sent = records(2_300 if size < 1_000 else 150, size)
    bodies = list(pack(sent, "ns"))
    assert [each for body in bodies for each in body.ids] == [record.id for record in sent]
    piece = len(encode_record(sent[0])) + 1
    for body in bodies:
        assert len(body.body) <= BYTES_MOST
        assert len(body.ids) <= RECORDS_MOST
        assert [each["id"] for each in json.loads(body.body)["vectors"]] == list(body.ids)
    for body in bodies[:-1]:
        assert len(body.ids) == RECORDS_MOST or len(body.body) + piece + 8 > BYTES_MOST


def test_the_limit_is_met_to_the_byte() -> None:
    """A body of exactly 2,000,000 bytes is one request; a byte more makes two."""
    most = records(51, 39_000)
    room = BYTES_MOST - len(next(pack([*most, VectorRecord("w", values(1.0), {"t": "x"})], "")).body)
    for extra, requests in ((0, 1), (1, 2)):
        bodies = list(pack([*most, VectorRecord("w", values(1.0), {"t": "x" * (1 + room + extra)})], ""))
        assert len(bodies) == requests
        assert requests == 2 or len(bodies[0].body) == BYTES_MOST


def test_nulls_are_dropped() -> None:
    """Pinecone refuses null; a column without a value is simply not there."""
    nothing: Any = None
    assert encode_metadata("a", {"t": "x", "channel": nothing}) == b'{"t":"x"}'
    assert b"metadata" not in encode_record(VectorRecord("a", values(1.0), {"t": nothing}))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (VectorRecord("a", values(1.0, float("nan"))), "not_finite"),
        (VectorRecord("a", values(float("inf"), 1.0)), "not_finite"),
        (VectorRecord("a", values(1.0), {"n": float("nan")}), "metadata"),
        (VectorRecord("a", values(1.0), {"n": float("-inf")}), "metadata"),
        (VectorRecord("a", values(1.0), {"n": {"nested": 1}}), "metadata"),  # type: ignore[dict-item]
        (VectorRecord("a", values(1.0), {"n": [1, 2]}), "metadata"),  # type: ignore[list-item]
        (VectorRecord("a", values(1.0), {"n": b"raw"}), "metadata"),  # type: ignore[dict-item]
        (VectorRecord("a", values(1.0), {"n": 2**70}), "metadata"),
        (VectorRecord("a", values(1.0), {"t": "\ud800"}), "metadata"),
        (VectorRecord("a", values(1.0), {"tags": ["x" * 39_000, "y" * 2_000]}), "metadata_too_large"),
        (VectorRecord("ö", values(1.0)), "vector_id"),
        (VectorRecord("a\0b", values(1.0)), "vector_id"),
        (VectorRecord("", values(1.0)), "vector_id"),
        (VectorRecord("x" * 513, values(1.0)), "vector_id"),
    ],
    ids=[
        "nan", "inf", "nan metadata", "inf metadata", "nested", "numbers", "bytes", "huge", "surrogate", "list",
        "id not ascii", "id with nul", "id empty", "id long",
    ],
)  # fmt: skip
def test_what_pinecone_would_refuse_is_named_before_it_is_sent(record: VectorRecord, reason: str) -> None:
    """The error names the record, so that its neighbours are spared."""
    with pytest.raises(DataRejected) as caught:
        list(pack([VectorRecord("good", values(1.0)), record], ""))
    assert caught.value.reason == reason
    assert repr(record.id[:80]) in caught.value.what


def test_two_records_of_one_id_are_refused() -> None:
    """One would overwrite the other: the id template does not name each row."""
    with pytest.raises(Misconfigured, match="v00001"):
        list(pack([*records(3), VectorRecord("v00001", values(3.0))], ""))


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.text(max_size=30).map(lambda text: text * 800), max_size=5),
    st.integers(0, 5),
)
def test_metadata_are_shortened_by_whole_characters(texts: dict[str, str], number: int) -> None:
    """At most 40,000 bytes; each text is a beginning of what it was, and nothing is shortened without need."""
    given_whole: dict[str, Any] = {**texts, "n": number}
    sent = encode_metadata("a", given_whole)
    assert len(sent) <= METADATA_MOST
    read = json.loads(sent)
    assert read.keys() == given_whole.keys()
    assert all(texts[name].startswith(read[name]) for name in texts)
    if len(orjson.dumps(given_whole)) <= METADATA_MOST:
        assert read == given_whole
    else:
        assert len(sent) > METADATA_MOST - 12


def test_the_longest_text_is_shortened_first() -> None:
    """The title stays whole when the transcript is what is long."""
    read = json.loads(encode_metadata("a", {"title": "A title", "text": "é" * 30_000, "n": 1}))
    assert read["title"] == "A title"
    assert set(read["text"]) == {"é"}
    assert 19_900 < len(read["text"]) < 20_000
