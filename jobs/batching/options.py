"""How the operator wants batches to go, and what they need beside the engine's work."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobs.engine.job import Means
from jobs.engine.work import Work
from queries.batch_ledger import BatchLedger
from queries.batches import BYTES_MOST, CHAT, EMBED, INPUTS_MOST, REQUESTS_MOST, Batches, Endpoint
from queries.prices import Price

TAIL_LIVE = 100
STALL_S = 6 * 3_600.0


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """`tail_live` rows or fewer are not worth a file once the rest is in. The limits are those of one file."""

    watch: bool = False
    tail_live: int = TAIL_LIVE
    enqueued_limit: int | None = None
    stall_s: float = STALL_S
    rescue: bool = False
    collect_only: bool = False
    requests_most: int = REQUESTS_MOST
    bytes_most: int = BYTES_MOST
    inputs_most: int = INPUTS_MOST


@dataclass(frozen=True, slots=True)
class BatchWork:
    """`place` is the provider's address: limits are learned for it and the model."""

    work: Work
    batches: Batches
    options: BatchOptions
    place: str

    @property
    def desk(self) -> BatchLedger:
        return BatchLedger(self.work.ledger.road)

    @property
    def endpoint(self) -> Endpoint:
        return CHAT if self.work.job.service == "chat" else EMBED

    @property
    def price(self) -> Price:
        return at_batch_price(self.work.price)

    @property
    def means(self) -> Means:
        return replace(self.work.means, price=self.price, is_plan=True)  # tokens are counted, not guessed


def at_batch_price(price: Price) -> Price:
    factor = price.batch_factor
    return replace(price, input_per_m=price.input_per_m * factor, output_per_m=price.output_per_m * factor)
