"""What a message for a worker's queue is, and what a broker must be able to do. The libraries are in the files beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from queries.errors import RateLimits


@dataclass(frozen=True, slots=True)
class Message:
    """One call of a worker's task. The id is the same however often this message is published."""

    id: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PublishRequest:
    messages: tuple[Message, ...]


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
    """What the broker says of the queue: how much waits there, and what an operator should know of it."""

    exists: bool
    waiting: int = 0
    notes: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()


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


def ids_of(messages: Sequence[Message]) -> frozenset[str]:
    return frozenset(message.id for message in messages)
