"""A reverse proxy that does to an HTTP service what gateways, networks and tired databases do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
import pytest
from aiohttp import web

# A gateway's own page: what Cloudflare answers for a project that is asleep or overloaded.
HTML = "<html><body><h1>522 Connection timed out</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the `nth` request whose path contains `path`, and to `times - 1` more after it.

    answer: this status and body, the service never sees the request. cut: the service's own answer, half of it.
    lost: the service does it, the answer never arrives. reset: the connection ends before the service sees anything.
    hang: nothing happens until the client gives up. delay: the right answer, `seconds` later.
    """

    path: str = "/"
    kind: Literal["answer", "cut", "lost", "reset", "hang", "delay"] = "answer"
    nth: int = 1
    times: int = 1
    status: int = 200
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class FaultProxy:
    """`requests` is everything that came in; `forwarded` counts what went on to the service."""

    upstream: str
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    forwarded: int = 0
    _faults: list[tuple[Fault, list[int]]] = field(default_factory=list)
    _session: aiohttp.ClientSession | None = None

    def inject(self, fault: Fault) -> None:
        self._faults.append((fault, [0]))

    def clear(self) -> None:
        self._faults.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(Request(request.method, request.path_qs, dict(request.headers), body))
        fault = self._due(request.path)
        if fault is None:
            return await self._forward(request, body)
        match fault.kind:
            case "answer":
                return web.Response(
                    status=fault.status, text=fault.body, headers=dict(fault.headers), content_type=fault.content_type
                )
            case "cut":
                whole = await self._forward(request, body)
                half = whole.body if isinstance(whole.body, bytes) else b""
                return web.Response(status=whole.status, body=half[: len(half) // 2], content_type="application/json")
            case "lost":
                await self._forward(request, body)
                return _hang_up(request)
            case "reset":
                return _hang_up(request)
            case "hang":
                await asyncio.sleep(3600)
            case "delay":
                await asyncio.sleep(fault.seconds)
        return await self._forward(request, body)

    def _due(self, path: str) -> Fault | None:
        for fault, seen in self._faults:
            if fault.path in path:
                seen[0] += 1
                if fault.nth <= seen[0] < fault.nth + fault.times:
                    return fault
        return None

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        self.forwarded += 1
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=True)
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in ("host", "accept-encoding")
        }
        async with self._session.request(
            request.method, self.upstream + request.path_qs, headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            kept = {n: v for n, v in answer.headers.items() if n.lower() not in ("content-length", "transfer-encoding")}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


StartFaultProxy = Callable[[str], Awaitable[FaultProxy]]


@pytest.fixture
async def start_fault_proxy() -> AsyncIterator[StartFaultProxy]:
    """`await start_fault_proxy(url)` stands before the service at `url`, on a loopback port of its own."""
    async with AsyncExitStack() as stack:

        async def start(upstream: str) -> FaultProxy:
            proxy = FaultProxy(upstream)
            app = web.Application(client_max_size=64 * 2**20)
            app.router.add_route("*", "/{anything:.*}", proxy.handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            stack.push_async_callback(proxy.close)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            proxy.url = f"http://{host}:{port}"
            return proxy

        yield start
