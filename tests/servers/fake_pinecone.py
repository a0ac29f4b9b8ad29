"""A fake Pinecone in one process: control plane and data plane, late readers, and every unkindness on request.

As with the real one a port takes REST and gRPC, and of gRPC we speak upserts alone; rules and counts are the same.

python -m tests.servers.fake_pinecone --port 0 --dimension 512 --cheap --latency 0.05
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Self
from urllib.parse import unquote

import numpy as np
import orjson
import pytest
from aiohttp import web

from tests.servers.fake_http2 import Door, Stream
from tests.servers.fake_limits import Meter
from tests.servers.fake_pinecone_answers import Action, Answer, Call, Outcome, after, before, speak_json
from tests.servers.fake_pinecone_grpc import UPSERT, read_proto, speak_grpc, unwrap
from tests.servers.fake_pinecone_world import (
    BYTES_MOST,
    LSN_HEADERS,
    MONTHLY,
    PER_SECOND,
    RECORDS_MOST,
    Index,
    Namespace,
    Refused,
    Stored,
    check_id,
    plain,
    read_json,
    read_records,
    shown,
)
from tests.servers.fake_script import Meeting, Rule, read_script


@dataclass(frozen=True)
class Settings:
    """How the fake behaves when no rule says otherwise; 0 is unlimited."""

    index: str = "videos"
    dimension: int = 8
    metric: str = "cosine"
    latency: float = 0.0
    lag_s: float = 0.0
    """Reads see a write only so much later; `settle()` lets them see it at once."""
    lsn: str = "on"
    """The headers of log sequence numbers: "on", "old" (the names before 2026) or "off"."""
    upserts_per_s: float = 0.0
    month_records: int = 0
    """Records a month allows; then every write is refused until the next one."""
    cheap: bool = False
    """Keeps ids only and looks at nothing else: a server for benchmarks."""
    key: str = ""
    """When set, any other key is answered 401."""
    grpc: str = "on"
    """gRPC at the same port: "on", "off" (a server of HTTP/1.1 only), or "mute" (it is let in and never answered)."""
    page: int = 100
    seed: int = 1


Read = Callable[[bytes, bool], tuple[list[Any], str]]


class FakePinecone:
    """`async with FakePinecone(dimension=4) as fake:` then `fake.url`, `fake.script(...)`, `fake.vectors(...)`."""

    def __init__(self, *, port: int = 0, **settings: Any) -> None:
        self.port = port
        self.settings = Settings()
        self.rules: list[Rule] = []
        self.clock: Callable[[], float] = time.monotonic
        self.configure(**settings)
        self.reset()

    def configure(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)
        self.meter = Meter(self.settings.upserts_per_s * 60, 1.0)

    def script(self, *lines: dict[str, Any]) -> None:
        """Replace the table of behaviours. An `item` is an operation: upsert, fetch, list, delete, query, stats ..."""
        self.rules = read_script(list(lines))

    def reset(self) -> None:
        """A new world: the one index of the settings, empty, and no counts."""
        now = self.settings
        self.indexes = {now.index: Index(now.index, now.dimension, now.metric)}
        self.requests: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.sizes: list[int] = []
        self.counts: list[int] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.records_written = self.grpc_upserts = self.open = self.max_open = self.longest_url = 0
        for each in self.rules:
            each.used = 0

    @property
    def url(self) -> str:
        """The host of the index of the settings, and of the control plane."""
        return f"http://127.0.0.1:{self.port}"

    def space(self, namespace: str = "", index: str = "") -> Namespace:
        found = self.indexes[index or self.settings.index].namespaces.setdefault(namespace, Namespace())
        found.settle(self.clock())
        return found

    def vectors(self, namespace: str = "", index: str = "") -> dict[str, Stored]:
        """What readers see now."""
        return self.space(namespace, index).live

    def settle(self) -> None:
        """Every reader sees every write."""
        for each in self.indexes.values():
            for namespace in each.namespaces.values():
                namespace.settle(math.inf)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**28)
        for at in ("", "/i/{index}"):
            for method, path, operation in DATA_PLANE:
                app.router.add_route(method, at + path, self._handler(operation))
        for method, path, operation in CONTROL_PLANE:
            app.router.add_route(method, path, self._handler(operation))
        app.router.add_get("/__fake/stats", self._tell)
        app.router.add_post("/__fake/script", self._script)
        app.router.add_post("/__fake/settings", self._set)
        app.router.add_post("/__fake/reset", self._reset)
        app.router.add_route("*", "/{rest:.*}", self._handler("unknown"))
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
        await self._runner.setup()
        assert self._runner.server is not None
        self._door = Door(self._runner.server, self._handle_grpc, lambda: self.settings.grpc)
        self.port = await self._door.open(self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._door.close()
        await self._runner.cleanup()

    def _handler(self, operation: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            def work(body: bytes, action: Action) -> Answer:
                return OPERATIONS[operation](self, request, body, action)

            made = 201 if operation in ("create_index", "create_namespace") else 200
            call = Call(operation, request.raw_path, request.headers, request.read, work, made)
            return await speak_json(request, await self._take(call))

        return handle

    async def _handle_grpc(self, stream: Stream) -> None:
        def upsert(body: bytes, action: Action) -> Answer:
            return self._store(self._index(self.settings.index), unwrap(body), read_proto, action)

        def unknown(_: bytes, __: Action) -> Answer:
            raise Refused("", 501)  # without words, as tonic does

        path = stream.headers[":path"]
        operation, work = ("upsert", upsert) if path == UPSERT else ("unknown", unknown)
        self.grpc_upserts += path == UPSERT
        speak_grpc(stream, await self._take(Call(operation, path, stream.headers, stream.read, work)))

    async def _take(self, call: Call) -> Outcome:
        """One request by either road: counted, met by the rules, and done or not."""
        self.requests[call.operation] += 1
        self.open += 1
        self.max_open = max(self.max_open, self.open)
        self.longest_url = max(self.longest_url, len(call.path))
        if len(self.seen) < 100:
            self.seen.append((call.path, {k.lower(): v for k, v in call.headers.items()}))
        try:
            outcome = await self._meet(call)
            self.statuses[outcome.status] += 1
            return outcome
        finally:
            self.open -= 1

    async def _meet(self, call: Call) -> Outcome:
        number = self.requests[call.operation]  # of its coming, not of the end of its body
        body = await call.read()
        if self.settings.key and call.headers.get("api-key") != self.settings.key:
            return Outcome(401, f"Invalid API Key {call.headers.get('api-key')}")
        met = Meeting(number, call.operation, number, number)
        action: Action = next((r.action for r in self.rules if r.meets(self.settings.seed, met)), {"kind": "answer"})
        if self.settings.latency:
            await asyncio.sleep(self.settings.latency)
        if (ended := await before(action)) is not None:
            return ended
        try:
            self._admit(call.operation)
            said, headers = call.work(body, action)
        except Refused as refused:
            return self._refuse(refused)
        except (ValueError, KeyError, TypeError) as wrong:
            return self._refuse(Refused(f"Bad request: {wrong!r}"))
        extra: dict[str, str] = action.get("headers", {})
        headers |= {"x-pinecone-request-id": "fake-1", **extra}
        return await after(Outcome(call.success, said, headers), action)

    def _admit(self, operation: str) -> None:
        if operation != "upsert":
            return
        if self.settings.month_records and self.records_written >= self.settings.month_records:
            raise Refused(MONTHLY, 429, 8)
        if self.meter.wait_s(1) > 0:
            raise Refused(PER_SECOND, 429, 8)
        self.meter.take(1)

    def _refuse(self, refused: Refused) -> Outcome:
        message = str(refused)
        wait = {"retry-after": str(math.ceil(self.meter.wait_s(1)) or 1)} if message == PER_SECOND else {}
        return Outcome(refused.status, {"code": refused.code, "message": message, "details": []}, wait)

    def _named(self, request: web.Request) -> Index:
        return self._index(request.match_info.get("index", self.settings.index))

    def _index(self, name: str) -> Index:
        if name not in self.indexes:
            raise Refused(f"Resource {name} not found", 404, 5)
        return self.indexes[name]

    def _reader(self, request: web.Request, namespace: str) -> tuple[Index, Namespace]:
        index = self._named(request)
        found = index.namespaces.get(plain(namespace)) or Namespace()
        found.settle(self.clock())
        return index, found

    def _lsn(self, which: int, value: int) -> dict[str, str]:
        names = LSN_HEADERS.get(self.settings.lsn)
        return {names[which]: str(value)} if names else {}

    def _write(self, index: Index, namespace: str, changes: dict[str, Stored | None]) -> dict[str, str]:
        found = index.namespaces.setdefault(plain(namespace), Namespace())
        lsn = found.write(changes, self.clock() + self.settings.lag_s)
        found.settle(self.clock())
        return self._lsn(0, lsn)

    def _upsert(self, request: web.Request, body: bytes, action: Action) -> Answer:
        return self._store(self._named(request), body, read_json, action)

    def _store(self, index: Index, body: bytes, read: Read, action: Action) -> Answer:
        if len(body) > BYTES_MOST:
            said = f"Error, message length too large: found {len(body)} bytes, the limit is: {BYTES_MOST} bytes"
            raise Refused(said, 413, 11)
        sent, namespace = read(body, self.settings.cheap)
        if not 1 <= len(sent) <= RECORDS_MOST:
            raise Refused(f"The number of vectors must be between 1 and {RECORDS_MOST}, got {len(sent)}")
        self.sizes.append(len(body))
        self.counts.append(len(sent))
        changes: dict[str, Stored | None]
        changes = dict.fromkeys(sent, Stored()) if self.settings.cheap else read_records(sent, index)
        if action["kind"] == "swallow":
            changes = {}
        if action["kind"] == "partial":
            changes = dict(list(changes.items())[: len(sent) - action.get("short", 1)])
        self.records_written += len(changes)
        taken = len(changes) if action["kind"] == "partial" else len(sent)
        return {"upsertedCount": taken}, self._write(index, namespace, changes)

    def _fetch(self, request: web.Request, body: bytes, action: Action) -> Answer:
        ids = request.query.getall("ids")
        if len(ids) > 1000:
            raise Refused(f"The number of ids must be at most 1000, got {len(ids)}")
        _, space = self._reader(request, request.query.get("namespace", ""))
        found = {id_: shown(id_, space.live[id_]) for id_ in ids if id_ in space.live}
        return {"vectors": found, "namespace": request.query.get("namespace", ""), "usage": {"readUnits": 1}}, {}

    def _list(self, request: web.Request, body: bytes, action: Action) -> Answer:
        asked = request.query
        limit = int(asked.get("limit", 100))
        if not 1 <= limit <= 100:
            raise Refused("limit must be between 1 and 100")
        _, space = self._reader(request, asked.get("namespace", ""))
        after = base64.b64decode(asked.get("paginationToken", "")).decode()
        ids, following = space.page(asked.get("prefix", ""), after, min(limit, self.settings.page))
        said: dict[str, Any] = {"vectors": [{"id": id_} for id_ in ids], "namespace": asked.get("namespace", "")}
        if following:
            said["pagination"] = {"next": base64.b64encode(following.encode()).decode()}
        return said | {"usage": {"readUnits": 1}}, {}

    def _delete(self, request: web.Request, body: bytes, action: Action) -> Answer:
        read = orjson.loads(body)
        index = self._named(request)
        ids = read.get("ids") or []
        if read.get("deleteAll"):
            ids = list(self._reader(request, read.get("namespace", ""))[1].live)
        elif not 1 <= len(ids) <= 1000:
            raise Refused("ids must be between 1 and 1000")
        for each in ids:
            check_id(each)
        return {}, self._write(index, read.get("namespace", ""), dict.fromkeys(ids))

    def _query(self, request: web.Request, body: bytes, action: Action) -> Answer:
        read = orjson.loads(body)
        index, space = self._reader(request, read.get("namespace", ""))
        vector = read.get("vector")
        if not isinstance(vector, list) or len(vector) != index.dimension:
            have = len(vector or ())
            raise Refused(f"Query vector dimension {have} does not match the dimension of the index {index.dimension}")
        matches = []
        near = space.nearest(np.array(vector, "<f4"), read["topK"], read.get("filter") or {}, index.metric)
        for id_, near_by in near:
            told = shown(id_, space.live[id_]) | {"score": near_by}
            if not read.get("includeValues"):
                told["values"] = []
            if not read.get("includeMetadata"):
                told.pop("metadata", None)
            matches.append(told)
        said = {"results": [], "matches": matches, "namespace": read.get("namespace", ""), "usage": {"readUnits": 1}}
        return said, self._lsn(1, space.indexed)

    def _stats(self, request: web.Request, body: bytes, action: Action) -> Answer:
        index = self._named(request)
        counts = {}
        for name, space in index.namespaces.items():
            space.settle(self.clock())
            if name or space.live:
                counts[name or "__default__"] = {"vectorCount": len(space.live)}
        total = sum(each["vectorCount"] for each in counts.values())
        said = {"namespaces": counts, "dimension": index.dimension, "indexFullness": 0, "totalVectorCount": total}
        return said | {"metric": index.metric, "vectorType": "dense"}, {}

    def _create_namespace(self, request: web.Request, body: bytes, action: Action) -> Answer:
        name = orjson.loads(body)["name"]
        index = self._named(request)
        if plain(name) in index.namespaces:
            raise Refused(f"Namespace {name} already exists", 409, 6)
        index.namespaces[name] = Namespace()
        return {"name": name, "record_count": "0"}, {}

    def _describe_namespace(self, request: web.Request, body: bytes, action: Action) -> Answer:
        name = unquote(request.match_info["namespace"])
        found = self._named(request).namespaces.get(plain(name))
        if found is None:
            raise Refused(f"Namespace {name} not found", 404, 5)
        found.settle(self.clock())
        return {"name": name, "record_count": str(len(found.live))}, {}

    def _list_namespaces(self, request: web.Request, body: bytes, action: Action) -> Answer:
        found = self._named(request).namespaces
        told = [{"name": name or "__default__", "record_count": str(len(each.live))} for name, each in found.items()]
        return {"namespaces": told, "total_count": len(told)}, {}

    def _describe_index(self, request: web.Request, body: bytes, action: Action) -> Answer:
        return self._told_index(self._named(request)), {}

    def _told_index(self, index: Index) -> dict[str, Any]:
        dense = {"type": "dense_vector", "dimension": index.dimension, "metric": index.metric}
        return {
            "name": index.name,
            "host": f"{self.url}/i/{index.name}",
            "status": {"ready": True, "state": "Ready"},
            "schema": {"fields": {"_values": dense}},
            "deployment": {"deployment_type": "managed", "environment": "x", "cloud": "aws", "region": "us-east-1"},
            "deletion_protection": "disabled",
        }

    def _create_index(self, request: web.Request, body: bytes, action: Action) -> Answer:
        read = orjson.loads(body)
        if read["name"] in self.indexes:
            raise Refused(f"Resource {read['name']} already exists", 409, 6)
        dense = read["schema"]["fields"]["_values"]
        self.indexes[read["name"]] = Index(read["name"], dense["dimension"], dense.get("metric", "cosine"))
        return self._told_index(self.indexes[read["name"]]), {}

    def _list_indexes(self, request: web.Request, body: bytes, action: Action) -> Answer:
        return {"indexes": [self._told_index(each) for each in self.indexes.values()]}, {}

    def _unknown(self, request: web.Request, body: bytes, action: Action) -> Answer:
        raise Refused(f"Not found: {request.method} {request.path}", 404, 5)

    def stats(self) -> dict[str, Any]:
        """Everything counted, as a test in another process may ask for it; with `ids` every id that readers see."""
        spaces = {i.name: {n: len(s.live) for n, s in i.namespaces.items()} for i in self.indexes.values()}
        return {
            "requests": dict(self.requests),
            "statuses": {str(k): v for k, v in self.statuses.items()},
            "max_open": self.max_open,
            "longest_url": self.longest_url,
            "largest_body": max(self.sizes, default=0),
            "most_records": max(self.counts, default=0),
            "records_written": self.records_written,
            "grpc_upserts": self.grpc_upserts,
            "spaces": spaces,
            "cpu_s": time.process_time(),
        }

    async def _tell(self, request: web.Request) -> web.Response:
        ids = {"ids": sorted(self.vectors(request.query["ids"]))} if "ids" in request.query else {}
        return web.json_response(self.stats() | ids)

    async def _script(self, request: web.Request) -> web.Response:
        self.script(*await request.json())
        return web.json_response({"rules": len(self.rules)})

    async def _set(self, request: web.Request) -> web.Response:
        self.configure(**await request.json())
        return web.json_response(asdict(self.settings))

    async def _reset(self, _: web.Request) -> web.Response:
        self.reset()
        return web.json_response({})


OPERATIONS: dict[str, Callable[[FakePinecone, web.Request, bytes, Action], Answer]] = {
    name: getattr(FakePinecone, f"_{name}")
    for name in (
        "upsert", "fetch", "list", "delete", "query", "stats", "create_namespace", "describe_namespace",
        "list_namespaces", "describe_index", "create_index", "list_indexes", "unknown",
    )
}  # fmt: skip
DATA_PLANE = (
    ("POST", "/vectors/upsert", "upsert"),
    ("GET", "/vectors/fetch", "fetch"),
    ("GET", "/vectors/list", "list"),
    ("POST", "/vectors/delete", "delete"),
    ("POST", "/query", "query"),
    ("POST", "/describe_index_stats", "stats"),
    ("POST", "/namespaces", "create_namespace"),
    ("GET", "/namespaces", "list_namespaces"),
    ("GET", "/namespaces/{namespace}", "describe_namespace"),
)
CONTROL_PLANE = (
    ("GET", "/indexes", "list_indexes"),
    ("POST", "/indexes", "create_index"),
    ("GET", "/indexes/{index}", "describe_index"),
)


@pytest.fixture
async def fake_pinecone() -> AsyncIterator[FakePinecone]:
    """A fresh fake of eight dimensions without limits, latency or lag."""
    async with FakePinecone() as fake:
        yield fake


async def serve() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    for name, default in asdict(Settings()).items():
        how: dict[str, Any] = {"action": "store_true"} if default is False else {"type": type(default)}
        parser.add_argument("--" + name.replace("_", "-"), default=default, **how)
    async with FakePinecone(**vars(parser.parse_args())) as fake:
        print(json.dumps({"port": fake.port, "seed": fake.settings.seed}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
