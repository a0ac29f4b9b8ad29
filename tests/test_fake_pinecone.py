"""The fake Pinecone's gRPC is the one that Pinecone's own client speaks, and follows the same rules as its REST."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pinecone
import pytest
from pinecone import RetryConfig
from pinecone.errors.exceptions import ApiError, PineconeError

from tests.servers.fake_pinecone import FakePinecone
from tests.servers.fake_pinecone_grpc import UpsertRequest, read_proto
from tests.servers.fake_pinecone_world import Refused
from tests.servers.fake_script import rule

METADATA = {"title": "Füße", "views": 3, "share": 0.25, "live": True, "tags": ["a", "b"]}
ONE = {"id": "a", "values": [0.5] * 8, "metadata": METADATA}

Upsert = Callable[..., Awaitable[int]]


async def send(fake: FakePinecone, road: str, *vectors: dict[str, Any], **how: Any) -> int:
    """An upsert by Pinecone's own client, in a thread as it blocks."""
    client = pinecone.Pinecone(api_key="k", grpc_scheme="http", retry_config=RetryConfig(max_retries=0))
    with client.index(host=fake.url, grpc=road == "grpc") as index:
        answer = await asyncio.to_thread(index.upsert, vectors=list(vectors), namespace="ns", **how)
    return int(answer.upserted_count)


@pytest.fixture(params=["grpc", "rest"])
def upsert(fake_pinecone: FakePinecone, request: pytest.FixtureRequest) -> Upsert:
    return partial(send, fake_pinecone, request.param)


async def test_what_pinecones_client_puts_by_either_road_is_read_by_rest(
    upsert: Upsert, fake_pinecone: FakePinecone, request: pytest.FixtureRequest
) -> None:
    """Numbers of fields and types are those of the client: nothing but its own words went over the wire."""
    assert await upsert(ONE, {"id": "b", "values": [0.25] * 8}) == 2
    reader = pinecone.Pinecone(api_key="k").index(host=fake_pinecone.url)
    found = (await asyncio.to_thread(reader.fetch, ids=["a", "b"], namespace="ns")).vectors
    assert {name: list(each.values) for name, each in found.items()} == {"a": [0.5] * 8, "b": [0.25] * 8}
    assert found["a"].metadata == METADATA
    assert fake_pinecone.requests["upsert"] == len(fake_pinecone.counts) == 1
    assert fake_pinecone.grpc_upserts == ("grpc" in request.node.callspec.id)


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        ({**ONE, "values": [0.5] * 7}, "dimension 7 does not match"),
        ({**ONE, "values": [0.0] * 8}, "at least one non-zero"),
        ({**ONE, "metadata": {"text": "x" * 40_000}}, "exceeds the limit of 40000"),
    ],
    ids=["dimension", "zero", "metadata"],
)
async def test_a_record_is_refused_in_the_same_words(
    upsert: Upsert, fake_pinecone: FakePinecone, vector: dict[str, Any], said: str
) -> None:
    """Nothing of such a request is stored."""
    with pytest.raises(ApiError, match=said) as caught:
        await upsert(vector)
    assert (caught.value.status_code, dict(fake_pinecone.statuses)) == (400, {400: 1})
    assert fake_pinecone.vectors("ns") == {}


KINDS: list[tuple[dict[str, Any], int, str]] = [
    (rule("status", status=401, body="Invalid API Key"), 401, "Invalid API Key"),
    (rule("status", status=500, body={"code": 13, "message": "überlastet 100%"}), 500, "überlastet 100%"),
    (rule("status", status=404, body={"error": {"message": "Namespace not found"}}), 404, "Namespace not found"),
    (rule("status", status=502, body="<html>Bad Gateway</html>"), 502, ""),
    (rule("throttle"), 429, "max upsert size limit per second"),
    (rule("month"), 429, "write unit limit for the current month"),
]


@pytest.mark.parametrize(("line", "status", "said"), KINDS, ids=[f"{kind[1]}-{n}" for n, kind in enumerate(KINDS)])
async def test_a_status_of_a_rule_is_the_code_of_that_status(
    fake_pinecone: FakePinecone, line: dict[str, Any], status: int, said: str
) -> None:
    """With the words; and what a proxy says in HTML has no code of gRPC's, which leaves it to the client."""
    fake_pinecone.script(line)
    with pytest.raises(ApiError) as caught:
        await send(fake_pinecone, "grpc", ONE)
    assert said in str(caught.value)
    assert said == "" or caught.value.status_code == status
    assert dict(fake_pinecone.statuses) == {status: 1}


# By REST these are the matter of test_query_pinecone_space.py: the client there tries again by itself.
@pytest.mark.parametrize("kind", ["reset_before", "reset", "half_body", "malformed"])
async def test_no_whole_answer_is_an_error_and_the_next_one_goes_through(
    fake_pinecone: FakePinecone, kind: str
) -> None:
    """What was done before the cut is done."""
    fake_pinecone.script(rule(kind, on={"nth": 1}))
    with pytest.raises(PineconeError):
        await send(fake_pinecone, "grpc", ONE)
    assert len(fake_pinecone.vectors("ns")) == (kind != "reset_before")
    assert await send(fake_pinecone, "grpc", ONE) == 1
    assert fake_pinecone.open == 0


async def test_a_server_may_take_its_leave(fake_pinecone: FakePinecone) -> None:
    """GOAWAY, as load balancers send it every few minutes: the answer is whole, and the next goes another way."""
    fake_pinecone.script(rule("goaway"))
    once = RetryConfig(max_retries=0)
    index = pinecone.Pinecone(api_key="k", grpc_scheme="http", retry_config=once).index(
        host=fake_pinecone.url, grpc=True
    )
    for each in "abc":
        assert (
            await asyncio.to_thread(index.upsert, vectors=[{**ONE, "id": each}], namespace="ns")
        ).upserted_count == 1
    assert list(fake_pinecone.vectors("ns")) == ["a", "b", "c"]
    index.close()


async def test_a_count_may_be_a_lie_by_either_road(upsert: Upsert, fake_pinecone: FakePinecone) -> None:
    """`partial` says how few it took, `swallow` that it took them."""
    fake_pinecone.script(rule("partial", on={"nth": 1}), rule("swallow", on={"nth": 2}))
    two = (ONE, {**ONE, "id": "b"})
    assert [await upsert(*two), len(fake_pinecone.vectors("ns")), await upsert({**ONE, "id": "c"})] == [1, 1, 1]
    assert list(fake_pinecone.vectors("ns")) == ["a"]


def test_the_cheap_reader_reads_the_same_ids() -> None:
    """Of lengths in one byte and in three, and with a broken end refused."""
    request = UpsertRequest(namespace="ns")
    for number, text in enumerate(["", "x", "y" * 200, "z" * 70_000]):
        request.vectors.add(id=f"v{number}" * 50, values=[1.0] * 8).metadata["text"] = text
    whole = request.SerializeToString()
    vectors, namespace = read_proto(whole, False)
    assert read_proto(whole, True) == ([each["id"] for each in vectors], namespace)
    with pytest.raises(Refused):
        read_proto(whole[:-1], True)


@pytest.mark.parametrize("mood", ["off", "mute"])
async def test_grpc_may_be_refused_or_met_with_silence(fake_pinecone: FakePinecone, mood: str) -> None:
    """Neither counts a request, and REST goes on."""
    fake_pinecone.configure(grpc=mood)
    with pytest.raises(PineconeError):
        await send(fake_pinecone, "grpc", ONE, timeout=0.3)
    assert fake_pinecone.requests["upsert"] == 0
    assert await send(fake_pinecone, "rest", ONE) == 1
