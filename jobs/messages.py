"""How a row becomes a message: which task, on which queue, with which arguments, under which id."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from queries.errors import Misconfigured
from queries.messages import Message
from queries.table import Row

if TYPE_CHECKING:
    from jobs.targets import Target

QUEUE_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_COLUMN = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,62})(:int)?\}")
_OURS = uuid.UUID("0d9f3c0a-5a3f-5f0e-9b37-6f2f7f1b6a52")  # our own namespace: the id of a message is no one else's


@dataclass(frozen=True, slots=True)
class MessageLayout:
    """`{column}` in an argument is that column's value as text, `{column:int}` as a number."""

    queue: str
    task: str
    args: tuple[Any, ...] = ("{id}",)
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        texts = [*self.args, *self.kwargs.values()]
        return tuple(
            dict.fromkeys(name for text in texts if isinstance(text, str) for name, _ in _COLUMN.findall(text))
        )

    def describe(self) -> str:
        return f"{self.task} on {self.queue} {json.dumps([list(self.args), dict(self.kwargs)], sort_keys=True)}"

    def find_wrong(self) -> Iterator[str]:
        for what, name in (("queue", self.queue), ("task", self.task)):
            if not QUEUE_NAME.fullmatch(name):
                yield f"{what} {name!r} is no name: 1 to 255 of letters, digits and . _ -"


def lay_out(row: Row, target: Target, id_: str) -> Message:
    layout = layout_of(target)
    values = {**row.values, **dict(zip(target.spec.key, row.key, strict=True))}
    return Message(
        id_,
        tuple(_fill(each, values) for each in layout.args),
        {name: _fill(each, values) for name, each in layout.kwargs.items()},
    )


def layout_of(target: Target) -> MessageLayout:
    if target.message is None:
        raise Misconfigured(
            f"target {target.name} does not say which message is sent", fix="add [queue] to catchup.toml"
        )
    return target.message


def _fill(template: Any, values: Mapping[str, Any]) -> Any:
    if not isinstance(template, str):
        return template
    whole = _COLUMN.fullmatch(template)
    if whole:
        return _value(values[whole[1]], as_number=bool(whole[2]))
    return _COLUMN.sub(lambda found: str(_value(values[found[1]], as_number=False)), template)


def _value(value: Any, *, as_number: bool) -> Any:
    if value is None:
        return None
    return int(value) if as_number else str(value)


def message_id(row: Row, target: Target) -> str:
    """The same for the same video in the same state, whoever sends it, until it has been sent and is sent once more.

    The run that sent it before is part of it: a worker that remembers ids must not take a deliberate repetition for a
    redelivery.
    """
    before = row.known.run_id if row.known else ""
    return str(uuid.uuid5(_OURS, "\n".join((target.name, layout_of(target).task, *row.key, row.guard, before))))
