"""What the database says of videos and the messages about them: stuck ones, counts, and what became of those sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from queries.errors import Misconfigured
from queries.ledger_answers import believed, expected
from queries.ledger_json import page_json, parse_key, spec_json
from queries.messages import Seen
from queries.road import Road
from queries.table import Key, PageQuery, Redo, TableSpec

_RUNS_FOLLOWED = 20
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class States:
    """The columns and words by which an application says where a video is."""

    status: str = "status"
    flag: str = "has_rich_semantics"
    changed_at: str = "updated_at"
    error: str = "error_message"
    owner: str = "owner_id"
    idle: str = "READY"
    working: str = "PROCESSING"
    failed: str = "FAILED"


@dataclass(frozen=True, slots=True)
class Stuck:
    key: Key
    since: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Unstuck:
    """Which of the rows that were listed were put back; the others had changed, and `kept` nobody lets us update."""

    reset: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Pending rows with these values; `sends` of them would be sent."""

    values: tuple[str, ...]
    rows: int
    sends: int


@dataclass(frozen=True, slots=True)
class Followed:
    """One page: how many are in each state, by the run that sent them, and those that failed."""

    states: Mapping[tuple[str, str], int]
    failed: tuple[tuple[Key, str, str, str], ...]
    last: str | None


class MessageLedger:
    def __init__(self, road: Road, states: States) -> None:
        self._road = road
        self._states = states

    async def stuck(
        self, spec: TableSpec, where: Sequence[tuple[str, str]], older_s: float, above: Key | None, limit: int
    ) -> list[Stuck]:
        """Reads only; in key order."""
        names = self._states
        asked = {"status": names.status, "from": names.working, "changed_at": names.changed_at, "older_s": older_s}
        more = {"spec": spec_json(spec), "where": list(where), "above": above, "limit": limit}
        answer = expected(await self._road.read("catchup_stuck", {**asked, **more}))
        with believed("catchup_stuck", writing=False):
            return [Stuck(parse_key(row["key"]), str(row["since"]), float(row["seconds"])) for row in answer["rows"]]

    async def unstick(self, spec: TableSpec, rows: Sequence[Stuck], *, target: str, sent_by: str) -> Unstuck:
        """Each only if it is still as it was listed; asked twice, the second time finds them changed."""
        names = self._states
        asked = {"status": names.status, "from": names.working, "to": names.idle, "changed_at": names.changed_at}
        listed = [{"key": row.key, "since": row.since} for row in rows]
        more = {"spec": spec_json(spec), "target": target, "sent_by": sent_by, "rows": listed}
        answer = expected(await self._road.call("catchup_unstick", {**asked, **more}))
        if "undeclared" in answer:
            raise Misconfigured(
                f"target {target} may not write {names.status}: not registered",
                fix="run `catchup migrate` as the owner to register the target's cells",
                service="database",
            )
        with believed("catchup_unstick", writing=True):
            return Unstuck(tuple(map(int, answer["reset"])), tuple(map(int, answer["kept"])))

    async def counts(self, query: PageQuery, at_most: int) -> tuple[list[Group], bool]:
        """Pending rows by owner and status, and whether that is all of them."""
        by = [self._states.owner, self._states.status]
        asked = {**page_json(query), "by": by, "at_most": at_most}
        answer = expected(await self._road.read("catchup_message_counts", asked))
        with believed("catchup_message_counts", writing=False):
            groups = [Group(tuple(str(v) for v in by), int(n), int(sends)) for by, n, sends in answer["groups"]]
            return groups, int(answer["looked"]) < at_most

    async def still(self, spec: TableSpec, target: str, redo: Redo, seen: Sequence[Seen]) -> frozenset[int]:
        """Which of them are as they were read and have no message out. By POST: never a replica, nor a long URL."""
        rows = [{"key": key, "guard": guard} for key, guard in seen]
        asked = {"spec": spec_json(spec), "target": target, "redo": asdict(redo), "rows": rows}
        answer = expected(await self._road.call("catchup_still", asked))
        with believed("catchup_still", writing=False):
            return frozenset(map(int, answer["still"]))

    async def followed(self, spec: TableSpec, target: str, above: str | None) -> Followed:
        names = self._states
        asked = {
            **{"status": names.status, "flag": names.flag, "idle": names.idle, "failed": names.failed},
            **{"error": names.error, "runs": _RUNS_FOLLOWED, "limit": _PAGE},
        }
        more = {"spec": spec_json(spec), "target": target, "above": above}
        answer = expected(await self._road.read("catchup_followed", {**asked, **more}))
        with believed("catchup_followed", writing=False):
            states = {(str(run), str(state)): int(n) for run, state, n in answer["states"]}
            failed = tuple((parse_key(k), str(run), str(s), str(error or "")) for k, run, s, error in answer["failed"])
            return Followed(states, failed, _text_or_none(answer["last"]))


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)
