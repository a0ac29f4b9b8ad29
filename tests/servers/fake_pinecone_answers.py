"""What becomes of a request to the fake Pinecone, whichever road it took; and how REST says it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from aiohttp import web

from tests.servers.fake_pinecone_world import MONTHLY, PER_SECOND

Action = dict[str, Any]
Answer = tuple[dict[str, Any], dict[str, str]]


@dataclass(frozen=True)
class Call:
    """One request as both roads have it. `work` is done on the body unless a rule is in the way."""

    operation: str
    path: str
    headers: Mapping[str, str]
    read: Callable[[], Awaitable[bytes]]
    work: Callable[[bytes, Action], Answer]
    success: int = 200


@dataclass(frozen=True)
class Outcome:
    """`said`: an object is JSON, a text is itself, and bytes are a success that makes no sense."""

    status: int
    said: Any = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    end: str = ""
    """"reset": no answer but an RST; "half": in its middle comes the RST; "goaway": with it a farewell."""

    @property
    def is_html(self) -> bool:
        return isinstance(self.said, str | bytes) and self.body.lstrip().startswith(b"<")

    @property
    def body(self) -> bytes:
        if isinstance(self.said, bytes):
            return self.said
        return self.said.encode() if isinstance(self.said, str) else orjson.dumps(self.said)


CUT = Outcome(499, end="reset")


async def _ignore(action: Action) -> Outcome:
    await asyncio.sleep(action.get("seconds", 3600))
    return Outcome(504)


def _status(action: Action) -> Outcome:
    headers = {str(k): str(v) for k, v in action.get("headers", {}).items()}
    return Outcome(action["status"], action.get("body", ""), headers)


def _throttle(action: Action) -> Outcome:
    said = {"code": 8, "message": PER_SECOND, "details": []}
    return Outcome(429, said, {"retry-after": str(action.get("retry_after", 1))})


BEFORE: dict[str, Callable[[Action], Outcome]] = {
    "status": _status,
    "throttle": _throttle,
    "month": lambda _: Outcome(429, {"code": 8, "message": MONTHLY, "details": []}),
    "redirect": lambda action: Outcome(action.get("status", 307), headers={"location": action["location"]}),
    "reset_before": lambda _: CUT,
}


async def before(action: Action) -> Outcome | None:
    """Kinds that end a request before any work is done."""
    if action["kind"] == "ignore":
        return await _ignore(action)
    return BEFORE[action["kind"]](action) if action["kind"] in BEFORE else None


async def after(outcome: Outcome, action: Action) -> Outcome:
    """The work is done; what becomes of the answer?"""
    match action["kind"]:
        case "reset":
            return CUT
        case "half_body":
            return replace(outcome, status=499, end="half")
        case "goaway":
            return replace(outcome, end="goaway")
        case "hang":
            await asyncio.sleep(action.get("seconds", 3600))
        case "malformed":
            return replace(outcome, said=action.get("body", '{"upsertedCou').encode())
    return outcome


async def speak_json(request: web.Request, outcome: Outcome) -> web.StreamResponse:
    """The answer as REST gives it."""
    if outcome.end == "half":
        answer = web.StreamResponse(headers={"content-length": str(len(outcome.body) + 50)})
        await answer.prepare(request)
        await answer.write(outcome.body)
    if outcome.end in ("reset", "half"):
        cut(request.transport)
        return web.Response(status=499)
    kind = "application/json"
    if isinstance(outcome.said, str):
        kind = "text/html" if outcome.is_html else "text/plain"
    whole = web.Response(body=outcome.body, status=outcome.status, content_type=kind, headers=outcome.headers)
    if outcome.end == "goaway":
        whole.force_close()
    return whole


def cut(transport: asyncio.BaseTransport | None) -> None:
    """Reset the connection the hard way: RST, not FIN."""
    if isinstance(transport, asyncio.Transport):
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
