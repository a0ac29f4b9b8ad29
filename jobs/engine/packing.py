"""Small requests gathered into large ones, as large as the service takes."""

from __future__ import annotations

from jobs.engine.job import Ask, Job


class Packer:
    """Gathers in the order of reading; a job without `packing` gathers nothing."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._limits = job.packing
        self._asks: list[Ask] = []
        self._texts = 0
        self._tokens = 0

    def add(self, ask: Ask) -> Ask | None:
        """The request that is complete: this one itself, or those before it that it no longer fits to."""
        if self._limits is None:
            return ask
        texts, tokens = self._texts + ask.texts, self._tokens + ask.tokens_in
        is_over = texts > self._limits.texts_most or tokens > self._limits.tokens_most
        full = self.take() if is_over and self._asks else None
        self._asks.append(ask)
        self._texts += ask.texts
        self._tokens += ask.tokens_in
        return full

    def take(self) -> Ask | None:
        """What has been gathered so far."""
        asks, self._asks = self._asks, []
        self._texts = self._tokens = 0
        return self._job.pack(asks) if asks else None

    @property
    def rows(self) -> int:
        return len(self._asks)
