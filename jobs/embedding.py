"""How a target's text becomes vectors: its chunks, their ids, what is kept beside them, and where they go."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, Literal
from urllib.parse import quote, unquote

from jobs import content
from jobs.chunking import Chunk, Chunking
from queries.table import Key, Row
from queries.vectors import Value

Store = Literal["pinecone", "pgvector", "column"]
SNIPPET = 360  # characters of each text that are kept beside a vector
ID_MOST = 512  # Pinecone's own limit, in ASCII characters (docs.pinecone.io, operation limits)
DIMENSIONS_MOST: Mapping[Store, int] = {"pinecone": 20_000, "pgvector": 16_000, "column": 16_000}
"""Pinecone's index of dense vectors (docs.pinecone.io, limits), and pgvector's type (its README); 2026-11-21."""
CHUNK_ID = "{key}#{n}"
SPACE_MOST = 128
OF_A_CHUNK = ("text", "chunk", "start_s", "end_s")
ONLY_VECTORS = ("store", "index", "namespace", "dimensions", "vector_id", "metadata", "chunks")
# A digit before {n} would let two rows have one id: 1 and 12 of "{key}0{n}". Other braces are a slip of the pen.
_PLAIN = r"[\x20-\x7a\x7c\x7e]"
_TEMPLATE = re.compile(rf"{_PLAIN}*\{{key\}}(?:{_PLAIN}*|{_PLAIN}*[^\d{{}}]\{{n\}}{_PLAIN}*)", re.ASCII)
# An ASCII key stands in its id as it is, unless it reads like a quoted one: "%C3%A9" would be the id of "é".
_QUOTED = re.compile(r"%(?:25)*[89A-F][0-9A-F]")
_AS_IT_IS = string.printable.replace("%", "")
_AS_IT_IS_OF_MANY = _AS_IT_IS.replace(":", "")


@dataclass(frozen=True, slots=True)
class Embedding:
    """`metadata` maps the name beside the vector to the column it comes from; `{key}` and `{n}` make the id."""

    into: Store
    dimensions: int
    index: str = ""
    namespace: str = ""
    vector_id: str = "{key}"
    metadata: Mapping[str, str] = field(default_factory=dict)
    chunking: Chunking = field(default_factory=Chunking)

    def find_wrong(self) -> Iterator[str]:
        """What does not fit together, whatever the table; names and ranges alone are checked where they are read."""
        is_whole = self.chunking.kind == "whole"
        most = DIMENSIONS_MOST[self.into]
        if not 1 <= self.dimensions <= most:
            yield f"dimensions: {self.dimensions} is not from 1 to {most}"
        if self.into == "pinecone" and not self.index:
            yield "index: missing; name the Pinecone index"
        if self.into == "pgvector" and len(self.namespace) > SPACE_MOST:
            yield f"namespace: the name of a space has at most {SPACE_MOST} characters"
        if self.into == "column" and not is_whole:
            yield "chunks: a column of the row holds one vector, so its text is embedded whole"
        if not _TEMPLATE.fullmatch(self.vector_id):
            yield 'vector_id: printable ASCII with one {key}, and {n} behind it, as in "{key}#{n}"'
        elif not is_whole and "{n}" not in self.vector_id:
            yield 'vector_id: without {n} the chunks of a row would overwrite each other; as in "{key}#{n}"'
        taken = [] if is_whole else [name for name in self.metadata if name in OF_A_CHUNK]
        if taken:
            yield f"metadata: {', '.join(taken)} is what a chunk itself is described by; use another name"

    @property
    def has_many(self) -> bool:
        """Whether a row can have more than one vector."""
        return self.into != "column" and "{n}" in self.vector_id

    @property
    def place(self) -> str:
        """Where that is, for an operator."""
        match self.into:
            case "column":
                return "a column of the row"
            case "pgvector":
                return f"space {self.namespace} (pgvector)"
            case _:
                return f"namespace {self.namespace or '__default__'} of Pinecone index {self.index}"

    def describe(self, text: tuple[str, ...]) -> str:
        """What a vector depends on beside the text and the model: another description is another vector."""
        return f"embed {','.join(text)} in {self.dimensions} dimensions, {self.chunking.mark}"

    def id_of(self, key: Key, number: int) -> str:
        """The same row and chunk always have the same id, so that storing again overwrites; others never have it."""
        # The number first: a key may have "{n}" in it.
        template = self.vector_id.replace("{n}", str(number)) if "{n}" in self.vector_id else self.vector_id
        return template.replace("{key}", _write_key(key))

    def ids_of(self, key: Key, parts: int, start: int = 0) -> tuple[str, ...]:
        return tuple(self.id_of(key, number) for number in range(start, parts))

    def key_of(self, id_: str, columns: int = 1) -> Key | None:
        """The key that `id_of` was given; None where the id is of another scheme."""
        template = re.escape(self.vector_id).replace(r"\{key\}", "(.*)").replace(r"\{n\}", "(?:0|[1-9][0-9]*)")
        found = re.fullmatch(template, id_, re.DOTALL)
        return _read_key(found[1], columns) if found else None

    def describe_chunks(self, row: Row, chunks: list[Chunk]) -> Iterator[dict[str, Value]]:
        """The metadata of each chunk. A null is left out: Pinecone has none."""
        common = {name: value for name, column in self.metadata.items() if (value := _plain(row.values.get(column)))}
        if self.chunking.kind == "whole":
            yield from repeat(common, len(chunks))
            return
        for number, chunk in enumerate(chunks):
            own: dict[str, Value] = {"text": chunk.text[:SNIPPET], "chunk": number}
            if chunk.start_s is not None and chunk.end_s is not None:
                own |= {"start_s": chunk.start_s, "end_s": chunk.end_s}
            yield common | own


def embedding_with(base: Embedding, changes: Mapping[str, Any]) -> Embedding:
    """The keys of a target in catchup.toml over a default; a chunked target has another id unless one is given."""
    plain = {
        name: changes[name] for name in ("index", "namespace", "dimensions", "vector_id", "metadata") if name in changes
    }
    made = replace(base, **plain, **({"into": changes["store"]} if "store" in changes else {}))
    if "chunks" in changes:
        made = replace(made, chunking=Chunking(**changes["chunks"]))
    if made.chunking.kind != "whole" and base.chunking.kind == "whole" and "vector_id" not in changes:
        made = replace(made, vector_id=CHUNK_ID)
    return made


def _plain(value: object) -> Value | None:
    if isinstance(value, str):
        return content.clean(value)[:SNIPPET] or None
    return value if isinstance(value, (bool, int, float)) else None  # a union would be made each time


def _write_key(key: Key) -> str:
    """In ASCII, as Pinecone asks for, and never alike for two keys."""
    if len(key) > 1:
        return ":".join(quote(part, safe=_AS_IT_IS_OF_MANY) for part in key)
    is_plain = key[0].isascii() and ("%" not in key[0] or not _QUOTED.search(key[0]))
    return key[0] if is_plain else quote(key[0], safe=_AS_IT_IS)


def _read_key(name: str, columns: int) -> Key | None:
    if columns > 1:
        key = tuple(unquote(part) for part in name.split(":"))
    else:
        key = (unquote(name) if _QUOTED.search(name) else name,)
    return key if len(key) == columns and _write_key(key) == name else None
