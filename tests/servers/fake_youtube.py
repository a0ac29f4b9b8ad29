"""A fake YouTube Data API: videos.list as it is, units booked on arrival, and every unkindness on request.

python -m tests.servers.fake_youtube --port 0 --latency 0.05 --quota 10000
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.servers.fake_limits import Meter
from tests.servers.fake_script import Meeting, Rule, read_script
from tests.servers.fake_youtube_script import REFUSALS

PATH = "/youtube/v3/videos"
IDS_MOST = 50
HTML = b"<!DOCTYPE html><html><title>Error 502 (Server Error)!!1</title><p>That's an error.</p></html>"


@dataclass(frozen=True)
class Settings:
    """How the fake behaves when no rule says otherwise; 0 is unlimited."""

    latency: float = 0.0
    quota: int = 0
    """Units of the day; then quotaExceeded until `turn_day`."""
    per_min: float = 0.0
    key: str = ""
    """When set, any other key is refused."""
    gzip: bool = False
    chunked: bool = False
    seed: int = 1


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    number: int
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    method: str

    @property
    def ids(self) -> list[str]:
        return [each for part in self.query.get("id", []) for each in part.split(",") if each]


Item = dict[str, Any]


class FakeYouTube:
    """`async with FakeYouTube() as fake:` then `fake.url`, `fake.script(...)`, `fake.gone`, `fake.counts`.

    Every id is a video that is there, with counts made of its letters, unless it is in `gone`; `counts` overrides what
    its statistics say, and None leaves a count out.
    """

    def __init__(self, *, port: int = 0, **settings: Any) -> None:
        self.port = port
        self.settings = Settings()
        self.rules: list[Rule] = []
        self.gone: set[str] = set()
        self.counts: dict[str, dict[str, Any] | None] = {}
        self.live: set[_Connection] = set()
        self.configure(**settings)
        self.reset()

    def configure(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)
        self.meter = Meter(self.settings.per_min, 1.0)

    def script(self, *lines: dict[str, Any]) -> None:
        """Replace the table of behaviours. An `item` is the ids of the request, a line each."""
        self.rules = read_script(list(lines))

    def reset(self) -> None:
        """Nothing was asked yet; the videos stay."""
        self.units = self.requests = self.open = self.max_open = self.connections = self.longest_url = 0
        self.statuses: Counter[int] = Counter()
        self.asked: Counter[str] = Counter()
        self.seen: list[Asked] = []
        self.attempts: Counter[str] = Counter()
        self.first_at = self.last_at = 0.0
        for each in self.rules:
            each.used = 0

    def turn_day(self) -> None:
        """Midnight Pacific."""
        self.units = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def statistics(self, video_id: str) -> dict[str, Any] | None:
        """What the fake tells of it; None where `statistics` is missing altogether."""
        if video_id in self.counts and self.counts[video_id] is None:
            return None
        views = zlib.crc32(video_id.encode())
        told = {
            "viewCount": str(views),
            "likeCount": str(views // 50),
            "favoriteCount": "0",
            "commentCount": str(views // 900),
            **(self.counts.get(video_id) or {}),
        }
        return {name: value for name, value in told.items() if value is not None}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for each in list(self.live):
            each.cut()
        await self._server.wait_closed()

    def meet(self, asked: Asked, connection: _Connection) -> None:
        """One request: booked, then answered as the rules say."""
        self.requests += 1
        self.last_at = time.time()
        self.first_at = self.first_at or self.last_at
        self.longest_url = max(self.longest_url, len(asked.path))
        ids = asked.ids
        self.asked.update(ids)
        if len(self.seen) < 200:
            self.seen.append(asked)
        item = "\n".join(ids)
        self.attempts[item] += 1
        met = Meeting(asked.number, item, self.attempts[item], self.requests)
        action = next((r.action for r in self.rules if r.meets(self.settings.seed, met)), {"kind": "answer"})
        if self.settings.latency:
            asyncio.get_running_loop().call_later(self.settings.latency, self._act, asked, action, connection)
        else:
            self._act(asked, action, connection)

    def _act(self, asked: Asked, action: dict[str, Any], connection: _Connection) -> None:
        kind = action["kind"]
        if kind in ON_THE_WIRE:
            self.units += action.get("bill", 1)
            ON_THE_WIRE[kind](self, asked, action, connection)
            return
        refusal = self._refusal(asked, kind)
        if refusal is not None:
            status, body = refusal
            wait = {"Retry-After": str(action["retry_after"])} if "retry_after" in action else {}
            connection.answer(status, _dump(body), **wait)
            return
        connection.answer(200, self.page(asked.ids, action))

    def _refusal(self, asked: Asked, kind: str) -> tuple[int, dict[str, Any]] | None:
        """Anything that is not a page of items; whatever reaches the service costs a unit, refusals of quota do not."""
        now = self.settings
        key = asked.headers.get("x-goog-api-key") or asked.query.get("key", [""])[0]
        if asked.path.split("?")[0] != PATH or asked.method != "GET":
            return REFUSALS["no_method"]
        if now.key and key != now.key:
            return REFUSALS["key_invalid" if key else "no_key"]
        if kind in ("quota", "daily", "quota_rpc") or (now.quota and self.units >= now.quota):
            return REFUSALS["quota" if kind == "answer" else kind]
        self.units += 1
        if now.per_min and self.meter.wait_s(1) > 0:
            return REFUSALS["rate"]
        self.meter.take(1)
        return REFUSALS.get(kind) or _check(asked)

    def page(self, ids: list[str], action: dict[str, Any]) -> bytes:
        there = [each for each in dict.fromkeys(ids) if each not in self.gone]
        items = ",".join(self._item(each) for each in there)
        kind = action["kind"]
        if kind != "answer":
            changed = CHANGES[kind](self, json.loads(f"[{items}]"), action)
            items, there = json.dumps(changed)[1:-1], [str(n) for n in range(len(changed))]
        info = f'{{"totalResults":{len(there)},"resultsPerPage":{len(there)}}}'
        return (
            f'{{"kind":"youtube#videoListResponse","etag":"e{len(items)}","items":[{items}],"pageInfo":{info}}}'
        ).encode()

    def _item(self, video_id: str) -> str:
        if video_id in self.counts:
            told = self.statistics(video_id)
            item: Item = {"kind": "youtube#video", "etag": "e", "id": video_id}
            return json.dumps(item if told is None else {**item, "statistics": told})
        views = zlib.crc32(video_id.encode())
        return (
            f'{{"kind":"youtube#video","etag":"e{views}","id":"{video_id}","statistics":{{"viewCount":"{views}",'
            f'"likeCount":"{views // 50}","favoriteCount":"0","commentCount":"{views // 900}"}}}}'
        )

    def told(self) -> dict[str, Any]:
        """For a test in another process."""
        return {
            "requests": self.requests,
            "units": self.units,
            "statuses": self.statuses,
            "ids": len(self.asked),
            "asked_twice": sum(times > 1 for times in self.asked.values()),
            "first_at": self.first_at,
            "last_at": self.last_at,
            "max_open": self.max_open,
            "connections": self.connections,
            "longest_url": self.longest_url,
            "keys_in_urls": sum("key" in each.query for each in self.seen),
        }

    def control(self, asked: Asked) -> dict[str, Any]:
        """/__fake/ paths, for whoever is in another process."""
        name = asked.path.rpartition("/")[2]
        told = json.loads(asked.body or b"null")
        if name == "script":
            self.script(*told)
        elif name == "settings":
            self.configure(**told)
        elif name == "world":
            self.gone, self.counts = set(told.get("gone", [])), dict(told.get("counts", {}))
        elif name == "reset":
            self.reset()
        elif name == "turn_day":
            self.turn_day()
        return self.told()


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and nothing else, since a benchmark measures what this can do."""

    def __init__(self, fake: FakeYouTube) -> None:
        self._fake, self._held, self._is_waiting = fake, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._fake.connections += 1
        self._fake.live.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fake.live.discard(self)
        self._done()

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, end, rest = self._held.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._held = rest[length:]
        fake = self._fake
        asked = Asked(fake.requests + 1, path, parse_qs(urlsplit(path).query), headers, rest[:length], method)
        if path.startswith("/__fake/"):
            self.transport.write(_whole(200, _dump(fake.control(asked))))
            return
        self._is_waiting, self._takes_gzip = True, "gzip" in headers.get("accept-encoding", "")
        fake.open += 1
        fake.max_open = max(fake.max_open, fake.open)
        fake.meet(asked, self)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self._fake.statuses[status] += 1
        if self._fake.settings.gzip and self._takes_gzip:
            body, headers = gzip.compress(body, 1), {**headers, "Content-Encoding": "gzip"}
        if self._fake.settings.chunked:
            headers = {**headers, "Transfer-Encoding": "chunked"}
            body = (
                b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:99], body[99:]) if part) + b"0\r\n\r\n"
            )
        self.transport.write(_whole(status, body, **headers))
        self._done()

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def cut(self, *, kindly: bool = False) -> None:
        self.transport.close() if kindly else self.transport.abort()

    def _done(self) -> None:
        self._fake.open -= self._is_waiting
        self._is_waiting = False


def _check(asked: Asked) -> tuple[int, dict[str, Any]] | None:
    if asked.query.get("part") != ["statistics"]:
        return REFUSALS["bad_part"]
    if not asked.ids:
        return REFUSALS["no_filter"]
    return REFUSALS["too_many"] if len(asked.ids) > IDS_MOST else None


def _whole(status: int, body: bytes, **headers: str) -> bytes:
    kind = "text/html" if body[:1] == b"<" else "application/json; charset=UTF-8"
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}"]
    lines += [] if "Date" in headers else [f"Date: {formatdate(usegmt=True)}"]
    lines += [] if "Transfer-Encoding" in headers else [f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def _dribble(fake: FakeYouTube, asked: Asked, action: dict[str, Any], connection: _Connection) -> None:
    connection.write(_whole(200, b" " * 100_000)[:-100_000])

    def one_more() -> None:
        if not connection.transport.is_closing():
            connection.write(b" ")
            asyncio.get_running_loop().call_later(action.get("every_s", 0.02), one_more)

    one_more()


def _cut(fake: FakeYouTube, asked: Asked, action: dict[str, Any], connection: _Connection) -> None:
    whole = _whole(200, fake.page(asked.ids, {"kind": "answer"}))
    connection.write(whole[: int(len(whole) * action.get("at", 0.5))])
    connection.cut(kindly=True)


def _close(fake: FakeYouTube, asked: Asked, action: dict[str, Any], connection: _Connection) -> None:
    connection.cut(kindly=action.get("kindly", True))


def _idle_close(fake: FakeYouTube, asked: Asked, action: dict[str, Any], connection: _Connection) -> None:
    connection.answer(200, fake.page(asked.ids, {"kind": "answer"}))
    connection.cut(kindly=True)


def _raw(fake: FakeYouTube, asked: Asked, action: dict[str, Any], connection: _Connection) -> None:
    body = action.get("body", HTML.decode())
    whole = body.encode() if isinstance(body, str) else _dump(body)
    connection.answer(action.get("status", 200), whole, **action.get("headers", {}))


def _cut_json(fake: FakeYouTube, asked: Asked, action: dict[str, Any], connection: _Connection) -> None:
    connection.answer(200, fake.page(asked.ids, {"kind": "answer"})[:-40])


def _bomb(fake: FakeYouTube, asked: Asked, action: dict[str, Any], connection: _Connection) -> None:
    connection.answer(200, gzip.compress(b" " * 20_000_000, 9), Content_Encoding="gzip")


ON_THE_WIRE: dict[str, Callable[[FakeYouTube, Asked, dict[str, Any], _Connection], None]] = {
    "hang": lambda *_: None,
    "dribble": _dribble,
    "cut": _cut,
    "cut_json": _cut_json,
    "close": _close,
    "idle_close": _idle_close,
    "raw": _raw,
    "bomb": _bomb,
}
"""What happens below the API: gateways, captive portals, broken connections."""


def _drop(fake: FakeYouTube, items: list[Item], action: dict[str, Any]) -> list[Item]:
    return items[action.get("count", 1) :]


def _empty(fake: FakeYouTube, items: list[Item], action: dict[str, Any]) -> list[Item]:
    return []


def _shuffle(fake: FakeYouTube, items: list[Item], action: dict[str, Any]) -> list[Item]:
    return random.Random(fake.settings.seed).sample(items, len(items))


def _change(fake: FakeYouTube, items: list[Item], action: dict[str, Any]) -> list[Item]:
    """The item at `at` with these fields; a field of None is taken out."""
    at = action.get("at", 0)
    items[at] = {k: v for k, v in {**items[at], **action["item"]}.items() if v is not None}
    return items


def _add(fake: FakeYouTube, items: list[Item], action: dict[str, Any]) -> list[Item]:
    return [*items, *action["items"]]


def _twice(fake: FakeYouTube, items: list[Item], action: dict[str, Any]) -> list[Item]:
    return [*items, {**items[0], **action.get("item", {})}]


CHANGES: dict[str, Callable[[FakeYouTube, list[Item], dict[str, Any]], list[Item]]] = {
    "drop": _drop,
    "empty": _empty,
    "shuffle": _shuffle,
    "change": _change,
    "add": _add,
    "twice": _twice,
}
"""What becomes of the items of a page."""


@pytest.fixture
async def fake_youtube() -> AsyncIterator[FakeYouTube]:
    async with FakeYouTube() as fake:
        yield fake


async def _serve(asked: argparse.Namespace) -> None:
    settings = {name: value for name, value in vars(asked).items() if name != "port" and value is not None}
    async with FakeYouTube(port=asked.port, **settings) as fake:
        print(json.dumps({"port": fake.port}), flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float)
    parser.add_argument("--quota", type=int)
    parser.add_argument("--per-min", type=float)
    parser.add_argument("--key")
    parser.add_argument("--gzip", action="store_true", default=None)
    parser.add_argument("--seed", type=int)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
