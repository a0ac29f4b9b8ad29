"""What a run of messages says of itself: what will be sent for whom, what waits already, and what went out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jobs.engine.account import Insist, Told
from jobs.engine.books import Books
from jobs.engine.insistence import Insistence
from jobs.messages import layout_of
from jobs.targets import Target
from queries.message_ledger import Group, MessageLedger
from queries.publishing import Publisher
from queries.table import PageQuery

_LOOKED_AT = 20_000
_OWNERS_SHOWN = 5


@dataclass(slots=True)
class Sending:
    """An account that counts messages; they cost nothing, so nothing is ever refused."""

    target: Target
    query: PageQuery
    messages: MessageLedger
    publisher: Publisher
    broker: Insistence
    listed: tuple[str, ...] | None = None

    async def admit(self, insist: Insist) -> None:
        return

    def readmit(self) -> None:
        return

    async def close(self) -> None:
        return

    async def forecast(self, insist: Insist, pending: int) -> Told:
        """Reads only; counts at most so many rows, and says where there are more."""
        layout = layout_of(self.target)
        waiting = (await self.broker.insist(self.publisher.look)).waiting
        lines = [("sends", f"{layout.task}({_arguments(layout.args, layout.kwargs)}), one message a video")]
        lines.append(("queue", f"{waiting:,} messages wait there now"))
        facts: dict[str, Any] = {"queue": self.publisher.name, "queue_waiting": waiting}
        if self.listed is None:
            query = replace(self.query, limit=1, in_window=False)
            groups, is_all = await insist(lambda: self.messages.counts(query, _LOOKED_AT))
            lines += _group_lines(groups, is_all=is_all)
            facts["by_owner"] = _sums(groups, 0)
            facts["by_status"] = _sums(groups, 1)
            facts["already_waiting"] = sum(group.rows - group.sends for group in groups)
        return Told(tuple(lines), facts)

    def report(self, books: Books) -> Told:
        facts = {"sent": books.wrote, "queue": self.publisher.name}
        return Told((("sent", f"{books.wrote:,} messages to {self.publisher.name}"),), facts)


def _arguments(args: tuple[Any, ...], kwargs: Any) -> str:
    return ", ".join([*map(str, args), *(f"{name}={value}" for name, value in kwargs.items())])


def _sums(groups: list[Group], column: int) -> dict[str, int]:
    sums: dict[str, int] = {}
    for group in groups:
        if group.sends:
            sums[group.values[column]] = sums.get(group.values[column], 0) + group.sends
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _group_lines(groups: list[Group], *, is_all: bool) -> list[tuple[str, str]]:
    at_least = "" if is_all else f"of the first {_LOOKED_AT:,} looked at: "
    owners, waiting = _sums(groups, 0), sum(group.rows - group.sends for group in groups)
    shown = [f"{owner} {n:,}" for owner, n in list(owners.items())[:_OWNERS_SHOWN]]
    more = [f"{len(owners) - _OWNERS_SHOWN:,} more owners"] if len(owners) > _OWNERS_SHOWN else []
    lines = [("by owner", at_least + ", ".join([*shown, *more]))] if owners else []
    statuses = ", ".join(f"{status} {n:,}" for status, n in _sums(groups, 1).items())
    lines += [("by status", at_least + statuses)] if statuses else []
    if waiting:
        said = f"{waiting:,} pending too and left out: their messages wait since an earlier run (--resend-after TIME)"
        lines.append(("waiting", at_least + said))
    return lines
