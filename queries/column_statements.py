"""Which columns and indexes a set has, and the statements that add and remove them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    default: str = ""


@dataclass(frozen=True, slots=True)
class TableSet:
    """What one table gets. `gin` is the column that is searched by its elements, `unique` what tells rows apart."""

    schema: str
    table: str
    columns: tuple[Column, ...]
    gin: str = ""
    unique: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ColumnSet:
    name: str
    tables: tuple[TableSet, ...]

    @property
    def mark(self) -> str:
        """The comment on what we added: what was there before is not ours to take away."""
        return f"added by catchup migrate --set {self.name}"


def up_statements(wanted: ColumnSet) -> list[str]:
    """To be run one by one: an index that blocks no writer cannot be built in a transaction."""
    said = []
    for each in wanted.tables:
        for column in each.columns:
            steps = f"{add_columns(each, [column])}; {mark_column(each, column, wanted.mark)};"
            said.append(_if(f"not exists ({_there(each, column)})", steps))
        said += [build_index(each, kind) for kind in kinds_of(each)]
    return [*said, "notify pgrst, 'reload schema'"]


def down_statements(wanted: ColumnSet) -> list[str]:
    """Only what bears our mark is dropped."""
    said = []
    for each in reversed(wanted.tables):
        said += [drop_index(each, kind) for kind in kinds_of(each)]
        for column in each.columns:
            ours = f"{_there(each, column)} and col_description(attrelid, attnum) = {_quote(wanted.mark)}"
            said.append(_if(f"exists ({ours})", f"{drop_columns(each, [column.name])};"))
    return [*said, "notify pgrst, 'reload schema'"]


def _if(test: str, steps: str) -> str:
    return f"do $do$ begin if {test} then {steps} end if; end $do$"


def _there(each: TableSet, column: Column) -> str:
    return (
        f"select from pg_attribute where attrelid = to_regclass({_quote(as_text(name_of(each)))}) "
        f"and attname = {_quote(column.name)} and not attisdropped"
    )


def _quote(value: str) -> str:
    return as_text(sql.Literal(value))


def kinds_of(each: TableSet) -> list[str]:
    return [*(["unique"] if each.unique else []), *(["gin"] if each.gin else [])]


def say_index(each: TableSet, kind: str) -> str:
    return f"GIN index on {each.gin}" if kind == "gin" else f"unique index on ({', '.join(each.unique)})"


def _index_name(each: TableSet, kind: str) -> str:
    return f"{each.table}_catchup_{kind}"[:63]


def add_columns(each: TableSet, columns: Sequence[Column]) -> str:
    """One statement for all of them; a constant default rewrites no row."""
    parts = [sql.SQL("add column if not exists {} {}").format(sql.Identifier(c.name), _typed(c)) for c in columns]
    return as_text(sql.SQL("alter table {} {}").format(name_of(each), sql.SQL(", ").join(parts)))


def _typed(column: Column) -> sql.SQL:
    return sql.SQL(column.type + (f" default {column.default}" if column.default else ""))


def set_default(each: TableSet, column: Column) -> str:
    return as_text(
        sql.SQL("alter table {} alter column {} set default {}").format(
            name_of(each),
            sql.Identifier(column.name),
            sql.SQL(column.default),
        )
    )


def mark_column(each: TableSet, column: Column, mark: str) -> str:
    return as_text(
        sql.SQL("comment on column {}.{} is {}").format(name_of(each), sql.Identifier(column.name), sql.Literal(mark))
    )


def drop_columns(each: TableSet, columns: Sequence[str]) -> str:
    parts = [sql.SQL("drop column if exists {}").format(sql.Identifier(name)) for name in columns]
    return as_text(sql.SQL("alter table {} {}").format(name_of(each), sql.SQL(", ").join(parts)))


def build_index(each: TableSet, kind: str) -> str:
    name, place = sql.Identifier(_index_name(each, kind)), name_of(each)
    if kind == "gin":
        form = sql.SQL("create index concurrently if not exists {} on {} using gin ({})")
        return as_text(form.format(name, place, sql.Identifier(each.gin)))
    columns = sql.SQL(", ").join(map(sql.Identifier, each.unique))
    return as_text(sql.SQL("create unique index concurrently if not exists {} on {} ({})").format(name, place, columns))


def drop_index(each: TableSet, kind: str) -> str:
    name = sql.Identifier(each.schema, _index_name(each, kind))
    return as_text(sql.SQL("drop index concurrently if exists {}").format(name))


def name_of(each: TableSet) -> sql.Identifier:
    return sql.Identifier(each.schema, each.table)


def as_text(part: sql.Composable) -> str:
    return part.as_string(None)
