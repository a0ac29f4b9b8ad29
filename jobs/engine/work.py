"""Everything a run needs, chosen and built by the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jobs.engine.clock import Clock
from jobs.engine.job import Job, Means, Service
from jobs.engine.options import Options
from jobs.engine.watch import Watcher
from jobs.targets import Target
from queries.ledger import Ledger
from queries.prices import Price
from queries.tokens import TokenCounter
from queries.vectors import VectorSpace


@dataclass(frozen=True, slots=True)
class Work:
    """`command` is what the operator typed: the verdict's next command is built from it.

    `space` is where vectors go that do not stand in the row itself.
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

    @property
    def means(self) -> Means:
        return Means(self.target, self.model, self.tokens, self.price, self.options)
