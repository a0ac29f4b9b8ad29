"""What happens on a 429, and how we avoid it: one shared pace, learned from the provider's headers.

Requests and tokens each have a meter. A meter spreads the learned limit evenly (providers enforce it on
windows of about a second, so a bucket of a whole minute overshoots), keeps its idea of what the server
has left in step with every answer, and learns how far our estimate of a request's cost is off.
A 429 slows everyone once and never uses up an item's retries.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from jobs.engine.clock import Clock
from queries.errors import RateLimits, Throttle

_SHARE = 0.99  # of the limit: at exactly 100 % a jitter of one request a window is refused
_LEAST_SHARE = 0.5
_CATCH_UP_S = 0.1  # how much lateness of our own event loop is made good at once
_LEARN_S = 1.0


@dataclass(slots=True)
class Ticket:
    """One admitted attempt: when it left, and how much had been sent by then."""

    tokens: int
    sent_at: float = 0.0
    requests_sent: float = 0.0
    tokens_sent: float = 0.0


class Meter:
    """One limit: its rate, our idea of the server's level, and the scale of our estimates."""

    def __init__(self, *, estimated: bool) -> None:
        self.per_s: float | None = None
        self.scale = 1.0
        self._estimated = estimated
        self.sent = 0.0
        self._next_at = 0.0
        self._level: float | None = None
        self._level_at = 0.0
        self._capacity = 0.0
        self._drift = 0.0
        self._used = 0.0
        self._learned_at = 0.0

    def wait_s(self, cost: float, now: float) -> float:
        """How long until this cost may leave: paced evenly, and never beyond what the server has left."""
        if self.per_s is None:
            return 0.0
        wait = self._next_at - now
        level = self._predict(now)
        need = min(cost * self.scale + 0.01 * self._capacity, self._capacity)
        if level is not None and level < need:
            wait = max(wait, (need - level) / self.per_s)
        return max(0.0, wait)

    def take(self, cost: float, share: float, now: float) -> None:
        cost *= self.scale
        self.sent += cost
        if self.per_s is None:
            return
        self._next_at = max(self._next_at, now - _CATCH_UP_S) + cost / (self.per_s * share)
        level = self._predict(now)
        if level is not None:
            self._level, self._level_at = level - cost, now
        self._used += cost

    def learn(self, per_min: int, remaining: int | None, sent_at: float, sent_then: float, now: float) -> None:
        """Takes over what an answer said: the limit, and what was left when its request came in."""
        self.per_s = per_min / 60
        if remaining is None:
            return
        self._capacity = max(self._capacity, min(float(remaining), per_min))
        said = min(remaining + self.per_s * (now - sent_at), self._capacity) - (self.sent - sent_then)
        predicted = self._predict(now)
        if predicted is not None:
            self._drift += (said - predicted) * 0.2
            said = predicted + (said - predicted) * 0.2
        self._level, self._level_at = said, now
        self._rescale(now)

    def _predict(self, now: float) -> float | None:
        if self._level is None or self.per_s is None:
            return None
        return min(self._level + self.per_s * (now - self._level_at), self._capacity)

    def _rescale(self, now: float) -> None:
        """If the server's level sinks faster than we thought, our estimates are too low, and the reverse."""
        if now - self._learned_at < _LEARN_S:
            return
        if self._estimated and self._used > 0 and self._learned_at:
            off = max(-0.5, min(0.5, -self._drift / self._used))
            self.scale = max(0.4, min(2.5, self.scale * (1 + 0.5 * off)))
        self._drift, self._used, self._learned_at = 0.0, 0.0, now


class RateLimit:
    """The gate every attempt of a run passes, first come, first served."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turn = asyncio.Lock()
        self.requests = Meter(estimated=False)
        self.tokens = Meter(estimated=True)
        self.throttled = 0
        self._share = _SHARE
        self._closed_until = 0.0
        self._closed_at = -1.0
        self._recovered_at = 0.0
        self._guessed_at: float | None = None
        self._sends: deque[float] = deque(maxlen=512)
        self._bound = ""
        self._bound_s = {"requests per minute": 0.0, "tokens per minute": 0.0, "the provider's 429s": 0.0}

    async def enter(self, tokens: int) -> Ticket:
        """Waits for this request's turn and takes its share of the limits."""
        async with self._turn:
            while (wait := self._wait(tokens)) > 0:
                await self._clock.sleep(wait)
            now = self._clock.now()
            self._sends.append(now)
            self.requests.take(1, self._share, now)
            self.tokens.take(tokens, self._share, now)
            return Ticket(tokens, now, self.requests.sent, self.tokens.sent)

    def _wait(self, tokens: int) -> float:
        now = self._clock.now()
        waits = {
            "requests per minute": self.requests.wait_s(1, now),
            "tokens per minute": self.tokens.wait_s(tokens, now),
            "the provider's 429s": self._closed_until - now,
        }
        self._bound = max(waits, key=lambda name: waits[name])
        if waits[self._bound] > 0:
            self._bound_s[self._bound] += waits[self._bound]
        return max(waits.values())

    def learn(self, ticket: Ticket, limits: RateLimits | None) -> None:
        """Every answer, good or bad, keeps us in step with the server's own counting."""
        now = self._clock.now()
        if self._guessed_at is not None and now - self._guessed_at >= 1.0 and self.requests.per_s is not None:
            self.requests.per_s, self._guessed_at = self.requests.per_s * 1.02, now
        if limits is None:
            return
        if limits.requests_per_min:
            self._guessed_at = None
            self.requests.learn(
                limits.requests_per_min, limits.remaining_requests, ticket.sent_at, ticket.requests_sent, now
            )
        if limits.tokens_per_min:
            self.tokens.learn(limits.tokens_per_min, limits.remaining_tokens, ticket.sent_at, ticket.tokens_sent, now)
        if self._share < _SHARE and now - self._recovered_at >= 1.0:
            self._share, self._recovered_at = min(_SHARE, self._share + 0.001), now

    def refused(self, ticket: Ticket, refusal: Throttle) -> None:
        """A 429: everybody waits as long as the server asked, once, however many were in flight."""
        self.throttled += 1
        now = self._clock.now()
        self.learn(ticket, refusal.limits)
        if ticket.sent_at > self._closed_at:
            self._closed_at = now
            self._share = max(_LEAST_SHARE, self._share - 0.01)
            self._recovered_at = now
            if self.requests.per_s is None or self._guessed_at is not None:
                self._guess_rate(now)
        wait = refusal.retry_after_s if refusal.retry_after_s is not None else 1.0 + self._clock.jitter(1.0)
        self._closed_until = max(self._closed_until, now + wait)

    def _guess_rate(self, now: float) -> None:
        """A provider that refuses without naming its limit: four fifths of what we had reached."""
        recent = [at for at in self._sends if now - at < 10]
        if len(recent) > 1:
            self.requests.per_s = 0.8 * len(recent) / max(1.0, now - recent[0])
            self._guessed_at = now

    @property
    def per_min(self) -> float | None:
        return None if self.requests.per_s is None else self.requests.per_s * 60

    def bound_by(self) -> str:
        """What kept us back most so far; empty when the limits never did."""
        name = max(self._bound_s, key=lambda key: self._bound_s[key])
        return name if self._bound_s[name] > 0 else ""

    def closed_for_s(self) -> float:
        return max(0.0, self._closed_until - self._clock.now())
