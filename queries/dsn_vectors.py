"""Vectors over the wire as pgvector's own binary: 500 of 1,536 numbers as text took the server 150 ms, so 20."""

from __future__ import annotations

import json
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

from queries.road import VectorTable
from queries.vectors import VectorRecord

# `rows from` pairs the two lists by place. The column's own type may be halfvec: the assignment converts.
_PUT = """
insert into {table} as t (id, embedding, metadata)
select r.v->>0, r.embedding, r.v->1
from rows from (jsonb_array_elements(%s::jsonb), unnest(%b::{place}.vector[])) as r(v, embedding)
on conflict (id) do update set embedding = excluded.embedding, metadata = excluded.metadata
"""


@dataclass(frozen=True, slots=True)
class VectorArray:
    """A `vector[]` as array_recv reads it."""

    wire: bytes


class VectorArrayDumper(Dumper):
    """Without a type number of its own: the cast in the statement says what it is."""

    format = Format.BINARY

    def dump(self, obj: VectorArray) -> Buffer:
        return obj.wire


def put_statement(table: VectorTable, records: Sequence[VectorRecord]) -> tuple[sql.Composed, tuple[str, VectorArray]]:
    """The statement of catchup_space_put and its two arguments."""
    query = sql.SQL(_PUT).format(
        table=sql.Identifier(table.schema, table.table), place=sql.Identifier(table.extension_schema)
    )
    rest = json.dumps([[record.id, dict(record.metadata)] for record in records])
    return query, (rest, VectorArray(_array([record.values for record in records], table.vector_oid)))


def _array(vectors: Sequence[bytes], oid: int) -> bytes:
    parts = [struct.pack(">iiiii", 1, 0, oid, len(vectors), 1)]
    for vector in vectors:
        numbers = array("f", vector)
        if sys.byteorder == "little":
            numbers.byteswap()
        body = numbers.tobytes()
        parts += (struct.pack(">iHH", len(body) + 4, len(numbers), 0), body)
    return b"".join(parts)
