"""A vector column of a table, the user's or a space's: what it is, as text, and the rows nearest to a vector."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from queries.errors import Misconfigured, Transient, UnknownOutcome
from queries.ledger_json import parse_key, spec_json
from queries.road import Road
from queries.table import TableSpec
from queries.vectors import Match

Kind = Literal["vector", "halfvec"]
NO_EXTENSION = "create extension vector"
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class VectorColumn:
    """`dimension` is None where the column takes any. `hnsw` says whether a valid index of that kind is on it."""

    schema: str
    table: str
    column: str
    kind: Kind
    dimension: int | None
    extension_schema: str
    hnsw: bool


async def column_facts(road: Road, spec: TableSpec, column: str) -> VectorColumn:
    """Refuses a table without that column, and a column that holds no vectors, before anything is paid."""
    asked = {"schema": spec.schema, "table": spec.table, "column": column}
    answer = expected(await road.read("catchup_column_facts", asked))
    return believed("catchup_column_facts", answer, parse_column, writing=False)


async def column_query(
    road: Road, spec: TableSpec, column: str, vector: bytes, *, top: int, show: Sequence[str] = (),
    where: Sequence[tuple[str, str]] = (),
) -> list[Match]:  # fmt: skip
    """Nearest first; `id` is the key (a JSON array where it has two columns), the metadata are the columns `show`."""
    asked = {"column": column, "vector": as_text(vector), "top": top, "show": list(show), "where": list(where)}
    answer = expected(await road.read("catchup_column_query", {"spec": spec_json(spec), **asked}))
    return believed("catchup_column_query", answer, _parse_rows, writing=False)


def as_text(vector: bytes) -> str:
    """pgvector's own notation, with the shortest digits that give the same float32 again."""
    import numpy  # noqa: PLC0415  # heavy, and only where vectors are
    import orjson  # noqa: PLC0415

    return orjson.dumps(numpy.frombuffer(vector, "<f4"), option=orjson.OPT_SERIALIZE_NUMPY).decode()


def parse_column(answer: Mapping[str, Any]) -> VectorColumn:
    dimension = answer["dimension"]
    if answer["kind"] not in ("vector", "halfvec"):
        raise ValueError("an unknown type")
    return VectorColumn(
        str(answer["schema"]),
        str(answer["table"]),
        str(answer.get("column", "embedding")),
        answer["kind"],
        None if dimension is None else int(dimension),
        str(answer["extension_schema"]),
        answer["hnsw"] is True,
    )


def expected(answer: dict[str, Any]) -> dict[str, Any]:
    """Refusals come as values, since a RAISE looks different on every road."""
    if "no_extension" in answer:
        raise Misconfigured(
            "the database does not have the extension pgvector",
            fix=f"run `{NO_EXTENSION}` as its owner (Supabase: Database, Extensions, vector)",
            service="database",
        )
    if "problem" in answer:
        raise Misconfigured(str(answer["problem"]), fix="check the target's names", service="database")
    return answer


def believed(
    function: str, answer: dict[str, Any], parse: Callable[[dict[str, Any]], _Read], *, writing: bool
) -> _Read:
    """What `parse` makes of an answer; a malformed one is as good as none."""
    try:
        return parse(answer)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kind = UnknownOutcome if writing else Transient
        raise kind(f"{function} gave a malformed answer ({type(error).__name__})", service="database") from error


def _parse_rows(answer: Mapping[str, Any]) -> list[Match]:
    matches = []
    for row in answer["matches"]:
        key = parse_key(row["key"])
        shown = {name: value for name, value in row["values"].items() if value is not None}
        matches.append(Match(key[0] if len(key) == 1 else json.dumps(key), float(row["score"]), shown))
    return matches
