"""What a fake upstream remembers: who was paid how often, the bill, what was open at once."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any


class World:
    """Counts per item and in total. Billing happens on arrival, as it does at the real service."""

    def __init__(self, log_limit: int = 300_000) -> None:
        self.started = time.monotonic()
        self.requests = 0
        self.admitted = 0
        self.refused = 0
        self.open = 0
        self.max_open = 0
        self.tokens_in = 0
        self.tokens_out = 0
        self.bill_usd = 0.0
        self.paid: Counter[str] = Counter()
        self.embedded: Counter[str] = Counter()
        """How often each text was embedded and paid; `paid` counts chat."""
        self.embed_calls = 0
        self.attempts: Counter[str] = Counter()
        self.order: dict[str, int] = {}
        self.statuses: Counter[int] = Counter()
        self.log: deque[tuple[float, str, int]] = deque(maxlen=log_limit)

    def admit(self, item: str) -> tuple[int, int, int]:
        """The number of this request, its attempt within the item, and the item's order of appearance."""
        self.admitted += 1
        self.attempts[item] += 1
        return self.admitted, self.attempts[item], self.order.setdefault(item, len(self.order) + 1)

    def bill(self, item: str, tokens_in: int, tokens_out: int, usd: float) -> None:
        self.paid[item] += 1
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.bill_usd += usd

    def bill_texts(self, items: Sequence[str], tokens: int, usd: float) -> None:
        self.embedded.update(items)
        self.embed_calls += 1
        self.tokens_in += tokens
        self.bill_usd += usd

    def enter(self) -> None:
        self.requests += 1
        self.open += 1
        self.max_open = max(self.max_open, self.open)

    def leave(self, item: str, status: int) -> None:
        """Status 0: no answer was given."""
        self.open -= 1
        self.statuses[status] += 1
        self.log.append((time.monotonic() - self.started, item, status))

    def stats(self, *, with_log: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {
            "requests": self.requests,
            "admitted": self.admitted,
            "refused": self.refused,
            "open": self.open,
            "max_open": self.max_open,
            "items": len(self.order),
            "paid_items": len(self.paid),
            "paid_calls": self.paid.total(),
            "paid_twice": sum(n - 1 for n in self.paid.values()),
            "embed_calls": self.embed_calls,
            "embedded_texts": len(self.embedded),
            "embedded_twice": sum(n - 1 for n in self.embedded.values()),
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "bill_usd": round(self.bill_usd, 12),
            "statuses": {str(k): v for k, v in self.statuses.items()},
            "paid": dict(self.paid),
            "attempts": dict(self.attempts),
        }
        if with_log:
            found["log"] = list(self.log)
            found["embedded"] = dict(self.embedded)
        return found
