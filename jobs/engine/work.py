"""Everything a run needs, chosen and built by the command line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.engine.account import Account
from jobs.engine.clock import Clock
from jobs.engine.hold import Hold
from jobs.engine.job import Job, Means, Service
from jobs.engine.options import Options
from jobs.engine.past import Paid
from jobs.engine.rate_limit import RateLimit
from jobs.engine.watch import Watcher
from jobs.targets import Target
from queries.ledger import Ledger
from queries.prices import Price
from queries.table import Key
from queries.tokens import TokenCounter
from queries.vectors import VectorSpace


@dataclass(frozen=True, slots=True)
class Work:
    """`command` is what the operator typed: the verdict's next command is built from it.

    `space` is where vectors go that do not stand in the row itself. `answers` are kept from earlier runs: where the
    row is still the same, its answer is not asked for again. `hold` keeps requests back while the receiver has too
    much; `ready` refuses a receiver that is not as it should be, and says what an operator should know of it. `dsn` is
    for what follows a run; empty over REST.
    """

    job: Job
    target: Target
    ledger: Ledger
    service: Service
    tokens: TokenCounter
    price: Price
    model: str
    state_dir: Path
    options: Options
    watcher: Watcher
    command: str
    clock: Clock = field(default_factory=Clock)
    space: VectorSpace | None = None
    answers: Mapping[Key, Paid] = field(default_factory=dict)
    rate: RateLimit | None = None
    hold: Hold | None = None
    ready: Callable[[], Awaitable[Sequence[str]]] | None = None
    account: Account | None = None
    dsn: str = ""

    @property
    def made_by(self) -> str:
        """What an answer depends on beside its row."""
        return f"{self.model} {self.target.prompt_hash}"

    @property
    def means(self) -> Means:
        return Means(self.target, self.model, self.tokens, self.price, self.options)
