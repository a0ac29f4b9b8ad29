"""A namespace of Pinecone keeps what it acknowledged, shows what readers see, and repeats nothing by itself."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from queries.errors import (
    CatchupError,
    DataRejected,
    Misconfigured,
    OutOfMoney,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.pinecone_space import PineconeSpace
from queries.vectors import SpaceFacts, VectorRecord
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.fake_pinecone_process import run_fake_pinecone
from tests.servers.fake_pinecone_world import BYTES_MOST
from tests.servers.fake_script import rule

KEY = "pcsk_s3ntinel_0123456789abcdef"


def open_space(fake: FakePinecone, namespace: str = "ns", **changes: Any) -> PineconeSpace:
    given = {"index_host": fake.url, "index": "videos", "namespace": namespace, "controller_host": fake.url}
    return PineconeSpace(KEY, **{**given, "timeout_s": 2.0, **changes})


@pytest.fixture(params=["grpc", "rest"])
async def space(request: Any, fake_pinecone: FakePinecone) -> AsyncIterator[PineconeSpace]:
    """Once for each road of upserts: the road is chosen, and the fake has forgotten by what."""
    opened = open_space(fake_pinecone, over_grpc=request.param == "grpc")
    await opened.put([VectorRecord("first", vector(1.0), {})])
    assert fake_pinecone.grpc_upserts == (request.param == "grpc")
    fake_pinecone.reset()
    yield opened
    await opened.close()


def vector(*numbers: float) -> bytes:
    return struct.pack("<8f", *numbers, *[0.0] * (8 - len(numbers)))


def records(count: int, **metadata: Any) -> list[VectorRecord]:
    return [VectorRecord(f"v{n:05}", vector(1.0, n), metadata) for n in range(count)]


def ids_of(sent: list[VectorRecord]) -> list[str]:
    return [each.id for each in sent]


async def list_ids(space: PineconeSpace) -> list[str]:
    return [each async for page in space.ids() for each in page]


async def test_what_was_put_is_there(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """Values to the bit, metadata without nulls, and nothing in another namespace."""
    nothing: Any = None
    await space.put([VectorRecord("a", vector(0.1, -2.5), {"t": "é", "n": 3, "gone": nothing})])
    assert fake_pinecone.vectors("") == {}
    kept = fake_pinecone.vectors("ns")["a"]
    assert kept.values is not None
    assert kept.values.tobytes() == vector(0.1, -2.5)
    assert kept.metadata == {"t": "é", "n": 3}


async def test_requests_are_packed_and_several_are_open(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """Full requests of at most 2 MB and 1,000 records, at most eight at once, and every record in one of them."""
    fake_pinecone.configure(latency=0.02)
    sent = records(600, text="x" * 30_000)
    await space.put(sent)
    assert sorted(fake_pinecone.vectors("ns")) == ids_of(sent)
    assert fake_pinecone.requests["upsert"] == len(fake_pinecone.counts) == 10
    assert max(fake_pinecone.sizes) <= BYTES_MOST
    assert 2 <= fake_pinecone.max_open <= 8


async def test_again_is_an_overwrite(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """The same ids twice are the same set, with the newer values."""
    await space.put(records(3))
    await space.put([VectorRecord(each.id, vector(9.0), {}) for each in records(3)])
    assert sorted(fake_pinecone.vectors("ns")) == ["v00000", "v00001", "v00002"]
    assert {each.values[0] for each in fake_pinecone.vectors("ns").values() if each.values is not None} == {9.0}


@pytest.mark.parametrize("short", [1, 7])
async def test_a_short_count_is_no_success(space: PineconeSpace, fake_pinecone: FakePinecone, short: int) -> None:
    """Fewer acknowledged than sent: it did not happen, and is put again."""
    fake_pinecone.script(rule("partial", on={"times": 1}, short=short))
    with pytest.raises(Transient, match="acknowledged fewer"):
        await space.put(records(10))
    await space.put(records(10))
    assert len(await space.seen(ids_of(records(10)))) == 10


NOT_HERE = {"code": 5, "message": "Resource videos not found"}
FAULTS: list[tuple[str, dict[str, Any], type[CatchupError]]] = [
    ("throttle", {"retry_after": 3}, Throttle),
    ("month", {}, OutOfMoney),
    ("status", {"status": 401, "body": f"Invalid API Key {KEY}"}, Misconfigured),
    ("status", {"status": 403, "body": {"error": {"code": "FORBIDDEN", "message": KEY}}}, Misconfigured),
    ("status", {"status": 404, "body": NOT_HERE}, Misconfigured),
    ("status", {"status": 500}, Transient),
    ("status", {"status": 503, "body": "<html><title>Unavailable</title></html>"}, Transient),
    ("status", {"status": 504}, UnknownOutcome),
    ("malformed", {}, Transient),
    ("malformed", {"body": "{}"}, Transient),
    ("malformed", {"body": '{"upsertedCount": true}'}, Transient),
    ("malformed", {"body": "<html>Log in</html>"}, Transient),
    ("reset_before", {}, UnknownOutcome),
    ("reset", {}, UnknownOutcome),
    ("half_body", {}, UnknownOutcome),
    ("hang", {}, UnknownOutcome),
    ("ignore", {}, UnknownOutcome),
]


@pytest.mark.parametrize(
    ("kind", "action", "becomes"),
    FAULTS,
    ids=[f"{kind}-{action.get('status', n)}" for n, (kind, action, _) in enumerate(FAULTS)],
)
async def test_a_fault_is_one_request_and_one_error(
    space: PineconeSpace,
    fake_pinecone: FakePinecone,
    kind: str,
    action: dict[str, Any],
    becomes: type[CatchupError],
) -> None:
    """The SDK's retries are off, the class is ours, the key stands in no message, and the next put goes through."""
    fake_pinecone.script(rule(kind, on={"item": "upsert", "times": 1}, **action))
    with pytest.raises(becomes) as caught:
        await space.put(records(2))
    assert type(caught.value) is becomes
    assert fake_pinecone.requests["upsert"] == 1
    assert "s3ntinel" not in f"{caught.value} {vars(caught.value)}"
    try:
        await space.put(records(2))
    except UnknownOutcome:  # so quick that gRPC had not noticed yet that its connection was reset
        await space.put(records(2))
    assert len(fake_pinecone.vectors("ns")) == 2


async def test_a_wait_that_was_told_is_told_on(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """Of several throttled requests the longest wait counts."""
    fake_pinecone.script(rule("throttle", on={"nth": 1}, retry_after=2), rule("throttle", retry_after=5))
    with pytest.raises(Throttle) as caught:
        await space.put(records(600, text="x" * 30_000))
    assert caught.value.retry_after_s == 5.0


async def test_one_bad_record_is_a_data_fault(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """What only the service can see, all zero, comes back as a refusal of data, so that the page is halved."""
    with pytest.raises(DataRejected) as caught:
        await space.put([*records(3), VectorRecord("zero", vector(0.0), {})])
    assert caught.value.reason == "all_zero"


async def test_a_server_that_takes_its_leave_costs_nothing(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """A connection that is closed in peace, as gateways do every hour or so, is replaced without a fault."""
    fake_pinecone.script(rule("goaway", on={"item": "upsert", "every": 2}))
    for n in range(20):
        await space.put(records(3 + n))
    assert fake_pinecone.requests["upsert"] == 20


async def test_another_dimension_stops_the_run(space: PineconeSpace) -> None:
    """No record is blamed for a model that does not fit the index."""
    with pytest.raises(Misconfigured) as caught:
        await space.put([VectorRecord("a", struct.pack("<4f", 1, 2, 3, 4), {})])
    assert caught.value.code == "dimension"


async def test_no_server_is_an_outage() -> None:
    """Nothing was sent, so nothing is in doubt."""
    async with FakePinecone() as fake:
        closed = open_space(fake)
    with pytest.raises(Unreachable):
        await closed.put(records(1))
    await closed.close()


@pytest.mark.parametrize("lsn", ["on", "old", "off"])
async def test_a_late_vector_is_not_seen_before_a_reader_finds_it(
    space: PineconeSpace, fake_pinecone: FakePinecone, lsn: str
) -> None:
    """With log sequence numbers, with their older names, and without any."""
    now = 100.0
    fake_pinecone.configure(lsn=lsn, lag_s=60.0)
    fake_pinecone.clock = lambda: now
    await space.put(records(30))
    assert await space.seen(ids_of(records(30))) == frozenset()
    now = 159.0
    assert await space.seen(ids_of(records(30))) == frozenset()
    await space.put([VectorRecord("later", vector(5.0), {})])
    now = 161.0
    assert await space.seen([*ids_of(records(31)), "later"]) == frozenset(ids_of(records(30)))
    now = 300.0
    assert await space.seen(["later", "never", "ö"]) == frozenset({"later"})


async def test_seeing_is_cheap_with_the_log(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """A query for how far the log is, a fetch for one id of each request: not a fetch of every vector."""
    await space.put(records(2_500))
    assert len(await space.seen(ids_of(records(2_500)))) == 2_500
    assert (fake_pinecone.requests["query"], fake_pinecone.requests["fetch"]) == (1, 1)


async def test_a_log_that_lies_is_not_believed(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """A 200 with the right count and nothing stored: the witness is missing, and each id is looked for."""
    fake_pinecone.script(rule("swallow", on={"item": "upsert", "nth": 2}))
    await space.put(records(10))
    await space.put([VectorRecord(f"lost{n}", vector(1.0), {}) for n in range(10)])
    assert await space.seen([*ids_of(records(10)), *[f"lost{n}" for n in range(10)]]) == frozenset(ids_of(records(10)))


async def test_another_process_sees_by_fetching(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """After a restart nothing is known of the log; long ids still make URLs that every proxy takes."""
    sent = [VectorRecord(f"{n:04}" + "/%" * 200, vector(1.0), {}) for n in range(300)]
    await space.put(sent)
    other = open_space(fake_pinecone)
    assert await other.seen([*ids_of(sent), "never"]) == frozenset(ids_of(sent))
    assert fake_pinecone.longest_url < 8_000
    await other.close()


async def test_every_id_is_listed_once(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """Page after page of the hundred the API gives, in a server that gives fewer as well."""
    fake_pinecone.configure(page=37)
    await space.put(records(1_234))
    assert await list_ids(space) == ids_of(records(1_234))
    assert await list_ids(open_space(fake_pinecone, "typo")) == []


async def test_a_list_that_turns_in_circles_ends(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """The same page token twice is a fault, not an endless verify."""
    page = '{"vectors": [{"id": "a"}], "pagination": {"next": "c2FtZQ=="}}'
    fake_pinecone.script(rule("malformed", on={"item": "list"}, body=page))
    with pytest.raises(Transient, match="same page"):
        await list_ids(space)


async def test_deleted_is_gone_and_absent_is_no_error(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """A thousand ids a request; those that are not there, and cannot be, cost nothing."""
    await space.put(records(2_500))
    await space.delete([*ids_of(records(2_400)), "never", "ö", ""])
    assert await space.seen(ids_of(records(2_500))) == frozenset(ids_of(records(2_500))[2_400:])
    assert fake_pinecone.requests["delete"] == 3
    gone = rule("status", on={"item": "delete"}, status=404, body={"code": 5, "message": "Namespace not found"})
    fake_pinecone.script(gone)
    await space.delete(["v02400"])


@pytest.mark.parametrize("metric", ["cosine", "dotproduct", "euclidean"])
async def test_the_nearest_come_first(fake_pinecone: FakePinecone, metric: str) -> None:
    """The larger score is the nearer one under every metric; a filter compares for equality, type and all."""
    fake_pinecone.configure(metric=metric)
    fake_pinecone.reset()
    space = open_space(fake_pinecone)
    await space.put(
        [
            VectorRecord("near", vector(1.0, 0.1), {"c": "x", "n": 3, "tags": ["a", "b"]}),
            VectorRecord("far", vector(0.1, 1.0), {"c": "x", "n": 4}),
            VectorRecord("other", vector(1.0, 0.0), {"c": "y", "n": 3}),
        ]
    )
    found = await space.query(vector(1.0), 10, {"c": "x"})
    assert [each.id for each in found] == ["near", "far"]
    assert found[0].score > found[1].score
    assert found[0].metadata == {"c": "x", "n": 3, "tags": ["a", "b"]}
    assert {each.id for each in await space.query(vector(1.0), 5, {"n": 3})} == {"near", "other"}
    assert {each.id for each in await space.query(vector(1.0), 5, {"c": ["x", "z"], "n": 4})} == {"far"}
    await space.close()


async def test_facts_name_a_typo_before_anything_is_paid(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """A namespace that nobody made does not exist; asking for it does not make it."""
    await space.put(records(30))
    told = await space.facts()
    assert told == SpaceFacts(True, True, 8, 30, "cosine", tuple(ids_of(records(20))))
    assert await open_space(fake_pinecone, "typo").facts() == SpaceFacts(True, False, 8, 0, "cosine")
    assert sorted(fake_pinecone.indexes["videos"].namespaces) == ["", "ns"]
    for default in ("", "__default__"):
        assert await open_space(fake_pinecone, default).facts() == SpaceFacts(True, True, 8, 0, "cosine")


async def test_an_index_is_found_by_its_name(fake_pinecone: FakePinecone) -> None:
    """Without a host the control plane is asked once; an index that is not there is a fact, not a fault."""
    named = open_space(fake_pinecone, index_host=None)
    await named.put(records(3))
    assert (await named.facts()).count == 3
    assert fake_pinecone.requests["describe_index"] == 1
    absent = open_space(fake_pinecone, index_host=None, index="nowhere")
    assert await absent.facts() == SpaceFacts(False, False, None, 0, "")
    with pytest.raises(Misconfigured):
        await absent.put(records(1))


async def test_what_is_asked_for_is_made(fake_pinecone: FakePinecone) -> None:
    """Index and namespace, of the dimension of the model; making them twice is no error."""
    space = open_space(fake_pinecone, index_host=None, index="fresh")
    for _ in range(2):
        await space.create(4, index=True)
    assert await space.facts() == SpaceFacts(True, True, 4, 0, "cosine")
    await space.create(4, index=False)
    given_host = open_space(fake_pinecone)
    with pytest.raises(Misconfigured, match="PINECONE_INDEX_HOST"):
        await given_host.create(4, index=True)


async def test_a_cancelled_put_leaves_nothing_open(space: PineconeSpace, fake_pinecone: FakePinecone) -> None:
    """Ctrl-C does not wait for a service that hangs, and the connections are given back."""
    fake_pinecone.script(rule("ignore", on={"item": "upsert", "times": 2}))
    putting = asyncio.create_task(space.put(records(80, text="x" * 39_000)))
    while fake_pinecone.requests["upsert"] < 2:
        await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    fake_pinecone.script()
    await space.put(records(80))
    assert len(await space.seen(ids_of(records(80)))) == 80


def test_the_fake_runs_as_a_process_of_its_own() -> None:
    """For kills and benchmarks: cheap, and its ids are still the truth."""

    async def fill(url: str) -> int:
        space = PineconeSpace(KEY, index_host=url, index="videos", namespace="ns")
        await space.put(records(1_500))
        seen = await space.seen(ids_of(records(1_600)))
        await space.close()
        return len(seen)

    with run_fake_pinecone(cheap=True, lag_s=0.0) as fake:
        assert asyncio.run(fill(fake.url)) == 1_500
        assert fake.ids("ns") == ids_of(records(1_500))
        assert fake.stats()["records_written"] == 1_500
