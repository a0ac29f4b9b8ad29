"""The one dialect for a language model: what is asked, what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from queries.errors import RateLimits
from queries.record import record


@dataclass(frozen=True, slots=True)
class Schema:
    """What a structured answer looks like: a JSON schema, and the name the service knows it by."""

    name: str
    body: Mapping[str, Any]


@record(frozen=True, slots=True)
class ChatRequest:
    """`image_url` is shown with the user's text, in this `detail` (low or high): the service fetches it, not we."""

    model: str
    system: str
    user: str
    max_completion_tokens: int
    image_url: str = ""
    detail: str = "low"
    schema: Schema | None = None


@record(frozen=True, slots=True)
class ChatAnswer:
    """A well-formed answer, good or not: whether its text may be stored is the job's judgement."""

    text: str | None
    finish_reason: str
    refusal: str | None
    model: str
    tokens_in: int
    tokens_out: int
    limits: RateLimits | None = None


class Chat(Protocol):
    """A provider. `ask` makes exactly one attempt and raises only what queries.errors names."""

    name: str
    is_local: bool

    async def ask(self, request: ChatRequest) -> ChatAnswer: ...

    async def close(self) -> None: ...
