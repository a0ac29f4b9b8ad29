"""What the ledger knows of batches: chunks, their rows, and how much of them the provider takes at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from queries.errors import Misconfigured
from queries.ledger_answers import believed, expected
from queries.ledger_json import page_json, parse_key, parse_row
from queries.ledger_types import Lease
from queries.road import Road
from queries.table import Key, PageQuery, Row

_CLAIMED_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """A file's worth of rows on its way. `out` are those that nothing is known of yet; ages are the database's."""

    chunk: str
    run_id: str
    target: str
    fingerprint: str
    model: str
    place: str
    endpoint: str
    requests: int
    tokens: int
    size_bytes: int
    sha256: str
    reserved_usd: float
    file_id: str = ""
    batch_id: str = ""
    status: str = ""
    remote: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    books: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    is_open: bool = True
    out: int = 0
    made_at: str = ""
    age_s: float = 0.0
    upload_age_s: float | None = None
    create_age_s: float | None = None
    idle_s: float | None = None
    gone_s: float | None = None
    """Since a visit first missed a file of its results."""

    @property
    def is_balanced(self) -> bool:
        """By row, never by what the provider counts."""
        return self.requests == self.out + sum(self.books.values())


@dataclass(frozen=True, slots=True)
class Sent:
    """A row as it was sent, and the same row as the table has it now; None where it has gone."""

    chunk: str
    n: int
    key: Key
    guard: str
    was: str | None
    tries: int
    row: Row | None
    is_pending: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run has to look after: its open chunks, how many it has made, and how many rows came back."""

    chunks: tuple[Chunk, ...]
    made: int
    back: int


@dataclass(frozen=True, slots=True)
class Room:
    """How many tokens may wait at the provider, as far as a refusal has told, and which chunks are there."""

    tokens: int | None
    age_s: float | None
    chunks: Mapping[str, int]


class BatchLedger:
    """Typed calls of the functions of batches. `lease` fences those that change anything."""

    def __init__(self, road: Road) -> None:
        self._road = road

    async def open(self, lease: Lease, chunk: Chunk) -> None:
        names = ("chunk", "target", "fingerprint", "model", "place", "endpoint")
        facts = {name: getattr(chunk, name) for name in names}
        sizes = {name: getattr(chunk, name) for name in ("requests", "tokens", "size_bytes", "sha256", "reserved_usd")}
        await self._call("catchup_open_chunk", {**asdict(lease), "chunk": {**facts, **sizes}})

    async def claim(
        self, lease: Lease, chunk: Chunk, rows: Sequence[tuple[int, Key, str, str | None]]
    ) -> frozenset[int]:
        """Which of them are this chunk's own now; the others are out in another one."""
        claimed: set[int] = set()
        for start in range(0, len(rows), _CLAIMED_AT_ONCE):
            part = rows[start : start + _CLAIMED_AT_ONCE]
            asked = {**asdict(lease), "chunk": chunk.chunk, "target": chunk.target, "rows": part}
            answer = await self._call("catchup_claim_rows", asked)
            with believed("catchup_claim_rows", writing=True):
                claimed.update(int(n) for n in answer["claimed"])
        return frozenset(claimed)

    async def note(self, lease: Lease, chunk: str, **what: Any) -> Chunk:
        answer = await self._call("catchup_note_chunk", {**asdict(lease), "chunk": chunk, "note": what})
        return _one("catchup_note_chunk", answer, chunk)

    async def close(self, lease: Lease, chunk: str, note: str | None = None) -> Chunk:
        answer = await self._call("catchup_close_chunk", {**asdict(lease), "chunk": chunk, "note": note})
        return _one("catchup_close_chunk", answer, chunk)

    async def take(self, lease: Lease, target: str) -> Taken:
        answer = await self._call("catchup_take_chunks", {**asdict(lease), "target": target})
        with believed("catchup_take_chunks", writing=True):
            chunks = tuple(_chunk(each) for each in answer["chunks"])
            return Taken(chunks, int(answer["made"]), int(answer["back"]))

    async def chunks(
        self,
        *,
        target: str | None = None,
        chunk: str | None = None,
        run_id: str | None = None,
        open_only: bool = False,
        limit: int = 100,
    ) -> list[Chunk]:
        """Newest first."""
        asked = {"target": target, "chunk": chunk, "run_id": run_id, "open_only": open_only, "limit": limit}
        answer = await self._read("catchup_chunks", asked)
        with believed("catchup_chunks", writing=False):
            return [_chunk(each) for each in answer["chunks"]]

    async def out(self, query: PageQuery, chunk: str, above: int) -> list[Sent]:
        return await self._page(query, {"chunk": chunk, "above": above})

    async def back(self, query: PageQuery, run_id: str, after: tuple[str, int]) -> list[Sent]:
        """Of this run's own chunks: what came back to the run of another slice is for that one."""
        return await self._page(query, {"run_id": run_id, "above_chunk": after[0], "above": after[1]})

    async def put_back(
        self, lease: Lease, chunk: str, reason: str, rows: Sequence[int] | None = None, *, counts: bool = False
    ) -> int:
        """All that are out, or these. `counts`: nobody can say why they got no answer, so it counts as a try."""
        asked = {"chunk": chunk, "reason": reason, "rows": None if rows is None else list(rows), "counts": counts}
        answer = await self._call("catchup_put_back", {**asdict(lease), **asked})
        with believed("catchup_put_back", writing=True):
            return int(answer["back"])

    async def forget_back(self, lease: Lease, target: str, keys: Sequence[Key]) -> None:
        await self._call("catchup_forget_back", {**asdict(lease), "target": target, "keys": keys})

    async def learn_limit(self, place: str, model: str, tokens: int) -> None:
        await self._call("catchup_learn_limit", {"place": place, "model": model, "tokens": tokens})

    async def room(self, place: str, model: str) -> Room:
        answer = await self._read("catchup_batch_limit", {"place": place, "model": model})
        with believed("catchup_batch_limit", writing=False):
            limit = answer["limit"] or {"tokens": None, "age_s": None}
            chunks = {str(each["batch_id"] or each["chunk"]): int(each["tokens"]) for each in answer["validating"]}
            return Room(limit["tokens"], limit["age_s"], chunks)

    async def abandon(self, chunk: str) -> int:
        answer = await self._call("catchup_abandon_chunk", {"chunk": chunk})
        if "busy" in answer:
            raise Misconfigured(f"a run is working on {chunk} at this moment", fix="stop it first: `catchup runs list`")
        with believed("catchup_abandon_chunk", writing=True):
            return int(answer["rows"])

    async def prune(self, older_than_days: int) -> int:
        answer = await self._call("catchup_prune_batches", {"older_than_days": older_than_days})
        with believed("catchup_prune_batches", writing=True):
            return int(answer["batches"])

    async def _page(self, query: PageQuery, where: Mapping[str, Any]) -> list[Sent]:
        answer = await self._read("catchup_batch_page", {**page_json(query), **where})
        with believed("catchup_batch_page", writing=False):
            return [_sent(each, query) for each in answer["rows"]]

    async def _call(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        return expected(await self._road.call(function, payload))

    async def _read(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        return expected(await self._road.read(function, payload))


def _one(function: str, answer: Mapping[str, Any], chunk: str) -> Chunk:
    if answer.get("chunk") is None:
        raise Misconfigured(f"chunk {chunk} is not this run's any more", fix="see `catchup batches list`")
    with believed(function, writing=True):
        return _chunk(answer["chunk"])


def _chunk(value: Mapping[str, Any]) -> Chunk:
    names = [name for name in Chunk.__dataclass_fields__ if name in value]
    found = Chunk(**{name: value[name] for name in names})
    if not isinstance(found.requests, int) or not isinstance(found.out, int) or not isinstance(found.books, dict):
        raise TypeError("not a chunk")
    return found


def _sent(value: Mapping[str, Any], query: PageQuery) -> Sent:
    return Sent(
        chunk=str(value["chunk"]),
        n=int(value["n"]),
        key=parse_key(value["key"]),
        guard=str(value["guard"]),
        was=value["was"],
        tries=int(value["tries"]),
        row=None if value["row"] is None else parse_row(value["row"], query.spec),
        is_pending=value["pending"] is True,
    )
