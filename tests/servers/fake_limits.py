"""Requests and tokens a minute, enforced on short windows the way OpenAI does it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Meter:
    """One limit: a token bucket of one window's size, or fixed windows ("fixed"). Zero a minute means unlimited."""

    def __init__(
        self, per_min: float, window_s: float, *, fixed: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_min = per_min
        self.window_s = window_s
        self.fixed = fixed
        self.clock = clock
        self.rate = per_min / 60
        self.capacity = self.rate * window_s
        self.level = self.capacity
        self.seen = clock()

    def _refill(self) -> None:
        now = self.clock()
        if self.fixed:
            passed = math.floor(now / self.window_s) - math.floor(self.seen / self.window_s)
            self.level = min(self.capacity, self.level + passed * self.capacity)
        else:
            self.level = min(self.capacity, self.level + (now - self.seen) * self.rate)
        self.seen = now

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` is admitted; more than a window's worth goes into debt, or it never could."""
        if not self.per_min:
            return 0.0
        self._refill()
        missing = min(amount, self.capacity) - self.level
        if missing <= 1e-9:
            return 0.0
        if not self.fixed:
            return missing / self.rate
        windows = max(1, math.ceil(missing / self.capacity))
        return (math.floor(self.seen / self.window_s) + windows) * self.window_s - self.seen

    def take(self, amount: float) -> None:
        if self.per_min:
            self._refill()
            self.level -= amount

    def remaining(self) -> int:
        self._refill()
        return max(0, math.floor(self.level + 1e-9))

    def reset_s(self) -> float:
        """Until the window is whole again."""
        if not self.per_min:
            return 0.0
        self._refill()
        return max(0.0, (self.capacity - self.level) / self.rate)


def say_duration(seconds: float) -> str:
    """The way the real headers write it: 12ms, 1.5s, 6m0s, 1h2m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    text = f"{left:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours:.0f}h{minutes:.0f}m{text}"
    return f"{minutes:.0f}m{text}" if minutes else text
