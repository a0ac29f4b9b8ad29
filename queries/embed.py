"""The one dialect for an embedding model: texts in, one vector for each of them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from queries.errors import RateLimits
from queries.record import record

# Documented by OpenAI for /v1/embeddings (docstring of its SDK 3.52, read 2026-11-21).
TEXTS_MOST = 2_048
TOKENS_MOST = 300_000
TEXT_TOKENS_MOST = 8_192


@record(frozen=True, slots=True)
class EmbedRequest:
    """`dimensions` is what the space needs; a model that cannot give it is refused before anything is paid."""

    model: str
    texts: tuple[str, ...]
    dimensions: int


@dataclass(frozen=True, slots=True)
class EmbedAnswer:
    """`vectors[i]` belongs to text i, as little-endian float32; what must not be stored is in `bad`, with why.

    Count, order, dimension and finiteness are checked here, and that no vector is all zero.
    """

    vectors: tuple[bytes, ...]
    model: str
    tokens_in: int
    bad: Mapping[int, str] = field(default_factory=dict)
    limits: RateLimits | None = None
    tokens_out: int = 0
    text: str | None = None


class Embed(Protocol):
    """A provider. `ask` makes exactly one attempt and raises only what queries.errors names."""

    name: str
    is_local: bool

    async def ask(self, request: EmbedRequest) -> EmbedAnswer: ...

    async def close(self) -> None: ...
