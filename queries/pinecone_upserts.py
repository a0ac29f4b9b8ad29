"""Records on their way into a namespace: over gRPC where the index speaks it, else over REST.

The first request decides, once for a process: a run opens with a single record. Whatever keeps gRPC from working then
(no such server, a proxy, no package), the same records go over REST at once, and what REST says counts: a put is an
overwrite by id, so that doing it twice does no harm. The same where gRPC does not tell the place of a write in the log:
without that each vector would have to be fetched to be seen. Once gRPC has worked, its failures are failures like any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson
from pinecone.models.response_info import ResponseInfo

from queries.errors import CatchupError, Throttle, Transient
from queries.pinecone_bodies import Form, JsonForm, Packed, pack
from queries.pinecone_client import AT_ONCE, PineconeClient
from queries.pinecone_errors import SERVICE, malformed, worst
from queries.pinecone_grpc import UpsertChannel
from queries.pinecone_protobuf import ProtobufForm, read_count
from queries.vectors import VectorRecord

TRY_S = 5.0
"""How long gRPC may take to show that it works: a server may let it in and say nothing."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """How many records the service says it took, and their place in the namespace's log where it tells that."""

    count: int
    lsn: int | None


class UpsertRoad(Protocol):
    form: Form

    async def upsert(self, body: bytes) -> Acknowledged: ...


class RestRoad:
    def __init__(self, client: PineconeClient, namespace: str) -> None:
        self.form: Form = JsonForm(namespace)
        self._client = client

    async def upsert(self, body: bytes) -> Acknowledged:
        response = await self._client.post("/vectors/upsert", body)
        return Acknowledged(_read_json_count(response.content), _read_lsn(dict(response.headers)))


class GrpcRoad:
    def __init__(self, client: PineconeClient, namespace: str, channel: UpsertChannel) -> None:
        self.form: Form = ProtobufForm(namespace)
        self.channel, self._client = channel, client

    async def upsert(self, body: bytes) -> Acknowledged:
        client, channel = self._client, self.channel
        answer, headers = await client.ask(lambda: channel.upsert(body, client.timeout_s), writing=True)
        return Acknowledged(read_count(answer), _read_lsn(headers))


class Upserts:
    """`put` makes one attempt of each request; `on_taken` hears of those that were acknowledged in full."""

    def __init__(
        self,
        client: PineconeClient,
        namespace: str,
        on_taken: Callable[[Packed, int | None], None],
        *,
        over_grpc: bool,
    ) -> None:
        self._client, self._namespace, self._on_taken, self._may_grpc = client, namespace, on_taken, over_grpc
        self._road: UpsertRoad | None = None
        self._choosing = asyncio.Lock()
        self.note = ""

    async def put(self, records: Sequence[VectorRecord]) -> None:
        async with self._choosing:
            if self._road is None:
                records = await self._choose(records)
        if self._road is not None:
            await self._send_all(self._road, records)

    async def close(self) -> None:
        if isinstance(self._road, GrpcRoad):
            await self._road.channel.close()
        self._road = None

    async def _choose(self, records: Sequence[VectorRecord]) -> Sequence[VectorRecord]:
        """Sends the first request and returns the records that are left for the road it chose."""
        rest = RestRoad(self._client, self._namespace)
        if not self._may_grpc or not await self._client.may_speak_grpc():
            self._road = rest
            return records
        first = next(pack(records, ProtobufForm(self._namespace)), None)
        if first is None:
            return records
        begun, left = records[: len(first.ids)], records[len(first.ids) :]
        self._road = await self._try_grpc(first)
        if self._road is None:
            await self._send_all(rest, begun)
            self._road = rest
        return left

    async def _try_grpc(self, first: Packed) -> GrpcRoad | None:
        """None where it cannot be taken; `note` says why."""
        road: GrpcRoad | None = None
        works = False
        try:
            road = GrpcRoad(self._client, self._namespace, await self._client.open_channel())
            async with asyncio.timeout(TRY_S):
                works = await self._send(road, first) is not None
            why = "It does not tell the place of a write in the log."
        except Throttle:
            raise  # it is spoken, and asks to wait: nobody comes by another road instead
        except CatchupError as error:
            why = error.what
        except TimeoutError:
            why = f"No answer in {TRY_S:.0f} s."
        finally:
            if road is not None and not works:
                await road.channel.close()
        if works:
            return road
        self.note = f"gRPC does not work with this index, so REST is used: {why} PINECONE_GRPC=off saves the attempt."
        return None

    async def _send_all(self, road: UpsertRoad, records: Sequence[VectorRecord]) -> None:
        bodies = pack(records, road.form)
        failures: list[CatchupError] = []

        async def send_some() -> None:
            while not failures:
                try:
                    packed = next(bodies, None)
                    if packed is None:
                        return
                    await self._send(road, packed)
                except CatchupError as error:
                    failures.append(error)

        # The others end what they have begun: a request cut off would only be one more whose outcome is unknown.
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(records))):
                group.create_task(send_some())
        if failures:
            raise worst(failures).with_traceback(None)  # the traceback would keep the bodies alive

    async def _send(self, road: UpsertRoad, packed: Packed) -> int | None:
        """Returns its place in the log."""
        told = await road.upsert(packed.body)
        if told.count != len(packed.ids):
            what = f"Pinecone acknowledged fewer records than were sent ({told.count} of {len(packed.ids)})."
            raise Transient(what, service=SERVICE, code="short_count")
        self._on_taken(packed, told.lsn)
        return told.lsn


def _read_lsn(headers: dict[str, str]) -> int | None:
    return ResponseInfo(raw_headers=headers).lsn_committed


def _read_json_count(body: bytes) -> int:
    try:
        taken = orjson.loads(body)["upsertedCount"]
    except (ValueError, KeyError, TypeError):
        raise malformed("it counts no records") from None
    if not isinstance(taken, int) or isinstance(taken, bool):
        raise malformed("its count is no number")
    return taken
