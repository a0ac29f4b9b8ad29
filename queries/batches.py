"""A provider that works through whole files within a day, at half the price: what is handed in, what comes back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

# Documented by OpenAI for /v1/batches (docstrings of batch_create_params.py in its SDK 3.52, read 2026-11-21).
REQUESTS_MOST = 50_000
BYTES_MOST = 200 * 10**6
"""200 MB: the smaller reading of the word, since the other one is refused."""
INPUTS_MOST = 50_000
"""Embedding inputs in all requests of one batch together."""
KEPT_DAYS = 30
"""How long the provider keeps a batch's files, unless told otherwise."""

Endpoint = Literal["/v1/chat/completions", "/v1/embeddings"]
Progress = Callable[[int, int], None]
"""Bytes so far, and bytes in all (0 while that is not known)."""

CHAT: Endpoint = "/v1/chat/completions"
EMBED: Endpoint = "/v1/embeddings"

VALIDATING = "validating"
IN_PROGRESS = "in_progress"
FINALIZING = "finalizing"
CANCELLING = "cancelling"
ENDED = frozenset({"failed", "completed", "expired", "cancelled"})
"""Nothing more will come; any other state, known or not, is one in which something may."""


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """What the provider says of a batch; its counts are told, never believed (UPSTREAMS B6). Times are Unix seconds."""

    id: str
    status: str
    input_file_id: str
    endpoint: str = ""
    model: str = ""
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    created_at: int | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    """When it ended, whichever the end was."""
    expires_at: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[tuple[str, str], ...] = ()
    """Codes and messages, without secrets."""

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class Downloaded:
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """What a refusal tells of the organisation's enqueued tokens; `enqueued` is what it says is there, if it does."""

    limit: int
    enqueued: int | None = None


class Batches(Protocol):
    """A provider. Each of these is one attempt, and raises only what queries.errors names.

    A file or batch that is not there is `Gone`, which while polling may pass (UPSTREAMS B12).
    """

    name: str

    async def upload(self, path: Path, name: str, on_bytes: Progress | None = None) -> str:
        """The id of the file that now has this name and these bytes. UnknownOutcome: look for it by its name."""
        ...

    async def find_file(self, name: str, size: int | None = None) -> str | None:
        """The newest input file of exactly this name, and of this size in bytes where one is given."""
        ...

    async def create(self, file_id: str, endpoint: Endpoint, metadata: Mapping[str, str]) -> RemoteBatch: ...

    async def get(self, batch_id: str) -> RemoteBatch: ...

    def list_all(self) -> AsyncIterator[RemoteBatch]:
        """Every batch of the organisation, newest first, page after page."""
        ...

    async def cancel(self, batch_id: str) -> RemoteBatch: ...

    async def download(self, file_id: str, to: Path, on_bytes: Progress | None = None) -> Downloaded:
        """The whole file under its name, or an error and nothing under it."""
        ...

    async def delete_file(self, file_id: str) -> None:
        """Gone already is as good."""
        ...

    async def close(self) -> None: ...


TOKEN_LIMIT_EXCEEDED = "token_limit_exceeded"  # noqa: S105 - a code of the service, not a secret
_LIMIT = re.compile(r"\blimit:?\s*([0-9][0-9,._]{0,20})", re.I)
_ENQUEUED = re.compile(r"\b(?:enqueued|used|current(?:ly)?):?\s*([0-9][0-9,._]{0,20})", re.I)


def read_token_limit(batch: RemoteBatch) -> TokenLimit | None:
    """None unless the batch failed for want of room."""
    return next((found for each in batch.errors if (found := read_token_limit_words(*each)) is not None), None)


def read_token_limit_words(code: str, message: str) -> TokenLimit | None:
    """None unless these words refuse for want of room; a limit of 0 where they name none."""
    if code != TOKEN_LIMIT_EXCEEDED and "enqueued token limit" not in message.lower():
        return None
    return TokenLimit(_number(_LIMIT.search(message)) or 0, _number(_ENQUEUED.search(message)))


def _number(found: re.Match[str] | None) -> int | None:
    return int(re.sub(r"\D", "", found[1])) if found else None
