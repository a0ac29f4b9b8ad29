"""[targets.NAME] of catchup.toml: which keys there are and what each may hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cli import quantities
from jobs.chunking import Chunking, Kind
from jobs.embedding import Store
from jobs.targets import NAME
from queries.errors import Misconfigured

_SQL_NAME, _INDEX_NAME, _SPACE_NAME = f"^{NAME.pattern}$", "^[a-z0-9-]{1,45}$", r"^[\x20-\x7e]{0,512}$"
_NAME_OR_NONE = f"^(?:{NAME.pattern})?$"
# A pattern says nothing to whoever mistyped a name.
MEANT = {
    _INDEX_NAME: "not a name that Pinecone gives an index; 1 to 45 small letters, digits and -",
    _SPACE_NAME: "not a namespace; up to 512 printable ASCII characters",
}
SqlName = Annotated[str, Field(pattern=_SQL_NAME)]
Seconds = Annotated[float, BeforeValidator(lambda value: quantities.read_duration_s(str(value)))]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class JoinedTable(Strict):
    table: SqlName
    on: SqlName
    columns: list[SqlName]
    order_by: SqlName


def _read_overlap(value: object) -> float:
    return 0.0 if value in (0, "0", "0%") else quantities.read_share(str(value))


class ChunksTable(Strict):
    """[targets.NAME.chunks]: the fields of jobs.chunking.Chunking, which also knows what fits together."""

    kind: Kind
    tokens_most: int | None = None
    tokens_least: int | None = None
    overlap_share: Annotated[float, BeforeValidator(_read_overlap)] | None = None
    seconds_least: Seconds | None = None
    seconds_most: Seconds | None = None

    @model_validator(mode="after")
    def _fits(self) -> ChunksTable:
        try:
            Chunking(**self.model_dump(exclude_none=True))
        except Misconfigured as wrong:
            raise ValueError(wrong.what.removeprefix("chunking: ")) from None
        return self


class TargetTable(Strict):
    """[targets.NAME]: changes a default target of that name, or describes a new one whole."""

    job: str | None = None
    table: SqlName | None = None
    schema_: SqlName | None = Field(None, alias="schema")
    key: list[SqlName] | None = Field(None, min_length=1, max_length=2)
    read: list[SqlName] | None = Field(None, min_length=1)
    beside: list[SqlName] | None = None
    filters: list[SqlName] | None = None
    pending: list[str] | None = Field(None, min_length=1)
    cells: dict[SqlName, str] | None = Field(None, min_length=1)
    joined: JoinedTable | None = None
    text: list[SqlName] | None = None
    prompt: str | None = Field(None, min_length=20)
    model: str | None = Field(None, min_length=1)
    max_completion_tokens: int | None = Field(None, ge=16)
    max_characters: int | None = Field(None, ge=40)
    keep_provenance: bool | None = None
    image: Annotated[str, Field(pattern=_NAME_OR_NONE)] | None = None
    detail: Literal["low", "high"] | None = None
    store: Store | None = None
    index: Annotated[str, Field(pattern=_INDEX_NAME)] | None = None
    namespace: Annotated[str, Field(pattern=_SPACE_NAME)] | None = None
    dimensions: int | None = Field(None, ge=1, le=20_000)
    vector_id: str | None = None
    metadata: dict[SqlName, SqlName] | None = None
    chunks: ChunksTable | None = None
    snapshots: SqlName | None = None
    priorities: SqlName | None = None
    published: SqlName | None = None

    def changes(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_none=True)


TABLES_WITHIN: dict[str, type[Strict]] = {"joined": JoinedTable, "chunks": ChunksTable}
