"""What a worker takes from a queue, and what becomes of each message. The libraries are in the files beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """`taken` is acknowledged, `later` comes again after a while, `back` at once and to anybody."""

    what: Literal["taken", "later", "back"]
    wait_s: float = 0.0


Handle = Callable[[Sequence[Any], Mapping[str, Any]], Outcome]
"""Called in a thread of the library's with a message's arguments, one at a time; it blocks, and never raises."""


class Consumer(Protocol):
    """One message in hand and at most one held ready; nothing is acknowledged before it was handled."""

    where: str  # library, broker and queue for messages; never a secret

    def start(self, handle: Handle, on_lost: Callable[[str], None]) -> None:
        """Returns at once; `on_lost` is told when it can take no more messages."""
        ...

    def stop(self, within_s: float) -> None:
        """Takes no more, waits for the one in hand, gives back what is held."""
        ...
