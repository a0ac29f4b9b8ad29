"""Watches the videos that messages went out about, by their own state in the database, until all are done."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from jobs.engine.clock import Clock
from jobs.engine.database import Database
from jobs.targets import Target
from queries.errors import CatchupError
from queries.message_ledger import MessageLedger

_FIRST_S, _LONGEST_S = 1.0, 15.0
_RATE_S = 300.0
_FAILED_MOST = 200
UNDER_WAY = ("waiting", "processing")


@dataclass(frozen=True, slots=True)
class Failure:
    key: str
    state: str
    error: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Of all that is followed: `waiting` have not been touched, `back` were given up by their worker without the work.

    `queue` is how many messages wait at the broker, None where it could not be asked: it is shown and proves nothing.
    """

    sent: int
    waiting: int
    processing: int
    ready: int
    failed: int
    back: int
    gone: int
    queue: int | None
    per_min: float
    eta_s: float | None
    failures: tuple[Failure, ...] = ()

    @property
    def is_done(self) -> bool:
        return self.waiting + self.processing == 0


@dataclass(slots=True)
class Following:
    """What the run sent, and what was under way from earlier runs when the watching began."""

    messages: MessageLedger
    database: Database
    target: Target
    clock: Clock
    run_id: str
    depth: Callable[[], Awaitable[int]]
    _before: Counter[tuple[str, str]] | None = None
    _old_failures: frozenset[str] = frozenset()
    _ends: deque[tuple[float, int]] = field(default_factory=deque)

    async def go(self) -> AsyncIterator[Progress]:
        """One look after another, the last one with nothing under way; more seldom while nothing moves."""
        wait_s, last = _FIRST_S, None
        while True:
            progress = await self.look()
            yield progress
            if progress.is_done:
                return
            moved = last is None or (progress.waiting, progress.processing) != (last.waiting, last.processing)
            wait_s = _FIRST_S if moved else min(_LONGEST_S, wait_s * 1.5)
            last = progress
            await self.clock.sleep(wait_s)

    async def look(self) -> Progress:
        states: Counter[tuple[str, str]] = Counter()
        failures: list[Failure] = []
        above: str | None = None
        while True:
            page = await self.database.insist(
                lambda above=above: self.messages.followed(self.target.spec, self.target.name, above)  # type: ignore[misc]
            )
            states.update(page.states)
            failures += [
                Failure(" ".join(key), state, error)
                for key, run, state, error in page.failed
                if (run == self.run_id or " ".join(key) not in self._old_failures) and len(failures) < _FAILED_MOST
            ]
            above = page.last
            if above is None:
                break
        return await self._add_up(states, failures)

    async def _add_up(self, states: Counter[tuple[str, str]], failures: list[Failure]) -> Progress:
        """Of earlier runs only what was not over when we began."""
        if self._before is None:
            old = {key: n for key, n in states.items() if key[0] != self.run_id and key[1] not in UNDER_WAY}
            self._before = Counter(old)
            mine = sum(n for (run, state), n in states.items() if run == self.run_id and state in ("failed", "back"))
            if not mine:
                self._old_failures, failures = frozenset(f.key for f in failures), []
        sums: Counter[str] = Counter()
        for key, n in states.items():
            sums[key[1]] += max(0, n - self._before[key])
        over = sums.total() - sums["waiting"] - sums["processing"]
        per_min = self._note_rate(over)
        left = sums["waiting"] + sums["processing"]
        return Progress(
            sent=sums.total(),
            waiting=sums["waiting"],
            processing=sums["processing"],
            ready=sums["ready"],
            failed=sums["failed"],
            back=sums["back"],
            gone=sums["gone"],
            queue=await self._queue(),
            per_min=per_min,
            eta_s=60 * left / per_min if per_min else None,
            failures=tuple(failures),
        )

    def _note_rate(self, over: int) -> float:
        now = self.clock.now()
        self._ends.append((now, over))
        while now - self._ends[0][0] > _RATE_S:
            self._ends.popleft()
        first_at, first = self._ends[0]
        return 60 * (over - first) / (now - first_at) if now > first_at else 0.0

    async def _queue(self) -> int | None:
        try:
            return await self.depth()
        except CatchupError:
            return None
