"""The one error tree. Foreign errors are translated into it at the seam of each service.

CatchupError
├── UpstreamError
│   ├── Throttle          slow everyone once; the same item again; counts toward nothing
│   ├── Transient         retry with jitter; counts toward the breaker
│   │   ├── Unreachable       no connection at all: an outage, never an item's fault
│   │   └── StatementTimeout  the database cancelled it: the same work in smaller pieces
│   ├── UnknownOutcome    sent, never answered: read back before doing it again
│   ├── Gone              the file or batch named does not exist (any more)
│   └── ItemPermanent     this item can never succeed: name it, do not repeat
│       └── DataRejected      the database refused a value: bisect the page down to the row
├── RunFatal              stop the run, no item is blamed, everything stays resumable
│   ├── OutOfMoney            quota or billing: exit 4
│   ├── CeilingReached        our own ceiling: exit 8
│   ├── Misconfigured         key, schema, model, disk: exit 10
│   └── Unbelievable          it answers, and what it says cannot be true: exit 5
├── LeaseHeld             somebody else works on this target: exit 11
└── Fenced                our lease was taken over while we slept
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a provider's headers said about its limits; None where it said nothing."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    remaining_requests: int | None = None
    remaining_tokens: int | None = None
    reset_requests_s: float | None = None
    reset_tokens_s: float | None = None


class CatchupError(Exception):
    """Something an operator may read: `what` is one sentence, `fix` the next thing to do."""

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class UpstreamError(CatchupError):
    """A service refused or failed; `words` are its own, already stripped of secrets and row contents."""

    def __init__(
        self,
        what: str,
        *,
        service: str = "",
        code: str = "",
        words: str = "",
        fix: str = "",
        retry_after_s: float | None = None,
        limits: RateLimits | None = None,
    ) -> None:
        super().__init__(what, fix=fix)
        self.service = service
        self.code = code
        self.words = words
        self.retry_after_s = retry_after_s
        self.limits = limits


class Throttle(UpstreamError):
    """Too fast for the service: every worker slows down, no item is blamed."""


class Transient(UpstreamError):
    """A passing fault: the same request may succeed in a moment."""


class Unreachable(Transient):
    """No connection was made (DNS, refused, reset before sending), so nothing was billed."""


class StatementTimeout(Transient):
    """The database cancelled the statement (57014): ask for less at a time."""


class UnknownOutcome(UpstreamError):
    """The request went out and no answer came: it may have taken effect, and may be billed."""


class Gone(UpstreamError):
    """A thing of the service's own that was asked for by its id does not exist, or not any more."""


class ItemPermanent(UpstreamError):
    """This item cannot succeed as it is; `reason` is a short stable word for the books."""

    def __init__(self, what: str, *, reason: str, **facts: object) -> None:
        super().__init__(what, **facts)  # type: ignore[arg-type]  # forwarded keyword for keyword
        self.reason = reason


class DataRejected(ItemPermanent):
    """The database refused a value in this write; with many rows, one of them is the culprit."""


class RunFatal(CatchupError):
    """No further item can succeed until something outside the run changes."""

    def __init__(self, what: str, *, fix: str = "", service: str = "", code: str = "", words: str = "") -> None:
        super().__init__(what, fix=fix)
        self.service = service
        self.code = code
        self.words = words


class OutOfMoney(RunFatal):
    """The provider's quota or balance is used up."""


class CeilingReached(RunFatal):
    """Our own ceiling is reached; `scope` is run, hour or day."""

    def __init__(self, what: str, *, scope: str, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.scope = scope


class Misconfigured(RunFatal):
    """A person must change configuration, schema, key or disk before this can work."""


class Unbelievable(RunFatal):
    """The service works and what it says of many items cannot be true: nothing of it is taken down."""


class LeaseHeld(CatchupError):
    """Another run holds this target; `holder` says who, `seconds_left` when its lease ends."""

    def __init__(self, what: str, *, holder: Mapping[str, object], seconds_left: float, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.holder = holder
        self.seconds_left = seconds_left


class Fenced(CatchupError):
    """Another run took this lease over: nothing more may be written under it."""
