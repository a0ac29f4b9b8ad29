"""Small requests gathered into large ones, as large as the service takes."""

from __future__ import annotations

from collections.abc import Callable

from jobs.engine.job import Ask, Job, Packing


class Packer:
    """Gathers in the order of reading; a job without `packing` gathers nothing. `tokens_at_once` is the pace's wish."""

    def __init__(self, job: Job, tokens_at_once: Callable[[], float | None] = lambda: None) -> None:
        self._tokens_at_once = tokens_at_once
        self._job = job
        self._limits = job.packing
        self._asks: list[Ask] = []
        self._texts = self._tokens = self._bytes = 0

    def add(self, ask: Ask) -> Ask | None:
        """The request that is complete: this one itself, or those before it that it no longer fits to."""
        if self._limits is None:
            return ask
        full = self.take() if self._asks and not self._fits(ask, self._limits) else None
        self._asks.append(ask)
        self._texts += ask.texts
        self._tokens += ask.tokens_in
        self._bytes += ask.answer_bytes
        return full

    def _fits(self, ask: Ask, limits: Packing) -> bool:
        tokens_most = min(limits.tokens_most, self._tokens_at_once() or limits.tokens_most)
        return (
            self._texts + ask.texts <= limits.texts_most
            and self._tokens + ask.tokens_in <= tokens_most
            and self._bytes + ask.answer_bytes <= limits.bytes_most
        )

    def take(self) -> Ask | None:
        """What has been gathered so far."""
        asks, self._asks = self._asks, []
        self._texts = self._tokens = self._bytes = 0
        return self._job.pack(asks) if asks else None

    @property
    def rows(self) -> int:
        return len(self._asks)
