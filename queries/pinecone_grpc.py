"""Pinecone's gRPC, of which one call is used: the C core sends records as they lie in memory, outside of Python's lock.

Bytes go in and come out, so that nothing generated is needed. Of an installation without the package, a server that
speaks no gRPC and a proxy that does not let it through the caller makes the same: it takes REST.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
from pinecone._internal.constants import API_VERSION_HEADER, DATA_PLANE_API_VERSION

from queries.errors import CatchupError, Misconfigured
from queries.pinecone_errors import SERVICE, classify, malformed, unanswered, unreachable

if TYPE_CHECKING:
    from grpc.aio import AioRpcError, Channel

UPSERT = "/VectorService/Upsert"
CONNECT_MS = 5_000

# Read once, when the package is loaded. Its C core writes to stderr, under the screen, and wants to be told of forks.
_QUIET = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"}
_OPTIONS = (
    # Nobody but the index is asked how to call it, and its key passes no proxy, as by REST. One attempt is one request:
    # without a policy all that is sent again is what a server has not looked at as it takes its leave (GOAWAY), which
    # wants the whole request kept until then.
    ("grpc.enable_retries", 1),
    ("grpc.per_rpc_retry_buffer_size", 2_100_000),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # The caller waits between attempts; this waits only as long as it must. "min" is how long one attempt may last.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
    # What was sent and is not acknowledged after twenty seconds was sent into a dead connection.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_receive_message_length", 65_536),
)
# The HTTP status that each code stands for, so that what a refusal means is said in one place, for both roads.
_STATUS = {
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 503,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}
# The C core's own words (1.85): nothing but them tells a status it made up from one that the service sent.
_NO_GRPC = re.compile(r"Received http2 header with status: (\d{3})")
_NEVER_SENT = re.compile(r"failed to connect to all addresses|errors resolving |DNS resolution failed", re.I)
_CUT_OFF = re.compile(r"^Stream removed|^Socket closed|Connection reset by peer|Broken pipe|GOAWAY", re.I)
_ANSWER_TOO_LARGE = re.compile(r"CLIENT: Received message larger than max", re.I)
_REQUEST_TOO_LARGE = re.compile(r"message larger than max", re.I)


class UpsertChannel:
    """One connection, made when it is needed and again when it is lost. `address` has been checked for the key."""

    def __init__(self, address: str, api_key: str) -> None:
        self._key = api_key
        self._channel = _open_channel(address)
        self._call = self._channel.unary_unary(UPSERT)
        self._metadata = (("api-key", api_key), (API_VERSION_HEADER.lower(), DATA_PLANE_API_VERSION))

    async def upsert(self, body: bytes, timeout_s: float) -> tuple[bytes, dict[str, str]]:
        """The answer and its headers; the deadline holds for connecting too."""
        from grpc.aio import AioRpcError  # noqa: PLC0415 - loaded with the channel

        call = self._call(body, timeout=timeout_s, metadata=self._metadata)
        try:
            answer = await call
            if answer is None:  # OK, and no message
                raise malformed("it counts no records")
            return answer, _read_headers(await call.initial_metadata(), await call.trailing_metadata())
        except AioRpcError as error:
            said = self._translate(error)
        # Raised outside the except block: the call holds the request, and must not hang on ours.
        raise said

    async def close(self) -> None:
        await self._channel.close()

    def _translate(self, error: AioRpcError) -> CatchupError:
        headers = _read_headers(error.initial_metadata(), error.trailing_metadata())
        return classify_call(error.code().name, error.details() or "", headers, key=self._key)


def _open_channel(address: str) -> Channel:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import grpc.aio  # noqa: PLC0415 - 0.1 s, wanted only by a run that stores in Pinecone
    except ImportError:
        what, fix = "The package grpcio cannot be loaded.", "Install it, or set PINECONE_GRPC=off."
        raise Misconfigured(what, service=SERVICE, code="grpcio", fix=fix) from None
    parts = urlsplit(address)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    if parts.scheme == "https":
        secure = grpc.ssl_channel_credentials()
        return grpc.aio.secure_channel(f"dns:///{host}:{parts.port or 443}", secure, options=_OPTIONS)
    return grpc.aio.insecure_channel(f"dns:///{host}:{parts.port or 80}", options=_OPTIONS)


def classify_call(code: str, words: str, headers: Mapping[str, str], *, key: str = "") -> CatchupError:
    """The one error that a status other than OK amounts to."""
    if code == "UNAVAILABLE" and _NEVER_SENT.search(words):
        return unreachable(code)
    if code == "UNAVAILABLE" and _CUT_OFF.search(words):
        return unanswered(code)
    if _ANSWER_TOO_LARGE.search(words):
        return malformed("it is larger than an answer can be")
    status = _STATUS.get(code, 500)
    if found := _NO_GRPC.search(words):
        status = int(found[1])  # of something in between that speaks plain HTTP
    elif _REQUEST_TOO_LARGE.search(words):
        status = 413
    body = orjson.dumps({"message": words.encode("utf-8", "replace").decode()})
    return classify(status, body, headers, secrets=(key,), writing=True, now_s=time.time())


def _read_headers(*metadata: Any) -> dict[str, str]:
    """All that was said beside the answer, in the names that HTTP has for it."""
    found = {name: value for some in metadata if some for name, value in some if isinstance(value, str)}
    if "grpc-retry-pushback-ms" in found:
        found.setdefault("retry-after-ms", found["grpc-retry-pushback-ms"])
    return found
