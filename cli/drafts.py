"""Targets drafted from a database's real names, commented out: what is filled is the operator's decision."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.targets import NAME

if TYPE_CHECKING:
    from jobs.targets import Target
    from queries.catalog import FoundTable, Lengths

_SMALL, _LARGE = "text-embedding-3-small", "text-embedding-3-large"
_SMALL_MOST, _LARGE_MOST = 1_536, 3_072  # dimensions
_BYTES_PER_TOKEN = 4  # of English
# Whole and small under 1,000 tokens, large over 5,000: what an operator with both lengths came to.
_WHOLE_TOKENS, _LARGE_TOKENS = 1_000, 5_000
_WORTH_BYTES = 20
_USUAL_DIMENSIONS = 512
_SPOKEN = re.compile(r"segments|transcript", re.IGNORECASE)
_NO_PROSE = re.compile(r"(url|uri|path|hash|uuid|slug|email|phone|model|token|(^|_)id|code|lang\w*)$", re.IGNORECASE)
_MARK = re.compile(r"embed|vector|index|sync", re.IGNORECASE)


def find_plain(tables: Sequence[FoundTable]) -> list[FoundTable]:
    """Tables and columns that a target can name: any other would be refused, or break out of its comment."""

    def plain(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if NAME.fullmatch(name))

    return [
        replace(
            table,
            texts=plain(table.texts),
            empty_able=plain(table.empty_able),
            flags=plain(table.flags),
            documents=plain(table.documents),
            vectors=tuple(column for column in table.vectors if NAME.fullmatch(column[0])),
            lengths={name: table.lengths[name] for name in plain(tuple(table.lengths))},
        )
        for table in tables
        if plain(whole := (table.schema, table.table, *table.key)) == whole
    ]


def draft_changes(target: Target) -> str:
    """What is likely to be another one here: above all, nobody else's index has the name of a default target's."""
    lines = [f"[targets.{target.name}]", f"filters = {as_list(target.spec.filters)}", f'model = "{target.model}"']
    embedding = target.embedding
    if embedding is not None:
        lines.append(f"dimensions = {embedding.dimensions}")
        if embedding.into != "column":
            lines.append('store = "pinecone"  # or "pgvector": in this database')
            lines += [f'index = "{embedding.index}"', f'namespace = "{embedding.namespace}"']
    return _commented(
        f"The default target {target.name} fits this database. Uncomment what you want to change:", *lines
    )


def draft_summaries(table: FoundTable) -> str:
    """Empty where no text column may be null."""
    summaries = [name for name in table.empty_able if "summary" in name] or list(table.empty_able)
    if not summaries:
        return ""
    cell = summaries[0]
    read = [name for name in table.texts if name != cell and name not in table.key][:3]
    if not read:
        return ""
    return _commented(
        f"Table {table.schema}.{table.table} (~{table.estimated_rows:,} rows). Check every line, then uncomment:",
        f"[targets.{_name(table)}]",
        'job = "backfill-summaries"',
        *_where(table),
        f"read = {as_list(read)}",
        f'pending = ["{cell} is null"]',
        f'cells = {{ {cell} = "answer" }}',
        'prompt = "Summarise the text in one or two plain sentences. Use only what it says."',
        'model = "gpt-4o-mini"',
    )


def draft_vectors(table: FoundTable, *, pinecone: bool) -> str:
    """One target for the text most worth it; empty where the sample shows none."""
    spoken = [name for name in table.documents if _SPOKEN.search(name)]
    column = spoken[0] if spoken else _longest(table)
    if not column:
        return ""
    lengths = table.lengths.get(column)
    tokens = lengths.most // _BYTES_PER_TOKEN if lengths else 0
    home = None if spoken else next(iter(table.vectors), None)
    kind = "segments" if spoken else "paragraphs" if tokens > _WHOLE_TOKENS and home is None else "whole"
    dimensions = home[1] or _USUAL_DIMENSIONS if home else _USUAL_DIMENSIONS
    is_long = lengths is not None and lengths.mean // _BYTES_PER_TOKEN > _LARGE_TOKENS
    model = _LARGE if is_long or dimensions > _SMALL_MOST else _SMALL
    title = next((name for name in ("title", "name") if name in table.texts and name != column), "")
    chunks = () if kind == "whole" else (f"[targets.{_name(table)}-vectors.chunks]", f'kind = "{kind}"')
    return _commented(
        f"Table {table.schema}.{table.table}, column {column}: {_say(lengths, kind)}",
        "Check every line, then uncomment:",
        f"[targets.{_name(table)}-vectors]",
        'job = "vectorize"',
        *_where(table),
        f"read = {as_list([column])}",
        *(_in_the_row(home[0]) if home else _beside_it(table, column, pinecone)),
        f'model = "{model}"',
        f"dimensions = {dimensions}" + _remark(dimensions, bool(home and home[1])),
        *((f'metadata = {{ title = "{title}" }}',) if title else ()),
        *chunks,
    )


def as_list(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _longest(table: FoundTable) -> str:
    worth = {
        name: lengths.mean
        for name, lengths in table.lengths.items()
        if name not in table.key and lengths.mean >= _WORTH_BYTES and not _NO_PROSE.search(name)
    }
    return max(worth, key=lambda name: worth[name], default="")


def _say(lengths: Lengths | None, kind: str) -> str:
    how = {
        "segments": "a transcript is embedded by segments of 30 to 60 s.",
        "paragraphs": "long texts are embedded by paragraphs.",
        "whole": "short enough to be embedded whole.",
    }[kind]
    if lengths is None:
        return how
    if kind == "whole" and lengths.most // _BYTES_PER_TOKEN > _WHOLE_TOKENS:
        how = "long for one vector, but a column of the row holds one."
    mean, most = (max(1, size // _BYTES_PER_TOKEN) for size in (lengths.mean, lengths.most))
    return f"in {lengths.rows:,} rows about {mean:,} tokens on average, {most:,} at most; {how}"


def _in_the_row(column: str) -> tuple[str, ...]:
    return (f'pending = ["{column} is null"]', f'cells = {{ {column} = "answer" }}', 'store = "column"')


def _beside_it(table: FoundTable, column: str, pinecone: bool) -> tuple[str, ...]:
    """A flag marks the row. An index nobody has named cannot be guessed: capitals are refused until it is."""
    marks = [name for name in table.flags if _MARK.search(name)]
    mark = marks[0] if marks else f"{column}_embedded"
    first = "" if marks else f'  # first: alter table "{table.schema}"."{table.table}" add column {mark} boolean;'
    store = ('store = "pinecone"', 'index = "NAME-IT"') if pinecone else ('store = "pgvector"',)
    return (
        f'pending = ["{mark} is not true", "{column} is not null"]',
        f'cells = {{ {mark} = "true" }}{first}',
        *store,
    )


def _remark(dimensions: int, is_given: bool) -> str:
    if dimensions > _LARGE_MOST:
        return f"  # the column's; OpenAI's models give at most {_LARGE_MOST}"
    return "  # the column's" if is_given else ""


def _where(table: FoundTable) -> tuple[str, ...]:
    return (f'table = "{table.table}"', f'schema = "{table.schema}"', f"key = {as_list(table.key)}")


def _name(table: FoundTable) -> str:
    return re.sub(r"[^a-z0-9]+", "-", table.table.lower()).strip("-")[:40] or "table"


def _commented(*lines: str) -> str:
    return "\n".join(f"# {line}" for line in lines)
