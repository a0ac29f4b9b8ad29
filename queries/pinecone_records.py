"""What a record may be: the rules of Pinecone's that need no request to be known, whatever road the records take."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from queries.errors import DataRejected, Misconfigured
from queries.pinecone_errors import SERVICE
from queries.vectors import Value, VectorRecord

# docs.pinecone.io, database limits, read 2026-11-21: 40 kB of metadata a record, ids of 512 ASCII characters. The
# smaller reading of "kB" is kept, and what is counted is their JSON, which is what the service keeps.
METADATA_MOST = 40_000
ID_MOST = 512
_INT_LEAST, _INT_MOST = -(2**63), 2**64 - 1


def is_id(id_: str) -> bool:
    """What Pinecone takes as an id; anything else cannot be there."""
    return 1 <= len(id_) <= ID_MOST and id_.isascii() and "\0" not in id_


def check_id(id_: str) -> None:
    if not is_id(id_):
        raise refuse(id_, "vector_id", f"An id must be 1 to {ID_MOST} ASCII characters")


def keep_metadata(id_: str, metadata: Mapping[str, Value | None]) -> Mapping[str, Value]:
    """Without nulls, and shortened to what a record may hold."""
    return metadata if _is_simple(metadata) else _check_metadata(id_, metadata)  # type: ignore[return-value]


def _is_simple(metadata: Mapping[str, Value | None]) -> bool:
    """Nothing in it that must be looked at, and surely short enough: they need not be encoded to be measured."""
    size = 0
    for name, value in metadata.items():
        kind = type(value)
        if kind is str:
            size += len(name) + len(value)  # type: ignore[arg-type]
        elif kind is int:
            if not _INT_LEAST <= value <= _INT_MOST:  # type: ignore[operator]
                return False
        elif kind is not bool:
            return False
    # a character is at most six bytes, a number with its quotes and commas at most forty
    return 6 * size + 40 * len(metadata) < METADATA_MOST


def _check_metadata(id_: str, metadata: Mapping[str, Value | None]) -> dict[str, Any]:
    kept = {name: value for name, value in metadata.items() if value is not None}
    for name, value in kept.items():
        _check_value(id_, name, value)
    try:
        size = len(orjson.dumps(kept))
    except orjson.JSONEncodeError:
        raise refuse_unwritable(id_) from None
    return kept if size <= METADATA_MOST else _shorten(id_, kept, size)


def _check_value(id_: str, name: str, value: object) -> None:
    # JSON has no NaN: the encoder would write null, which Pinecone refuses together with the whole request.
    if isinstance(value, float) and not math.isfinite(value):
        raise refuse(id_, "metadata", f"The metadata field {name} is no finite number")
    if isinstance(value, list) and not all(isinstance(each, str) for each in value):
        raise refuse(id_, "metadata", f"The metadata field {name} is a list of something else than texts")
    if not isinstance(value, str | int | float | list):
        raise refuse(id_, "metadata", f"The metadata field {name} is neither text, number, truth nor list of texts")


def _shorten(id_: str, kept: dict[str, Any], size: int) -> dict[str, Any]:
    """The longest text loses its end, then the next longest, until all of it fits."""
    while size > METADATA_MOST:
        texts = [name for name, value in kept.items() if isinstance(value, str) and value]
        if not texts:
            raise refuse(
                id_, "metadata_too_large", f"Without its texts the metadata still exceed {METADATA_MOST} bytes"
            )
        name = max(texts, key=lambda each: len(kept[each]))
        kept[name] = _begin(kept[name], len(orjson.dumps(kept[name])) - (size - METADATA_MOST))
        size = len(orjson.dumps(kept))
    return kept


def _begin(text: str, bytes_most: int) -> str:
    """As many whole characters as encode to that many bytes."""
    fits = bisect.bisect_right(range(1, len(text) + 1), bytes_most, key=lambda end: len(orjson.dumps(text[:end])))
    return text[:fits]


def refuse_twins(records: Sequence[VectorRecord]) -> None:
    ids = {record.id for record in records}
    if len(ids) == len(records):
        return
    seen: set[str] = set()
    twin = next(record.id for record in records if record.id in seen or seen.add(record.id))  # type: ignore[func-returns-value]
    raise Misconfigured(
        f"Two records have the id {twin[:80]}: one would overwrite the other.",
        service=SERVICE,
        fix="Make the id template name each row and each chunk.",
    )


def refuse_infinite(records: Sequence[VectorRecord]) -> None:
    """One look at all of them; the culprit is looked for only when there is one."""
    if np.isfinite(np.frombuffer(b"".join(record.values for record in records), "<f4")).all():
        return
    for record in records:
        if not np.isfinite(np.frombuffer(record.values, "<f4")).all():
            raise refuse(record.id, "not_finite", "The vector holds a number that is not finite")


def refuse_unwritable(id_: str) -> DataRejected:
    return refuse(id_, "metadata", "The metadata hold a text that is not Unicode or a number that is too long")


def refuse(id_: str, reason: str, what: str) -> DataRejected:
    return DataRejected(f"{what} (record {id_[:80]!r}).", reason=reason, service=SERVICE, code=reason)
