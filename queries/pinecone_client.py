"""Pinecone's own asyncio clients, with what they do on their own initiative switched off.

The clients' retries are wanted nowhere, and the data plane's cannot be configured: `AsyncIndex` takes no RetryConfig
(10.2.0, read 2026-11-21). Their transport is made at the first request from a configuration that is replaced before it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import orjson
from pinecone import AsyncIndex, AsyncPinecone, RetryConfig
from pinecone.errors.exceptions import ApiError

from queries.errors import CatchupError, RunFatal, Transient
from queries.pinecone_errors import SERVICE, classify, malformed, worst
from queries.pinecone_grpc import UpsertChannel
from queries.pinecone_hosts import CONTROLLER, check_host, check_key

AT_ONCE = 8
CONNECT_S = 10.0
CONNECTIONS = 40
"""Half of them are kept open between requests."""
ANSWER_AT_MOST = 64 * 2**20
"""A fetch of a hundred of the longest vectors is under 50 MB."""

_LOGGERS = ("pinecone", "httpx", "httpcore")
_JSON = {"Content-Type": "application/json"}
_NO_RETRIES = RetryConfig(max_retries=0)

T = TypeVar("T")


class PineconeClient:
    """The connections to one index and to the control plane, a few requests at a time on all of them."""

    def __init__(
        self,
        api_key: str,
        *,
        index: str,
        index_host: str | None,
        controller_host: str | None,
        allow_hosts: Collection[str],
        timeout_s: float,
    ) -> None:
        check_key(api_key)
        self.timeout_s = timeout_s
        self.host = check_host(index_host, api_key, allow_hosts) if index_host else None
        self._key, self._name, self._allow_hosts = api_key, index, allow_hosts
        self._controller_host = check_host(controller_host or CONTROLLER, api_key, allow_hosts)
        self._controller: AsyncPinecone | None = None
        self._index: AsyncIndex | None = None
        self._address = ""
        self._opening, self._slots = asyncio.Lock(), asyncio.Semaphore(AT_ONCE)
        silence_loggers()

    async def index(self) -> AsyncIndex:
        """The data plane of the index; without a host of ours the control plane is asked for it once."""
        async with self._opening:
            if self._index is None:
                self._address = self.host or await self._find_host()
                self._index = self._open_index(self._address)
            return self._index

    async def may_speak_grpc(self) -> bool:
        """A server that keeps its indexes under paths does not: gRPC's paths begin at the root."""
        await self.index()
        return urlsplit(self._address).path in ("", "/")

    async def open_channel(self) -> UpsertChannel:
        """The caller's to close."""
        await self.index()
        return UpsertChannel(self._address, self._key)

    def controller(self) -> AsyncPinecone:
        if self._controller is None:
            self._controller = AsyncPinecone(
                api_key=self._key,
                host=self._controller_host,
                additional_headers={"Api-Key": self._key},
                timeout=self.timeout_s,
                retry_config=_NO_RETRIES,
            )
            _tame(self._controller)
        return self._controller

    async def ask(self, call: Callable[[], Awaitable[T]], *, writing: bool = False, wait_s: float = CONNECT_S) -> T:
        """One request; whatever the client raises becomes one of ours, and cancellation is no Exception."""
        try:
            # The client's own timeouts are per read: a server that dribbles would never meet them.
            async with self._slots, asyncio.timeout(self.timeout_s + wait_s):
                return await call()
        except Exception as error:
            said = self._translate(error, writing)
        # Raised outside the except block: the SDK's exception holds the request, and must not hang on ours.
        raise said

    async def post(self, path: str, body: bytes) -> httpx.Response:
        """A body of our own making. The client's methods take none, so its transport is used, with its key and pool."""
        post = (await self.index())._http.post
        timeout = httpx.Timeout(self.timeout_s, connect=min(CONNECT_S, self.timeout_s))
        return await self.ask(lambda: post(path, content=body, headers=dict(_JSON), timeout=timeout), writing=True)

    async def close(self) -> None:
        for each in (self._index, self._controller):
            if each is not None:
                await each.close()
        self._index = self._controller = None

    def _open_index(self, host: str) -> AsyncIndex:
        index = AsyncIndex(
            host=host,
            api_key=self._key,
            # Given here too, or an Api-Key in PINECONE_ADDITIONAL_HEADERS would stand above it.
            additional_headers={"Api-Key": self._key},
            timeout=self.timeout_s,
            connection_pool_maxsize=CONNECTIONS,
        )
        _tame(index)
        return index

    async def _find_host(self) -> str:
        told = await self.ask(lambda: self.controller().indexes.describe(self._name))
        if told.host is None or not told.status.ready:
            raise Transient(f"The index {self._name} is not ready yet.", service=SERVICE, code="not_ready")
        return check_host(told.host, self._key, self._allow_hosts)

    def _translate(self, error: Exception, writing: bool) -> CatchupError:
        if isinstance(error, CatchupError):
            return error
        if isinstance(error, _AnswerTooLarge):
            return malformed("it is larger than an answer can be")
        if not isinstance(error, ApiError):
            return classify(None, exception=error)
        body = error.message if error.body is None else orjson.dumps(error.body)
        status, headers = error.status_code, error.headers
        return classify(status, body, headers, secrets=(self._key,), writing=writing, now_s=time.time())


class _AnswerTooLarge(ValueError):
    """The answer is larger than any answer can be."""


async def unless(codes: Collection[str], asking: Awaitable[T]) -> T | None:
    """The answer, or None when it was a refusal of one of these codes."""
    try:
        return await asking
    except (RunFatal, Transient) as refusal:
        if refusal.code not in codes:
            raise
        return None


async def all_of(work: Iterable[Awaitable[T]]) -> list[T]:
    """All of them to their end, then the worst failure: the client's slots bound how many go at once."""
    found: list[Any] = await asyncio.gather(*work, return_exceptions=True)
    failures = [each for each in found if isinstance(each, BaseException)]
    if failures:
        ours = [each for each in failures if isinstance(each, CatchupError)]
        raise worst(ours) if len(ours) == len(failures) else next(each for each in failures if each not in ours)
    return found


def silence_loggers() -> None:
    """The SDK and its transport log requests below WARNING; nobody's --verbose may turn that on."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))


def _tame(client: AsyncIndex | AsyncPinecone) -> None:
    """One attempt is one request, and no answer is read that is larger than an answer can be."""
    http = client._http  # there is no public way (see above); a test holds what is relied on
    http._config = replace(http._config, retry_config=_NO_RETRIES)
    http._ensure_client().event_hooks = {"response": [_refuse_huge]}


async def _refuse_huge(response: httpx.Response) -> None:
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) > ANSWER_AT_MOST:
        raise _AnswerTooLarge(length)
