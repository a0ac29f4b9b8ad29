"""A server's side of HTTP/2 on h2, and the door that lets both kinds of HTTP in at one port.

Every frame but the bodies' goes through h2. One of 16 kB costs it 30 us, which is 5 us a record of an upsert, so
that the payload of DATA is taken off here, with windows of our own, and h2 is told of empty bodies.
"""

from __future__ import annotations

import asyncio
import struct
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aiohttp.web_protocol import RequestHandler
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

Pairs = Sequence[tuple[str, str]]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 4 * 2**20
FIRST_WINDOW = 65_535
"""What a connection has before anything is granted (RFC 9113, 6.9.2); no setting changes it."""
_HEAD = struct.Struct(">HBBBL")
_DATA, _GOAWAY, _WINDOW_UPDATE = 0x0, 0x7, 0x8
_ENDED, _PADDED = 0x1, 0x8


class Stream:
    """One request: its headers, a body that comes in time, and the way back."""

    def __init__(self, connection: Http2, id_: int, headers: dict[str, str]) -> None:
        self.id, self.headers, self._connection = id_, headers, connection
        self.parts: list[bytes] = []
        self.unread = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def transport(self) -> asyncio.Transport:
        return self._connection.transport

    async def read(self) -> bytes:
        await self.ended
        return b"".join(self.parts)

    def send(self, headers: Pairs, body: bytes = b"", trailers: Pairs = ()) -> None:
        """A whole answer."""
        self._queue(headers, body, end=not trailers)
        if trailers:
            self._connection.h2.send_headers(self.id, list(trailers), end_stream=True)
        self._connection.flush()

    def say_goodbye(self) -> None:
        """A server about to leave: what is on its way is still answered, the rest goes over another connection."""
        self.transport.write(_HEAD.pack(0, 8, _GOAWAY, 0, 0) + (2**31 - 1).to_bytes(4, "big") + b"\0\0\0\0")

    def begin(self, headers: Pairs, body: bytes) -> None:
        """An answer whose end is not to come."""
        self._queue(headers, body, end=False)
        self._connection.flush()

    def _queue(self, headers: Pairs, body: bytes, *, end: bool) -> None:
        self._connection.h2.send_headers(self.id, list(headers), end_stream=end and not body)
        if body:
            self._connection.h2.send_data(self.id, body, end_stream=end)


Handle = Callable[[Stream], Coroutine[Any, Any, None]]


class Http2(asyncio.Protocol):
    """Each request runs `handle` in a task of its own, which ends with the stream or the connection."""

    transport: asyncio.Transport

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        limits = {SettingCodes.INITIAL_WINDOW_SIZE: WINDOW, SettingCodes.MAX_CONCURRENT_STREAMS: 100}
        self.h2.local_settings = Settings(client=False, initial_values=limits)
        self._streams: dict[int, tuple[Stream, asyncio.Task[None]]] = {}
        self._rest, self._unread, self._greeted = b"", 0, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()
        self._grant(0, WINDOW - FIRST_WINDOW)

    def connection_lost(self, _: BaseException | None) -> None:
        for _stream, task in self._streams.values():
            task.cancel()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at = 0
        if not self._greeted and len(data) >= len(PREFACE):
            self._greeted, at = True, len(PREFACE)
            self._control(data[:at])
        while self._greeted and at + 9 <= len(data):
            high, low, kind, flags, stream_id = _HEAD.unpack_from(data, at)
            end = at + 9 + (high << 8 | low)
            if end > len(data):
                break
            if kind == _DATA:
                self._take(stream_id, flags, data[at + 9 : end])
            else:
                self._control(data[at:end])
            at = end
        self._rest = data[at:]

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def _take(self, stream_id: int, flags: int, payload: bytes) -> None:
        """Part of a body. Windows are opened again when half of them is used up."""
        self._unread += len(payload)
        if self._unread >= WINDOW // 2:
            self._grant(0, self._unread)
            self._unread = 0
        if stream_id not in self._streams:
            return  # reset by one of us, and this was on its way
        stream, _ = self._streams[stream_id]
        stream.unread += len(payload)
        stream.parts.append(payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload)
        if flags & _ENDED:
            self._control(_HEAD.pack(0, 0, _DATA, _ENDED, stream_id))
        elif stream.unread >= WINDOW // 2:
            self._grant(stream_id, stream.unread)
            stream.unread = 0

    def _grant(self, stream_id: int, more: int) -> None:
        self.transport.write(_HEAD.pack(0, 4, _WINDOW_UPDATE, 0, stream_id) + more.to_bytes(4, "big"))

    def _control(self, frame: bytes) -> None:
        try:
            for event in self.h2.receive_data(frame):
                self._meet(event)
        except ProtocolError:
            self.transport.close()
        self.flush()

    def _meet(self, event: Event) -> None:
        match event:
            case RequestReceived():
                headers = {str(name): str(value) for name, value in event.headers}
                stream = Stream(self, event.stream_id, headers)
                task = asyncio.ensure_future(self._handle(stream))
                self._streams[stream.id] = stream, task
                task.add_done_callback(lambda done: self._finish(stream.id, done))
            case StreamEnded() if event.stream_id in self._streams:
                self._streams[event.stream_id][0].ended.set_result(None)
            case StreamReset() if event.stream_id in self._streams:
                self._streams[event.stream_id][1].cancel()

    def _finish(self, stream_id: int, task: asyncio.Future[None]) -> None:
        del self._streams[stream_id]
        if not task.cancelled() and task.exception():
            self.transport.abort()  # a fault of our own: nobody shall wait for it
            task.result()


class Door:
    """One listening port for both. `mood` is asked at each connection: "on", "off" (HTTP/1.1 only) or "mute"."""

    def __init__(
        self,
        http1: Callable[[], asyncio.Protocol],
        handle: Handle,
        mood: Callable[[], str],
    ) -> None:
        self.http1, self.mood, self._handle = http1, mood, handle
        self._open: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def open(self, port: int) -> int:
        """The port it listens at."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Visitor(self), "127.0.0.1", port, backlog=4096)
        return int(self._server.sockets[0].getsockname()[1])

    def http2(self) -> asyncio.Protocol:
        """aiohttp would refuse it as well, and log the bytes."""
        strange = {"mute": asyncio.Protocol, "off": _Http1Only}.get(self.mood())
        return strange() if strange else Http2(self._handle)

    def let_in(self, transport: asyncio.Transport) -> None:
        self._open.add(transport)

    def close(self) -> None:
        """Nobody comes in any more, and those of HTTP/2 are thrown out; aiohttp sees its own ones out."""
        self._server.close()
        for each in list(self._open):
            if not isinstance(each.get_protocol(), RequestHandler):
                each.abort()


class _Http1Only(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        transport.close()


class _Visitor(asyncio.Protocol):
    """Handed on at the first bytes, as they tell which HTTP it speaks."""

    transport: asyncio.Transport

    def __init__(self, door: Door) -> None:
        self._door, self._seen = door, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._door.let_in(transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        new = self._seen.startswith(PREFACE[:3])
        if not new and PREFACE.startswith(self._seen):
            return
        room = self._door.http2() if new else self._door.http1()
        self.transport.set_protocol(room)
        room.connection_made(self.transport)
        room.data_received(self._seen)
