"""OpenAI's chat dialect over its own SDK, with every retry and redirect of the SDK's switched off."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Collection
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from queries.chat import ChatAnswer, ChatRequest
from queries.errors import CatchupError, ItemPermanent, Misconfigured, Transient
from queries.openai_answers import read_answer
from queries.openai_errors import SERVICE, classify, malformed

DEFAULT_BASE_URL = "https://api.openai.com/v1"
KNOWN_HOSTS = frozenset({"api.openai.com", "eu.api.openai.com", "us.api.openai.com"})
CONNECT_S = 10.0
CONNECTIONS = 1000
"""More than any pace allows: the engine decides how many requests are open, never a pool it cannot see."""
ANSWER_AT_MOST = 32 * 2**20

_NEW_LIMIT, _OLD_LIMIT = "max_completion_tokens", "max_tokens"
_LOGGERS = ("openai", "httpx2", "httpcore2", "httpx", "httpcore", "aiohttp.client", "aiohttp.internal")


class OpenAIChat:
    """One provider: `ask` is exactly one HTTP request, and raises only what queries.errors names."""

    name = "openai"
    is_local = False

    def __init__(
        self,
        api_key: str,
        base_url: str | None = None,
        *,
        timeout_s: float = 120.0,
        allow_hosts: Collection[str] = (),
    ) -> None:
        self.base_url = check_base_url(base_url or DEFAULT_BASE_URL, api_key, allow_hosts)
        self._secrets = (api_key,)
        self._timeout_s = timeout_s
        self._limit_field = _NEW_LIMIT
        silence_loggers()
        self._client = _open_client(self.base_url, api_key, timeout_s)

    async def ask(self, request: ChatRequest) -> ChatAnswer:
        field = self._limit_field
        body = _encode(request, field)
        try:
            # The client's own timeouts are per read: a server that dribbles one byte a second would never meet them.
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.post("/chat/completions", content=body, cast_to=httpx2.Response)
        except Exception as error:  # whatever the SDK raises becomes one of ours; cancellation is no Exception
            failure = error
        else:
            return read_answer(response.content, response.headers)
        # Raised outside the except block: the SDK's exception holds the request, and must not hang on ours.
        raise self._translate(failure, request, field)

    async def close(self) -> None:
        await self._client.close()

    def _translate(self, failure: Exception, request: ChatRequest, field: str) -> CatchupError:
        if isinstance(failure, _AnswerTooLarge):
            return malformed(f"more than {ANSWER_AT_MOST} bytes")
        if not isinstance(failure, openai.APIStatusError):
            return classify(None, exception=failure, secrets=self._secrets)
        response = failure.response
        said = classify(
            response.status_code,
            response.content,
            response.headers,
            secrets=self._secrets,
            private=request.user,
            now_s=time.time(),
        )
        if isinstance(said, Misconfigured) and field == _NEW_LIMIT and _wants_old_limit(response):
            return self._fall_back(said)
        return said

    def _fall_back(self, said: Misconfigured) -> CatchupError:
        """Older compatible servers know only max_tokens: learnt once, and the same item asked again."""
        self._limit_field = _OLD_LIMIT
        return Transient("The server wants max_tokens; asking that way from now on.", service=SERVICE, code=said.code)


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


def _open_client(base_url: str, api_key: str, timeout_s: float) -> openai.AsyncOpenAI:
    http = openai.DefaultAioHttpClient(
        follow_redirects=False,
        timeout=httpx2.Timeout(timeout_s, connect=CONNECT_S, pool=CONNECT_S),
        limits=httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=30.0),
        # Over plain http an environment's proxy would read the key; over https it only sees a tunnel.
        trust_env=base_url.startswith("https:"),
        event_hooks={"response": [_refuse_huge]},
    )
    return openai.AsyncOpenAI(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,
        timeout=httpx2.Timeout(timeout_s, connect=CONNECT_S, pool=CONNECT_S),
        http_client=http,
        # Given here too, or an Authorization in OPENAI_CUSTOM_HEADERS would stand above the key.
        default_headers={"Authorization": f"Bearer {api_key}"},
    )


async def _refuse_huge(response: httpx2.Response) -> None:
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) > ANSWER_AT_MOST:
        raise _AnswerTooLarge(length)


def _encode(request: ChatRequest, limit_field: str) -> bytes:
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": "system", "content": request.system}, {"role": "user", "content": request.user}],
        limit_field: request.max_completion_tokens,
    }
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise ItemPermanent("The item's text is not valid Unicode.", reason="not_unicode", service=SERVICE) from None


def _wants_old_limit(response: httpx2.Response) -> bool:
    text = response.text[:4000]
    return response.status_code in (400, 422) and _NEW_LIMIT in text and f"'{_OLD_LIMIT}'" in text
