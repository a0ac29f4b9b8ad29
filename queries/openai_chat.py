"""OpenAI's chat dialect: one question, one answer."""

from __future__ import annotations

import json
from collections.abc import Collection

from queries.chat import ChatAnswer, ChatRequest
from queries.errors import CatchupError, ItemPermanent, Misconfigured, Transient
from queries.openai_answers import read_answer
from queries.openai_client import OpenAIClient, Reply
from queries.openai_errors import SERVICE
from queries.openai_requests import NEW_LIMIT, OLD_LIMIT, chat_body

ANSWER_AT_MOST = 32 * 2**20


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
        self._limit_field = NEW_LIMIT

    async def ask(self, request: ChatRequest) -> ChatAnswer:
        field = self._limit_field
        reply = await self._client.post("/chat/completions", _encode(request, field))
        if reply.is_success:
            return read_answer(reply.body, reply.headers)
        said = self._client.refusal(reply, request.user)
        if isinstance(said, Misconfigured) and field == NEW_LIMIT and _wants_old_limit(reply):
            raise self._fall_back(said)
        raise said

    async def close(self) -> None:
        await self._client.close()

    def _fall_back(self, said: Misconfigured) -> CatchupError:
        """Older compatible servers know only max_tokens: learnt once, and the same item asked again."""
        self._limit_field = OLD_LIMIT
        return Transient("The server wants max_tokens; asking that way from now on.", service=SERVICE, code=said.code)


def _encode(request: ChatRequest, limit_field: str) -> bytes:
    body = chat_body(request, limit_field)
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise ItemPermanent("The item's text is not valid Unicode.", reason="not_unicode", service=SERVICE) from None


def _wants_old_limit(reply: Reply) -> bool:
    text = reply.body[:4000].decode("utf-8", "replace")
    return reply.status in (400, 422) and NEW_LIMIT in text and f"'{OLD_LIMIT}'" in text
