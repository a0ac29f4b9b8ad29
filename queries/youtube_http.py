"""The HTTP object under Google's client: one attempt, no redirect, no proxy, and the key as a header.

httplib2 0.32 sends a request again by itself when the connection closes without an answer (read 2026-11-21): a unit
that nobody booked. So the step that sends is ours, and what surrounds it is the library's; a test holds what is
relied on. The key is no part of the URL, which the SDK puts into its errors and its logs.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import httplib2

ANSWER_AT_MOST = 4 * 2**20
"""Fifty videos' statistics are 15 kB."""


class NotSent(Exception):
    """No connection could be made, so nothing was asked."""


class AnswerTooLarge(Exception):
    """The answer is larger than any answer can be."""


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """What came over the wire; its body is printed nowhere."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def at(self) -> str | None:
        """When the service says that it answered, in UTC; None where that cannot be read."""
        try:
            told = parsedate_to_datetime(self.headers.get("date", ""))
            return told.astimezone(UTC).isoformat() if told.tzinfo else None
        except (ValueError, OverflowError):
            return None


class Wire:
    """For one thread at a time. `http` is the SDK's to use; `reply` is what the latest request brought."""

    def __init__(self, api_key: str, timeout_s: float) -> None:
        self.http = _make_http(timeout_s)
        self.http.follow_redirects = False
        self.http._conn_request = self._send
        self.reply: Reply | None = None
        self._key = api_key

    def abort(self) -> None:
        """From any thread: whoever waits for this connection is woken with an error."""
        for connection in list(self.http.connections.values()):
            waiting = connection.sock
            if waiting is not None:
                with contextlib.suppress(OSError):
                    waiting.shutdown(socket.SHUT_RDWR)

    def _send(
        self, conn: Any, request_uri: str, method: str, body: Any, headers: dict[str, str]
    ) -> tuple[httplib2.Response, bytes]:
        """One attempt, in the place of the library's two."""
        self.reply = None
        try:
            if conn.sock is not None and _is_dropped(conn.sock):
                conn.close()
            if conn.sock is None:
                _connect(conn)
            conn.request(method, request_uri, body, {**headers, "x-goog-api-key": self._key})
            answer = conn.getresponse()
            content = answer.read(ANSWER_AT_MOST + 1)
            if len(content) > ANSWER_AT_MOST:
                raise AnswerTooLarge
            if answer.length:  # read(n) does not complain of an answer that was cut short
                raise http.client.IncompleteRead(b"", answer.length)
        except BaseException:
            conn.close()
            raise
        response = httplib2.Response(answer)
        content = _unpack(content, response.get("content-encoding", ""))
        self.reply = Reply(response.status, content, response)
        return response, content


def _make_http(timeout_s: float) -> Any:
    return httplib2.Http(timeout=timeout_s, proxy_info=None)


def _unpack(content: bytes, encoding: str) -> bytes:
    """A few bytes may unpack to more than there is memory."""
    if encoding.strip().lower() not in ("gzip", "deflate"):
        return content
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)  # whichever of the two it is
    whole = unpacking.decompress(content, ANSWER_AT_MOST + 1)
    if len(whole) > ANSWER_AT_MOST:
        raise AnswerTooLarge
    if not unpacking.eof:
        raise http.client.IncompleteRead(b"")
    return whole


def _connect(conn: Any) -> None:
    try:
        conn.connect()
    except Exception as error:
        raise NotSent(type(error).__name__) from error


def _is_dropped(kept: socket.socket) -> bool:
    """The server may close what it kept open for us; it has nothing to say before it is asked."""
    looking = select.poll()  # select.select takes no descriptor above 1,023
    looking.register(kept, select.POLLIN)
    return bool(looking.poll(0))
