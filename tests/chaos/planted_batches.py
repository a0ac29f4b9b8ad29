"""Bugs of submit-batch, planted as in planted.py; and small files, so that forty rows are several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cli import submit_batch
from jobs.batching import driving, provider
from jobs.batching.options import BatchOptions
from queries.openai_batches import OpenAIBatches


def make_small(rows: int) -> None:
    """No bug: small files, and a provider that lists what it has at once."""
    options_from = submit_batch.options_from

    def small(*given: Any, **named: Any) -> BatchOptions:
        return replace(options_from(*given, **named), requests_most=rows)

    submit_batch.options_from = small
    provider.LISTED_S = 0.3
    provider._LOOK_AGAIN_S = 0.05
    driving._GONE_AGAIN = (0.02,)  # type: ignore[assignment]


def create_without_looking() -> None:
    """A batch whose id was not saved is created again, and nobody looks for the first one."""

    async def find_nothing(self: Any, chunk: Any, asked_at: float) -> None:
        del self, chunk, asked_at

    provider.Provider._find = find_nothing  # type: ignore[method-assign]


def upload_without_looking() -> None:
    """A file whose id was not saved is uploaded again."""

    async def find_nothing(self: OpenAIBatches, name: str, size: int | None = None) -> None:
        del self, name, size

    OpenAIBatches.find_file = find_nothing  # type: ignore[assignment]


PLANTS: dict[str, Callable[[], None]] = {
    "created-without-looking": create_without_looking,
    "uploaded-without-looking": upload_without_looking,
}
