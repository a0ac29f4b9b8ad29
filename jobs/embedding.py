"""How a target's text becomes vectors: its chunks, their ids, what is kept beside them, and where they go."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from jobs import content
from jobs.chunking import Chunk, Chunking
from queries.table import Key, Row
from queries.vectors import Value

SNIPPET = 360  # characters of each text that are kept beside a vector
ID_MOST = 512  # Pinecone's own limit, in ASCII characters (docs.pinecone.io, operation limits)


@dataclass(frozen=True, slots=True)
class Embedding:
    """`metadata` maps the name beside the vector to the column it comes from; `{key}` and `{n}` make the id."""

    into: Literal["pinecone", "pgvector", "column"]
    dimensions: int
    index: str = ""
    namespace: str = ""
    vector_id: str = "{key}"
    metadata: Mapping[str, str] = field(default_factory=dict)
    chunking: Chunking = field(default_factory=Chunking)

    def describe(self, text: tuple[str, ...]) -> str:
        """What a vector depends on beside the text and the model: another description is another vector."""
        return f"embed {','.join(text)} in {self.dimensions} dimensions, {self.chunking.mark}"

    def id_of(self, key: Key, number: int) -> str:
        """The same row and chunk always have the same id, so that storing again overwrites."""
        name = ":".join(key)
        plain = name if name.isascii() else quote(name, safe=string.printable)
        return self.vector_id.replace("{key}", plain).replace("{n}", str(number))

    def ids_of(self, key: Key, parts: int, start: int = 0) -> tuple[str, ...]:
        return tuple(self.id_of(key, number) for number in range(start, parts))

    def key_of(self, id_: str) -> str | None:
        """What stands where the template has the key; None where the id is of another scheme."""
        before, _, after = self.vector_id.partition("{key}")
        after, counted, _ = after.partition("{n}")
        if not id_.startswith(before):
            return None
        rest = id_[len(before) :]
        if counted:
            name, found, number = rest.rpartition(after)
            return name if found and name and number.isdecimal() else None
        return rest.removesuffix(after) if rest.endswith(after) and len(rest) > len(after) else None

    def describe_chunks(self, row: Row, chunks: list[Chunk]) -> Iterator[dict[str, Value]]:
        """The metadata of each chunk. A null is left out: Pinecone has none."""
        common = {name: value for name, column in self.metadata.items() if (value := _plain(row.values.get(column)))}
        for number, chunk in enumerate(chunks):
            own: dict[str, Value] = {}
            if self.chunking.kind != "whole":
                own = {"text": chunk.text[:SNIPPET], "chunk": number}
            if chunk.start_s is not None and chunk.end_s is not None:
                own |= {"start_s": chunk.start_s, "end_s": chunk.end_s}
            yield common | own


def _plain(value: object) -> Value | None:
    match value:
        case bool() | int() | float():
            return value
        case str():
            return content.clean(value)[:SNIPPET] or None
        case _:
            return None
