"""What a message for a worker's queue is, and what a broker must be able to do. The libraries have their own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from queries.errors import RateLimits
from queries.table import Key

Seen = tuple[Key, str]


@dataclass(frozen=True, slots=True)
class Message:
    """One call of a worker's task. The id is the same however often this message is published."""

    id: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """`seen` are the key and guard of each message's row, as it was read."""

    messages: tuple[Message, ...]
    seen: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class PublishAnswer:
    """The ids that the broker has confirmed. Nothing is billed, so there are no tokens."""

    sent: frozenset[str]
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    text: str | None = None
    limits: RateLimits | None = None


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What the broker says of the queue: how much waits there, and what an operator should know of it.

    `is_certain`: a queue has to be declared there. Redis knows only what is in use, and `seen` are names that are.
    """

    exists: bool
    waiting: int = 0
    notes: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    is_certain: bool = True


class Queue(Protocol):
    """One client library on one broker. Blocking: it is only ever called in its own thread.

    One attempt each, and after a fault a new connection; raises only what queries.errors names.
    """

    name: str
    where: str  # library, broker and queue for messages; never a secret

    def look(self) -> QueueFacts: ...

    def publish(self, message: Message) -> None:
        """Returns when the broker has taken responsibility for it."""
        ...

    def close(self) -> None: ...


QUORUM = {"x-queue-type": "quorum"}
"""Declared once more with just these, a queue of RabbitMQ that is there agrees or refuses, and stays as it is."""
NO_WAY_OUT = (
    "this quorum queue has no dead-letter exchange of its own: RabbitMQ 4 drops a message after 20 redeliveries, "
    "unless a policy says otherwise"
)
