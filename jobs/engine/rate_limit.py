"""What happens on a 429, and how we avoid it: one shared pace, learned from the provider's headers.

Requests and tokens each have a meter. A meter spreads the learned limit evenly (providers enforce it on
windows of about a second, so a bucket of a whole minute overshoots) and steers by what the server says is
left: half a second's worth is the aim, so it finds the full rate even where our estimate of a request's
tokens is off, and gives way where other programs use the same account.
A 429 slows everyone once and never uses up an item's retries.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass

from jobs.engine.clock import Clock
from queries.errors import RateLimits, Throttle

_SHARE = 0.99  # of the limit: at exactly 100 % a jitter of one request a window is refused
_AIM = 0.506  # of a second's worth, left at the server: with fixed windows the mean is half of it at full use
_GAIN = 0.6  # answers are some 0.4 s old: more than this would swing
_SMOOTH_S = 0.5
_SCALE_PER_S = 0.3  # slower than the pace itself, or the two chase each other
_MOST_OFF = 0.2
_FASTEST = 1.3
_LEAST_SHARE = 0.3
_SHARED_BELOW = 0.15
_EVEN_S = 0.25  # of the tokens: a window of a second that one request fills swings between all and nothing
_MORE = 1.2  # than the mean, where every request has to carry as many tokens as it may
_NO_SHARE_S = 0.25  # until it is looked again whether there is one
_CATCH_UP_S = 0.1  # how much lateness of our own event loop is made good at once


@dataclass(frozen=True, slots=True)
class Ticket:
    """One admitted attempt and when it left."""

    tokens: int
    sent_at: float


class Meter:
    """One limit: its rate, how much the server has left, and how far our estimates of a cost are off."""

    def __init__(self, *, estimated: bool, most_per_min: int | None = None) -> None:
        self._most_per_min = most_per_min
        self.per_s: float | None = most_per_min / 60 if most_per_min else None
        self.scale = 1.0
        self.share = 1.0  # of the limit: what is left at the server is what all who share it have left
        self.binds = False
        self._estimated = estimated
        self._next_at = 0.0
        self._most_left = 0.0
        self._room = 1.0
        self._fixed = False
        self._learned_at: float | None = None
        self._fastest = _FASTEST

    def wait_s(self, now: float) -> float:
        if self.per_s is None:
            return 0.0
        return max(0.0, self._next_at - now) if self.share > 0 else _NO_SHARE_S

    def take(self, cost: float, now: float) -> None:
        if self.per_s is None:
            return
        self._next_at = max(self._next_at, now - _CATCH_UP_S) + cost * self.scale / (
            self.per_s * self.share * self._pace()
        )

    def _pace(self) -> float:
        """As a share of the limit. A known cost needs no steering until others use the limit as well."""
        if not self._estimated:
            return min(self._fastest, max(_LEAST_SHARE, _SHARE * min(1.0, self._room / _SHARED_BELOW)))
        return min(self._fastest, max(_LEAST_SHARE, _SHARE + _GAIN * (self._room - _AIM)))

    def learn(self, per_min: int, remaining: int | None, reset_s: float | None, now: float) -> None:
        """Takes over what an answer said: the limit, and what was left of it."""
        self.per_s = min(per_min, self._most_per_min or per_min) / 60
        if remaining is None:
            return
        self._most_left = max(self._most_left, float(remaining))
        # a bucket may hold a second's worth or a minute's: only what is missing from it tells how fast we are
        missing = self._most_left - remaining
        room = max(0.0, 1 - missing / min(self.per_s, self._most_left or 1))
        if reset_s is not None:
            fills_in_s = missing / self.per_s
            # not whole again when a bucket would be: a window of its own, to be used up just when it ends
            self._fixed = self._fixed or (missing > 0 and abs(reset_s - fills_in_s) > 1 + fills_in_s / 2)
            if self._fixed:
                room = min(1.0, _AIM * remaining / max(1.0, reset_s * self.per_s))
        passed = now - self._learned_at if self._learned_at is not None else _SMOOTH_S
        self._learned_at = now
        self._room += (room - self._room) * (1 - math.exp(-passed / _SMOOTH_S))
        if self._estimated and self.binds:
            off = max(-_MOST_OFF, min(_MOST_OFF, self._room - _AIM))
            self.scale = max(0.3, min(3.0, self.scale * (1 - _SCALE_PER_S * min(passed, 1.0) * off)))
        self._fastest = min(_FASTEST, self._fastest + 0.01 * min(passed, 1.0))

    def refused(self) -> None:
        """Whatever the headers promise, this pace was too fast."""
        self._fastest = max(_LEAST_SHARE, min(self._fastest, 1.0) - 0.01)
        if self._estimated and self.binds:
            self.scale *= 1.02


class RateLimit:
    """The gate every attempt of a run passes, first come, first served."""

    def __init__(self, clock: Clock, most_per_min: int | None = None) -> None:
        self._clock = clock
        self._turn = asyncio.Lock()
        self.requests = Meter(estimated=False, most_per_min=most_per_min)
        self.tokens = Meter(estimated=True)
        self.throttled = 0
        self._closed_until = 0.0
        self._closed_at = -1.0
        self._guessed_at: float | None = None
        self._sends: deque[float] = deque(maxlen=512)
        self._bound = ""
        self._bound_s = {"requests per minute": 0.0, "tokens per minute": 0.0, "the provider's 429s": 0.0}

    async def enter(self, tokens: int) -> Ticket:
        """Waits for this request's turn and takes its share of the limits."""
        async with self._turn:
            while (wait := self._wait()) > 0:
                await self._clock.sleep(wait)
            now = self._clock.now()
            self._sends.append(now)
            self.requests.take(1, now)
            self.tokens.take(tokens, now)
            return Ticket(tokens, now)

    def _wait(self) -> float:
        now = self._clock.now()
        waits = {
            "requests per minute": self.requests.wait_s(now),
            "tokens per minute": self.tokens.wait_s(now),
            "the provider's 429s": self._closed_until - now,
        }
        self._bound = max(waits, key=lambda name: waits[name])
        if waits[self._bound] > 0:
            self._bound_s[self._bound] += waits[self._bound]
            self.requests.binds = self._bound == "requests per minute"
            self.tokens.binds = self._bound == "tokens per minute"
        return max(waits.values())

    def learn(self, limits: RateLimits | None) -> None:
        """Every answer, good or bad, keeps us in step with the server's own counting."""
        now = self._clock.now()
        if self._guessed_at is not None and now - self._guessed_at >= 1.0 and self.requests.per_s is not None:
            self.requests.per_s, self._guessed_at = self.requests.per_s * 1.02, now
        if limits is None:
            return
        if limits.requests_per_min:
            self._guessed_at = None
            self.requests.learn(limits.requests_per_min, limits.remaining_requests, limits.reset_requests_s, now)
        if limits.tokens_per_min:
            self.tokens.learn(limits.tokens_per_min, limits.remaining_tokens, limits.reset_tokens_s, now)

    def refused(self, ticket: Ticket, refusal: Throttle) -> None:
        """A 429: everybody waits as long as the server asked, once, however many were in flight."""
        self.throttled += 1
        now = self._clock.now()
        self.learn(refusal.limits)
        if ticket.sent_at > self._closed_at:
            self._closed_at = now
            self.requests.refused()
            self.tokens.refused()
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

    def tokens_at_once(self) -> float | None:
        """The largest request that leaves the pace even, unless requests are scarcer than tokens; None: unknown."""
        if self.tokens.per_s is None:
            return None
        for_requests = _MORE * self.tokens.per_s / self.requests.per_s if self.requests.per_s else 0.0
        return max(_EVEN_S * self.tokens.per_s, for_requests)

    @property
    def per_min(self) -> float | None:
        return None if self.requests.per_s is None else self.requests.per_s * self.requests.share * 60

    def is_held_back(self) -> bool:
        """Whether the limit, and not the work, decides the pace now."""
        return self._turn.locked()

    def bound_by(self) -> str:
        """What kept us back most so far; empty when the limits never did."""
        name = max(self._bound_s, key=lambda key: self._bound_s[key])
        return name if self._bound_s[name] > 0 else ""
