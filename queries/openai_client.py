"""One connection pool to a service that speaks OpenAI's dialect, with the SDK's retries and redirects switched off."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
import openai

from queries.errors import CatchupError, Gone, Misconfigured
from queries.openai_errors import SERVICE, classify, malformed

DEFAULT_BASE_URL = "https://api.openai.com/v1"
KNOWN_HOSTS = frozenset({"api.openai.com", "eu.api.openai.com", "us.api.openai.com"})
CONNECT_S = 10.0
CONNECTIONS = 1000
"""More than any pace allows: the engine decides how many requests are open, never a pool it cannot see."""

_T = TypeVar("_T")
_LOGGERS = ("openai", "httpx2", "httpcore2", "httpx", "httpcore", "aiohttp.client", "aiohttp.internal")


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """What the service answered, whatever its status; its body is printed nowhere."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class OpenAIClient:
    """`post` is exactly one HTTP request, and raises only what queries.errors names."""

    def __init__(
        self,
        api_key: str,
        base_url: str | None = None,
        *,
        timeout_s: float,
        answer_at_most: int,
        allow_hosts: Collection[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url = check_base_url(base_url or DEFAULT_BASE_URL, api_key, allow_hosts)
        self._secrets = (api_key,)
        self._timeout_s = timeout_s
        self._answer_at_most = answer_at_most
        silence_loggers()
        # The key is given here too, or an Authorization in OPENAI_CUSTOM_HEADERS would stand above it.
        self._sdk = self._open(api_key, {**(headers or {}), "Authorization": f"Bearer {api_key}"})

    async def post(self, path: str, body: bytes) -> Reply:
        """A reply of any status; an error of ours when there was none."""
        try:
            # The client's own timeouts are per read: a server that dribbles one byte a second would never meet them.
            async with asyncio.timeout(self._timeout_s):
                answer = await self._sdk.post(path, content=body, cast_to=httpx2.Response)
            return Reply(answer.status_code, answer.content, answer.headers)
        except openai.APIStatusError as refused:
            return Reply(refused.response.status_code, refused.response.content, refused.response.headers)
        except Exception as error:  # whatever the SDK raises becomes one of ours; cancellation is no Exception
            failure = error
        # Raised outside the except block: the SDK's exception holds the request, and must not hang on ours.
        if isinstance(failure, _AnswerTooLarge):
            raise malformed(f"more than {self._answer_at_most} bytes")
        raise classify(None, exception=failure, secrets=self._secrets)

    async def call(
        self, make: Callable[[openai.AsyncOpenAI], Awaitable[_T]], *, about: str = "", watch: Watch | None = None
    ) -> _T:
        """One typed request of the SDK, and of its failures only ours; `watch` ends it when nothing moves any more.

        `about` is the id of what is asked for: that it is not there is no fault of the configuration.
        """
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                if watch is not None:
                    watch.start(limit, self._timeout_s)
                return await make(self._sdk)
        except openai.APIStatusError as refused:
            reply = Reply(refused.response.status_code, await refused.response.aread(), refused.response.headers)
            failure: Exception = self.refusal(reply, "")
            if about and reply.status == 404:
                failure = Gone(f"The provider has no {about}.", service=SERVICE, code="http_404")
        except CatchupError:
            raise
        except Exception as error:  # as above
            failure = classify(None, exception=error, secrets=self._secrets)
        raise failure

    def refusal(self, reply: Reply, private: str) -> CatchupError:
        """What a reply that is no success amounts to; `private` (the text sent) is never repeated in it."""
        return classify(
            reply.status, reply.body, reply.headers, secrets=self._secrets, private=private, now_s=time.time()
        )

    async def close(self) -> None:
        await self._sdk.close()

    def _open(self, api_key: str, headers: Mapping[str, str]) -> openai.AsyncOpenAI:
        timeout = httpx2.Timeout(self._timeout_s, connect=CONNECT_S, pool=CONNECT_S)
        http = openai.DefaultAioHttpClient(
            follow_redirects=False,
            timeout=timeout,
            limits=httpx2.Limits(
                max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=30.0
            ),
            # Over plain http an environment's proxy would read the key; over https it only sees a tunnel.
            trust_env=self.base_url.startswith("https:"),
            event_hooks={"response": [self._refuse_huge]},
        )
        return openai.AsyncOpenAI(
            api_key=api_key,
            base_url=self.base_url,
            max_retries=0,
            timeout=timeout,
            http_client=http,
            default_headers=headers,
        )

    async def _refuse_huge(self, response: httpx2.Response) -> None:
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._answer_at_most:
            raise _AnswerTooLarge(length)


class Watch:
    """Time begins anew whenever bytes have moved: a large file may take an hour, a dead connection may not."""

    _limit: asyncio.Timeout | None = None
    _patience_s = 0.0

    def start(self, limit: asyncio.Timeout, patience_s: float) -> None:
        self._limit, self._patience_s = limit, patience_s

    def moved(self) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._patience_s)


class _AnswerTooLarge(ValueError):
    """The answer is larger than any answer can be."""


def check_base_url(base_url: str, api_key: str, allow_hosts: Collection[str]) -> str:
    """The address when the key may go there: https and a known host, or loopback, or a host allowed by name."""
    try:
        parts = urlsplit(base_url)
        host = (parts.hostname or "").lower()
        odd = parts.username is not None or parts.query or parts.fragment or (parts.port or 1) < 1
    except ValueError:
        host, odd, parts = "", True, urlsplit("")
    if odd or not host or parts.scheme not in ("http", "https"):
        raise Misconfigured(
            "The address of the language model is not a plain http(s) URL.",
            service=SERVICE,
            fix="Check OPENAI_BASE_URL.",
        )
    if is_loopback(host):
        return base_url.rstrip("/")
    allowed = {each.lower() for each in allow_hosts}
    if host not in KNOWN_HOSTS and host not in allowed:
        raise Misconfigured(
            f"The API key is not sent to {host}: it is not a known host.",
            service=SERVICE,
            fix=f"Add --allow-host {host}.",
        )
    if parts.scheme == "http" and (host in KNOWN_HOSTS or _is_cloud_key(api_key)):
        raise Misconfigured(
            f"A cloud key never travels over http, and {host} is asked for that way.",
            service=SERVICE,
            fix="Use https, or a key of that server's own.",
        )
    return base_url.rstrip("/")


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def silence_loggers() -> None:
    """The SDK and its transports log requests and URLs below WARNING; nobody's --verbose may turn that on."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))


def _is_cloud_key(api_key: str) -> bool:
    return api_key.startswith(("sk-", "sess-"))
