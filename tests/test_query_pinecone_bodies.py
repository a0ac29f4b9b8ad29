"""Bodies of upserts: exact in size and in every bit, and nothing in them that Pinecone refuses."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from queries.errors import DataRejected, Misconfigured, Transient
from queries.pinecone_bodies import BYTES_MOST, RECORDS_MOST, Form, JsonForm, encode_record, pack
from queries.pinecone_protobuf import ProtobufForm, read_count
from queries.pinecone_records import METADATA_MOST, keep_metadata
from queries.vectors import VectorRecord
from tests.servers.fake_pinecone_grpc import UpsertRequest, UpsertResponse

FORMS = (JsonForm, ProtobufForm)
both_forms = pytest.mark.parametrize("form", FORMS)


def values(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def records(count: int, size: int = 0) -> list[VectorRecord]:
    return [VectorRecord(f"v{n:05}", values(1.0, n), {"t": "x" * size} if size else {}) for n in range(count)]


def read(body: bytes) -> tuple[list[VectorRecord], str]:
    """By readers that are not ours: what the records were, and their namespace."""
    if body.startswith(b"{"):
        told = json.loads(body)
        sent = [(each["id"], each["values"], each.get("metadata", {})) for each in told["vectors"]]
        namespace = told.get("namespace", "")
    else:
        message = UpsertRequest.FromString(body)
        assert len(message.SerializeToString()) == len(body)
        sent = [(each.id, each.values, MessageToDict(each.metadata)) for each in message.vectors]
        namespace = message.namespace
    return [VectorRecord(id_, np.array(some, "<f4").tobytes(), metadata) for id_, some, metadata in sent], namespace


def test_a_body_is_the_request_of_the_api() -> None:
    """Over REST, ids, values, metadata and namespace stand where the API wants them."""
    body = next(pack([VectorRecord('a"b', values(0.5, -2.0), {"t": "é"})], JsonForm("ns"))).body
    assert json.loads(body) == {
        "vectors": [{"id": 'a"b', "values": [0.5, -2.0], "metadata": {"t": "é"}}],
        "namespace": "ns",
    }
    assert json.loads(next(pack(records(1), JsonForm(""))).body) == {
        "vectors": [{"id": "v00000", "values": [1.0, 0.0]}]
    }


FIELDS = st.one_of(
    st.text(max_size=300),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.text(max_size=200), max_size=4),
)


@both_forms
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=70),
    st.dictionaries(st.text(max_size=150), FIELDS, max_size=5),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200),
)
def test_a_record_is_read_as_it_was_written(
    form: type[Form], numbers: list[float], metadata: dict[str, Any], namespace: str
) -> None:
    """Every bit of a vector, every text, number and truth, whatever the lengths of all of it."""
    sent = [VectorRecord("a" * len(numbers), values(*numbers), metadata), VectorRecord("b", values(*numbers), {})]
    (body,) = pack(sent, form(namespace))  # type: ignore[call-arg]
    assert read(body.body) == (sent, namespace)


@both_forms
@pytest.mark.parametrize("size", [0, 500, 3_000, 30_000, 39_980])
def test_requests_are_full_and_never_over(form: Any, size: int) -> None:
    """At most 1,000 records and 2,000,000 bytes; one record more would not have fitted; none lost, order kept."""
    sent = records(2_300 if size < 1_000 else 150, size)
    bodies = list(pack(sent, form("ns")))
    assert [each for body in bodies for each in body.ids] == [record.id for record in sent]
    piece = len(encode_record(sent[0], form("ns"))) + 1
    for body in bodies:
        assert len(body.body) <= BYTES_MOST
        assert len(body.ids) <= RECORDS_MOST
        assert [each.id for each in read(body.body)[0]] == list(body.ids)
    for body in bodies[:-1]:
        assert len(body.ids) == RECORDS_MOST or len(body.body) + piece + 8 > BYTES_MOST


@both_forms
def test_the_limit_is_met_to_the_byte(form: Any) -> None:
    """A body of exactly 2,000,000 bytes is one request; a byte more makes two."""
    most, some = records(51, 39_000), 300
    room = BYTES_MOST - len(next(pack([*most, VectorRecord("w", values(1.0), {"t": "x" * some})], form(""))).body)
    for extra, requests in ((0, 1), (1, 2)):
        bodies = list(pack([*most, VectorRecord("w", values(1.0), {"t": "x" * (some + room + extra)})], form("")))
        assert len(bodies) == requests
        assert requests == 2 or len(bodies[0].body) == BYTES_MOST


@both_forms
def test_nulls_are_dropped(form: Any) -> None:
    """Pinecone refuses null; a column without a value is simply not there."""
    nothing: Any = None
    assert keep_metadata("a", {"t": "x", "channel": nothing}) == {"t": "x"}
    bare = VectorRecord("a", values(1.0), {})
    assert encode_record(VectorRecord("a", values(1.0), {"t": nothing}), form("")) == encode_record(bare, form(""))


@both_forms
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
def test_what_pinecone_would_refuse_is_named_before_it_is_sent(form: Any, record: VectorRecord, reason: str) -> None:
    """The error names the record, so that its neighbours are spared."""
    with pytest.raises(DataRejected) as caught:
        list(pack([VectorRecord("good", values(1.0)), record], form("")))
    assert caught.value.reason == reason
    assert repr(record.id[:80]) in caught.value.what


def test_two_records_of_one_id_are_refused() -> None:
    """One would overwrite the other: the id template does not name each row."""
    with pytest.raises(Misconfigured, match="v00001"):
        list(pack([*records(3), VectorRecord("v00001", values(3.0))], JsonForm("")))


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.text(max_size=30).map(lambda text: text * 800), max_size=5),
    st.integers(0, 5),
)
def test_metadata_are_shortened_by_whole_characters(texts: dict[str, str], number: int) -> None:
    """At most 40,000 bytes; each text is a beginning of what it was, and nothing is shortened without need."""
    given_whole: dict[str, Any] = {**texts, "n": number}
    kept: Any = keep_metadata("a", given_whole)
    size = len(orjson.dumps(kept))
    assert size <= METADATA_MOST
    assert kept.keys() == given_whole.keys()
    assert all(texts[name].startswith(kept[name]) for name in texts)
    if len(orjson.dumps(given_whole)) <= METADATA_MOST:
        assert kept == given_whole
    else:
        assert size > METADATA_MOST - 12


def test_the_longest_text_is_shortened_first() -> None:
    """The title stays whole when the transcript is what is long."""
    kept: Any = keep_metadata("a", {"title": "A title", "text": "é" * 30_000, "n": 1})
    assert kept["title"] == "A title"
    assert set(kept["text"]) == {"é"}
    assert 19_900 < len(kept["text"]) < 20_000


@given(st.integers(0, 2**32 - 1), st.binary(max_size=60))
def test_the_count_is_read_and_nothing_else_is_taken_for_one(count: int, junk: bytes) -> None:
    """What Google's writer wrote, with fields of next year beside it; junk is no answer or another one."""
    answer = UpsertResponse(upserted_count=count).SerializeToString()
    assert read_count(answer) == count
    assert read_count(b"\x12\x02ok" + answer + b"\x1d1234\x2112345678\x28\x05") == count
    with suppress(Transient):
        assert read_count(junk) >= 0
