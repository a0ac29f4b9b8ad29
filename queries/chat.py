"""The one dialect for a language model: what is asked, what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from queries.errors import RateLimits


@dataclass(frozen=True, slots=True)
class ChatRequest:
    model: str
    system: str
    user: str
    max_completion_tokens: int


@dataclass(frozen=True, slots=True)
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
