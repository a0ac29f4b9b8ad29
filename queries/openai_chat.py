"""OpenAI's chat dialect: one question, one answer."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from queries.chat import ChatAnswer, ChatRequest
from queries.errors import CatchupError, ItemPermanent, Misconfigured, Transient
from queries.openai_answers import read_answer
from queries.openai_client import OpenAIClient, Reply
from queries.openai_errors import SERVICE

ANSWER_AT_MOST = 32 * 2**20

_NEW_LIMIT, _OLD_LIMIT = "max_completion_tokens", "max_tokens"


class OpenAIChat:
    """One provider: `ask` is exactly one HTTP request, and raises only what queries.errors names."""

    name = "openai"
    is_local = False
    note = ""

    def __init__(
        self,
        api_key: str,
        base_url: str | None = None,
        *,
        timeout_s: float = 120.0,
        allow_hosts: Collection[str] = (),
    ) -> None:
        self._client = OpenAIClient(
            api_key, base_url, timeout_s=timeout_s, answer_at_most=ANSWER_AT_MOST, allow_hosts=allow_hosts
        )
        self.base_url = self._client.base_url
        self._limit_field = _NEW_LIMIT

    async def ask(self, request: ChatRequest) -> ChatAnswer:
        field = self._limit_field
        reply = await self._client.post("/chat/completions", _encode(request, field))
        if reply.is_success:
            return read_answer(reply.body, reply.headers)
        said = self._client.refusal(reply, request.user)
        if isinstance(said, Misconfigured) and field == _NEW_LIMIT and _wants_old_limit(reply):
            raise self._fall_back(said)
        raise said

    async def close(self) -> None:
        await self._client.close()

    def _fall_back(self, said: Misconfigured) -> CatchupError:
        """Older compatible servers know only max_tokens: learnt once, and the same item asked again."""
        self._limit_field = _OLD_LIMIT
        return Transient("The server wants max_tokens; asking that way from now on.", service=SERVICE, code=said.code)


def write_body(request: ChatRequest, limit_field: str = _NEW_LIMIT) -> dict[str, Any]:
    """The request as the service's JSON."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": "system", "content": request.system}, {"role": "user", "content": _show(request)}],
        limit_field: request.max_completion_tokens,
    }
    if request.schema is not None:
        shape = {"name": request.schema.name, "strict": True, "schema": request.schema.body}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    return body


def _show(request: ChatRequest) -> str | list[dict[str, Any]]:
    if not request.image_url:
        return request.user
    image = {"url": request.image_url, "detail": request.detail}
    return [{"type": "text", "text": request.user}, {"type": "image_url", "image_url": image}]


def _encode(request: ChatRequest, limit_field: str) -> bytes:
    body = write_body(request, limit_field)
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise ItemPermanent("The item's text is not valid Unicode.", reason="not_unicode", service=SERVICE) from None


def _wants_old_limit(reply: Reply) -> bool:
    text = reply.body[:4000].decode("utf-8", "replace")
    return reply.status in (400, 422) and _NEW_LIMIT in text and f"'{_OLD_LIMIT}'" in text
