"""What the fake Pinecone holds: indexes, their namespaces, and a log whose newest writes readers do not see yet."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import orjson

RECORDS_MOST = 1_000
BYTES_MOST = 2_000_000
METADATA_MOST = 40_000
ID_MOST = 512
MONTHLY = (
    "Request failed. You've reached your write unit limit for the current month (2000000). "
    "To continue writing data, upgrade your plan."
)
PER_SECOND = "Request failed. You've reached the max upsert size limit per second for index videos. Pace your upserts."
LSN_HEADERS = {
    "on": ("x-pinecone-request-lsn", "x-pinecone-max-indexed-lsn"),
    "old": ("x-pinecone-lsn-committed", "x-pinecone-lsn-reconciled"),
}


class Refused(Exception):
    """A request the real service would not take: its status, and its words."""

    def __init__(self, message: str, status: int = 400, code: int = 3) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(slots=True)
class Stored:
    """One record. In cheap mode only its id is kept, and `values` is None."""

    values: np.ndarray[Any, np.dtype[np.float32]] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Namespace:
    """`live` is what readers see; `pending` waits until its moment, in the order it was written."""

    live: dict[str, Stored] = field(default_factory=dict)
    pending: deque[tuple[float, int, dict[str, Stored | None]]] = field(default_factory=deque)
    lsn: int = 0
    indexed: int = 0
    _ids: list[str] | None = None

    def write(self, changes: dict[str, Stored | None], due: float) -> int:
        """The log sequence number under which the changes (None deletes) will be visible."""
        self.lsn += 1
        self.pending.append((due, self.lsn, changes))
        return self.lsn

    def settle(self, now: float = math.inf) -> None:
        while self.pending and self.pending[0][0] <= now:
            _, self.indexed, changes = self.pending.popleft()
            for id_, stored in changes.items():
                if stored is None:
                    self.live.pop(id_, None)
                else:
                    self.live[id_] = stored
            self._ids = None

    def page(self, prefix: str, after: str, limit: int) -> tuple[list[str], str]:
        """Ids in order, and the token of the next page or an empty one."""
        if self._ids is None:
            self._ids = sorted(self.live)
        start = bisect.bisect_right(self._ids, after) if after else bisect.bisect_left(self._ids, prefix)
        found = [each for each in self._ids[start : start + limit + 1] if each.startswith(prefix)]
        return found[:limit], found[limit - 1] if len(found) > limit else ""

    def forget(self, ids: Iterable[str]) -> None:
        """Vectors vanish behind everybody's back: no write, no log entry."""
        for each in ids:
            del self.live[each]
        self._ids = None

    def nearest(
        self, vector: np.ndarray[Any, Any], top: int, where: Mapping[str, Any], metric: str
    ) -> list[tuple[str, float]]:
        rows = [(k, v.values) for k, v in self.live.items() if v.values is not None and meets(v.metadata, where)]
        if not rows:
            return []
        scores = score(np.stack([values for _, values in rows]), vector, metric)
        best = np.argsort(scores if metric == "euclidean" else -scores, kind="stable")[:top]
        return [(rows[i][0], float(scores[i])) for i in best]


@dataclass
class Index:
    name: str
    dimension: int
    metric: str = "cosine"
    namespaces: dict[str, Namespace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.namespaces.setdefault("", Namespace())


def score(rows: np.ndarray[Any, Any], vector: np.ndarray[Any, Any], metric: str) -> np.ndarray[Any, Any]:
    if metric == "euclidean":
        return np.asarray(((rows - vector) ** 2).sum(axis=1))
    dots = rows @ vector
    if metric == "cosine":
        dots = dots / (np.linalg.norm(rows, axis=1) * np.linalg.norm(vector))
    return np.asarray(dots)


def meets(metadata: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Equality and $in, on lists by membership, joined by $and: what the toolkit may ask."""
    for name, wanted in where.items():
        if name == "$and":
            if not all(meets(metadata, each) for each in wanted):
                return False
            continue
        asked = wanted if isinstance(wanted, dict) else {"$eq": wanted}
        have = metadata.get(name)
        held = have if isinstance(have, list) else [have]
        if set(asked) - {"$eq", "$in"}:
            raise Refused(f"unsupported operator in {sorted(asked)}")
        if "$eq" in asked and not any(type(h) is type(asked["$eq"]) and h == asked["$eq"] for h in map(_number, held)):
            return False
        if "$in" in asked and not any(h in asked["$in"] for h in held):
            return False
    return True


def _number(value: Any) -> Any:
    """JSON knows one kind of number: 3 and 3.0 are the same."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_records(vectors: Sequence[Mapping[str, Any]], index: Index) -> dict[str, Stored | None]:
    """The records of an upsert, refused in the words of the real service."""
    found: dict[str, Stored | None] = {}
    for number, each in enumerate(vectors):
        check_id(each.get("id"))
        found[each["id"]] = Stored(_read_values(each.get("values"), number, index), each.get("metadata") or {})
        _check_metadata(found[each["id"]].metadata)  # type: ignore[union-attr]
    return found


def check_id(id_: Any) -> None:
    if not isinstance(id_, str) or not 1 <= len(id_) <= ID_MOST:
        raise Refused(f"Vector ID must be between 1 and {ID_MOST} characters long")
    if not id_.isascii():
        raise Refused(f"Vector ID must be ASCII, but got '{id_}'")


def _read_values(values: Any, number: int, index: Index) -> np.ndarray[Any, np.dtype[np.float32]]:
    if not isinstance(values, list) or len(values) != index.dimension:
        have = len(values) if isinstance(values, list) else 0
        raise Refused(f"Vector dimension {have} does not match the dimension of the index {index.dimension}")
    if None in values:
        raise Refused(f"vectors[{number}].values[{values.index(None)}]: invalid value null for type TYPE_FLOAT")
    read = np.array(values, dtype="<f4")
    if not np.isfinite(read).all():
        raise Refused(f"vectors[{number}].values: every value must be a finite number")
    if not read.any():
        raise Refused("Dense vectors must contain at least one non-zero value. Vector ID at fault is not told")
    return read


def _check_metadata(metadata: dict[str, Any]) -> None:
    for name, value in metadata.items():
        texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not texts and not isinstance(value, str | int | float | bool):
            kind = "null" if value is None else orjson.dumps(value).decode()[:80]
            raise Refused(
                f"Metadata value must be a string, number, boolean or list of strings, got '{kind}' for field '{name}'"
            )
    size = len(orjson.dumps(metadata))
    if size > METADATA_MOST:
        raise Refused(f"Metadata size is {size} bytes, which exceeds the limit of {METADATA_MOST} bytes per vector")


class CheapRecord(msgspec.Struct):
    id: str


class CheapUpsert(msgspec.Struct):
    vectors: list[CheapRecord]
    namespace: str = ""


CHEAP = msgspec.json.Decoder(CheapUpsert)


def read_json(body: bytes, cheap: bool) -> tuple[list[Any], str]:
    """The vectors and the namespace of an upsert; of a benchmark's vectors their ids only."""
    if cheap:
        quick = CHEAP.decode(body)
        return [each.id for each in quick.vectors], quick.namespace
    read = orjson.loads(body)
    return read["vectors"], read.get("namespace", "")


def plain(namespace: str) -> str:
    return "" if namespace == "__default__" else namespace


def shown(id_: str, stored: Stored) -> dict[str, Any]:
    values = [1.0] if stored.values is None else stored.values.tolist()  # the client takes no empty vector
    return {"id": id_, "values": values} | ({"metadata": stored.metadata} if stored.metadata else {})
