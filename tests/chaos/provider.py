"""The fake OpenAI as the witness: it keeps every request with its times, and changes rows or kills while one is open.

python -m tests.chaos.provider (prints its port; driven over /__chaos/ by tests.chaos.witness)
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg
from aiohttp import web

from tests.servers.fake_embeddings import Asked, meant
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.fake_script import Meeting, Rule
from tests.servers.fake_world import World

_LONG_AGO_S = 3_600.0
VIDEOS_LIST = "/youtube/v3/videos"


def told_of(video_id: str, kind: str) -> tuple[int, int | None, int | None]:
    """What YouTube says of a video, here and in the eyes of the judge."""
    views = zlib.crc32(video_id.encode()) + 1
    return views, None if kind == "hidden" else views // 50, None if kind == "hidden" else views // 900


@dataclass(slots=True)
class Request:
    """One request as the provider saw it; `status` 0 is one whose client was gone before the answer.

    `units` are what it was paid for: its item, or each of its texts; `spoilt` those it answered badly on purpose.
    """

    at: float
    item: str = "?"
    kind: str = ""
    paid: bool = False
    text: str = ""
    left_at: float | None = None
    status: int = 0
    units: list[str] = field(default_factory=list)
    spoilt: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Strike:
    """A signal that the provider itself sends: it alone knows what is open at that instant."""

    pgid: int
    signal: int
    arrivals_left: int
    delay_s: float
    at: float | None = None
    handle: int = -1
    """On the very process: its number may be another's by the time of the strike."""


@dataclass(slots=True)
class Mischief:
    """What happens to the rows in the database while the run is asking about them, once each."""

    dsn: str = ""
    statements: dict[str, str] = field(default_factory=dict)


class Records(World):
    """The bill and, beside it, every request that made it."""

    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self.all: list[Request] = []
        self._witness = witness
        self._mine: dict[asyncio.Task[Any] | None, Request] = {}
        self._live: set[asyncio.Task[Any] | None] = set()

    def mine(self) -> Request:
        return self._mine[asyncio.current_task()]

    def enter(self) -> None:
        super().enter()
        self._live.add(asyncio.current_task())
        self._begin()

    def _begin(self) -> Request:
        self._mine[asyncio.current_task()] = found = Request(time.monotonic())
        self.all.append(found)
        return found

    def admit(self, item: str) -> tuple[int, int, int]:
        if asyncio.current_task() not in self._live:  # a line of a file: nobody waits for it, so it is in no flight
            line = self._begin()
            line.left_at, line.status = line.at - _LONG_AGO_S, 200
        self.mine().item = item
        return super().admit(item)

    def bill(self, item: str, tokens_in: int, tokens_out: int, usd: float) -> None:
        super().bill(item, tokens_in, tokens_out, usd)
        mine = self.mine()
        mine.paid, mine.units = True, [item]
        self._witness.arrived([item])

    def bill_texts(self, items: Sequence[str], tokens: int, usd: float) -> None:
        super().bill_texts(items, tokens, usd)
        self.mine().paid = True
        self._witness.arrived(items)

    def leave(self, item: str, status: int) -> None:
        super().leave(item, status)
        self._live.discard(asyncio.current_task())
        mine = self.mine()
        mine.left_at, mine.status = time.monotonic(), status


class Witness(FakeOpenAI):
    """The fake, with a memory of times and the means to interfere."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.mischief = Mischief()
        self.strike: Strike | None = None
        self.world = Records(self)

    def reset(self) -> None:
        super().reset()
        self.world = Records(self)
        self.mischief = Mischief()
        self.arm(None)

    def arrived(self, items: Sequence[str]) -> None:
        for item in items:
            self._meddle(item)
        strike = self.strike
        if strike is not None and strike.arrivals_left > 0:
            strike.arrivals_left -= 1
            if strike.arrivals_left == 0:
                asyncio.get_running_loop().call_later(strike.delay_s, self._strike, strike)

    def _meddle(self, item: str) -> None:
        statement = self.mischief.statements.pop(item, None)
        if statement:
            with psycopg.connect(self.mischief.dsn, autocommit=True, application_name="world") as connection:
                connection.execute("set lock_timeout = '3s'")
                connection.execute(statement.encode(), [item])

    def _strike(self, strike: Strike) -> None:
        at = time.monotonic()
        try:
            signal.pidfd_send_signal(strike.handle, 0)
            os.killpg(strike.pgid, strike.signal)
        except ProcessLookupError:
            return
        strike.at = at

    def arm(self, strike: Strike | None) -> None:
        if self.strike is not None:
            self.strike.arrivals_left = 0
            os.close(self.strike.handle)
        self.strike = strike
        if strike is not None:
            strike.handle = os.pidfd_open(strike.pgid)

    def _text(self, action: dict[str, Any], user: str, met: Meeting, body: dict[str, Any] | None = None) -> str:
        text = super()._text(action, user, met, body)
        assert isinstance(self.world, Records)
        mine = self.world.mine()
        mine.text, mine.kind = text, action["kind"]
        mine.spoilt = [mine.item] if mine.kind == "malformed" else []
        return text

    async def _answer_texts(
        self, request: web.Request, world: World, asked: Asked, body: dict[str, Any]
    ) -> web.StreamResponse:
        assert isinstance(self.world, Records)
        self.world.mine().units = asked.texts
        return await super()._answer_texts(request, world, asked, body)

    def _write_texts(self, asked: Asked, rule: Rule | None) -> bytes:
        assert isinstance(self.world, Records)
        if rule is not None:
            self.world.mine().spoilt = [asked.texts[place] for place in meant(asked, rule, rule.action)]
        return super()._write_texts(asked, rule)

    async def _unknown(self, request: web.Request) -> web.Response:
        """The harness's own paths; anything else is as unknown as before."""
        if request.path == VIDEOS_LIST:
            return await self._list_videos(request)
        what = request.path.removeprefix("/__chaos/")
        body = await request.json() if request.can_read_body else {}
        if what == "mischief":
            self.mischief = Mischief(**body)
        elif what == "strike":
            self.arm(Strike(**body) if body else None)
        elif what != "records":
            return await super()._unknown(request)
        return web.json_response(self._told())

    async def _list_videos(self, request: web.Request) -> web.Response:
        """YouTube, so far as a kill can tell: a unit for each request on arrival, and its videos' counts."""
        assert isinstance(self.world, Records)
        ids = request.query["id"].split(",")
        self.world.enter()
        mine = self.world.mine()
        mine.paid, mine.units, status = True, ids, 0
        try:
            self.arrived(ids)
            await asyncio.sleep(self.settings.latency)
            status = 200
        finally:
            self.world.leave("videos", status)
        kinds = {id_: self._kind_of(id_) for id_ in ids}
        items = [_item(id_, kind) for id_, kind in kinds.items() if kind != "gone"]
        return web.json_response({"kind": "youtube#videoListResponse", "items": items})

    def _kind_of(self, id_: str) -> str:
        met = Meeting(1, id_, 1, 1)
        return next((str(r.action["kind"]) for r in self.rules if r.meets(self.settings.seed, met)), "")

    def _told(self) -> dict[str, Any]:
        assert isinstance(self.world, Records)
        return {
            "requests": [asdict(each) for each in self.world.all],
            "bill_usd": self.world.bill_usd,
            "open": self.world.open,
            "struck_at": self.strike.at if self.strike else None,
        }


def _item(id_: str, kind: str) -> dict[str, Any]:
    views, likes, comments = told_of(id_, kind)
    counts = {"viewCount": views, "likeCount": likes, "commentCount": comments}
    told = {name: str(count) for name, count in counts.items() if count is not None and kind != "uncounted"}
    return {"kind": "youtube#video", "id": id_, "statistics": told}


async def serve() -> None:
    async with Witness(latency=0.03, jitter=0.03, vary=True) as fake:
        print(json.dumps({"port": fake.port}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
