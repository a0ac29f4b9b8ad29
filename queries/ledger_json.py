"""What the database functions are told and what they answer, as JSON. An answer is parsed strictly or not believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from queries.ledger_types import Home, Lump, RowVerdict, RunRecord, WriteBatch, WriteResult
from queries.table import ColumnFacts, Key, Known, Page, PageQuery, Row, Slice, TableFacts, TableSpec


def spec_json(spec: TableSpec) -> dict[str, Any]:
    return {**asdict(spec), "joined": asdict(spec.joined) if spec.joined else None}


def slice_json(slice_: Slice) -> dict[str, Any]:
    return {"above": slice_.above, "upto": slice_.upto}


def page_json(query: PageQuery) -> dict[str, Any]:
    return {
        "spec": spec_json(query.spec),
        "target": query.target,
        "fingerprint": query.fingerprint,
        "above": query.above,
        "upto": query.upto,
        "limit": query.limit,
        "where": query.where,
        "among": query.among,
        "redo": asdict(query.redo) if query.redo else None,
        "retry_failed": query.retry_failed,
        "known": query.with_known,
        "window": query.limit if query.in_window else 0,
    }


def batch_json(batch: WriteBatch) -> dict[str, Any]:
    cells = sorted({cell for row in batch.rows for cell in row.cells})
    if any(len(row.cells) != len(cells) for row in batch.rows):
        raise ValueError("every row of a batch writes the same cells: a missing one would become null")
    return {
        "write_id": batch.write_id,
        "run_id": batch.run_id,
        "generation": batch.generation,
        "target": batch.target,
        "fingerprint": batch.fingerprint,
        "spec": spec_json(batch.spec),
        "cells": cells,
        "rows": [
            {"key": row.key, "guard": row.guard, "was": row.was, "cells": row.cells, "parts": row.parts}
            | ({"elsewhere": True} if row.elsewhere else {})
            | ({"sent": True} if row.is_sent else {})
            for row in batch.rows
        ],
        "verdicts": [asdict(verdict) for verdict in batch.verdicts],
        "books": dict(batch.books),
        "checkpoint": batch.checkpoint,
        "spend": asdict(batch.spend),
        "unconfirmed": batch.unconfirmed,
        "unconfirmed_usd": batch.unconfirmed_usd,
        "model": batch.model,
        "prompt_hash": batch.prompt_hash,
    }


def parse_key(value: Any) -> Key:
    if not isinstance(value, list) or not value:
        raise TypeError("not a key")
    for part in value:  # of each row: all() of a generator takes three times as long
        if not isinstance(part, str):
            raise TypeError("not a key")
    return tuple(value)


def parse_row(value: Mapping[str, Any], spec: TableSpec) -> Row:
    joined = value["joined"]
    row = Row(
        key=parse_key(value["key"]),
        guard=_text(value["guard"]),
        values={column: value["values"][column] for column in (*spec.read, *spec.beside)},
        was={cell: _text_or_null(value["was"][cell]) for cell in spec.cells},
        joined=tuple(joined) if joined is not None else (),
        known=parse_known(value.get("known")),
        is_due=value.get("due") is True,
    )
    if len(row.key) != len(spec.key):
        raise ValueError("a key of another length")
    return row


def parse_due_row(value: Mapping[str, Any], spec: TableSpec) -> Row:
    """One of a schedule: it has since when it is due in its key, and more values than were asked for."""
    was = parse_cells(value["was"], spec)
    if not isinstance(value["values"], dict):
        raise TypeError("not an object")
    return Row(parse_key(value["key"]), _text(value["guard"]), value["values"], was)


def parse_page(answer: Mapping[str, Any], query: PageQuery) -> Page:
    rows = [parse_row(row, query.spec) for row in answer["rows"]]
    if query.in_window:
        return Page(rows, _key_or_null(answer["last"]))
    return Page(rows, rows[-1].key if rows else None)


def parse_known(value: Any) -> Known | None:
    if value is None:
        return None
    model, prompt_hash, parts, same_text, run_id = value
    return Known(_text(model), _text(prompt_hash), _whole(parts), same_text is True, _text(run_id))


def parse_cells(value: Mapping[str, Any], spec: TableSpec) -> dict[str, str | None]:
    return {cell: _text_or_null(value[cell]) for cell in spec.cells}


def parse_written(value: Mapping[str, Any], sent: int) -> WriteResult:
    """Every row that was sent must be accounted for exactly once, else the answer is not believed."""
    wrote = [_whole(index) for index in value["wrote"]]
    gone = [_whole(index) for index in value["gone"]]
    changed = {int(index): _text(why) for index, why in value["changed"].items()}
    if sorted([*wrote, *gone, *changed]) != list(range(sent)):
        raise ValueError("the answer does not account for every row")
    return WriteResult(frozenset(wrote), changed, frozenset(gone), value["cancel_asked"] is True)


def parse_run(value: Mapping[str, Any]) -> RunRecord:
    return RunRecord(
        run_id=_text(value["run_id"]),
        job=_text(value["job"]),
        target=_text(value["target"]),
        fingerprint=_text(value["fingerprint"]),
        params=dict(value["params"]),
        slice=Slice(_key_or_null(value["above"]), _key_or_null(value["upto"])),
        state=value["state"],
        home_host=_text(value["home"]["host"]),
        home_id=_text(value["home"]["home_id"]),
        checkpoint=_key_or_null(value["checkpoint"]),
        upper=_key_or_null(value["upper"]),
        unconfirmed=_whole(value["unconfirmed"]),
        unconfirmed_usd=float(value["unconfirmed_usd"]),
        books={name: _whole(count) for name, count in value["books"].items()},
        spent_usd=float(value["spent_usd"]),
        possibly_usd=float(value["possibly_usd"]),
        calls=_whole(value["calls"]),
        stop_reason=_text(value["stop_reason"]),
        cancel_asked=value["cancel_asked"] is True,
        started_at=_text(value["started_at"]),
        updated_at=_text(value["updated_at"]),
    )


def parse_verdict(value: Mapping[str, Any]) -> RowVerdict:
    return RowVerdict(
        parse_key(value["key"]), _text(value["guard"]), value["state"], _text(value["reason"]), _text(value["detail"])
    )


def parse_facts(value: Mapping[str, Any]) -> TableFacts:
    return TableFacts(
        columns={
            name: ColumnFacts(_text(c["type"]), c["not_null"] is True, c["selectable"] is True, c["updatable"] is True)
            for name, c in value["columns"].items()
        },
        unique_keys=tuple(tuple(key) for key in value["unique_keys"]),
        row_security=value["row_security"] is True,
        role=_text(value["role"]),
        bypasses_row_security=value["bypasses_row_security"] is True,
        has_update_policy=value["has_update_policy"] is True,
        triggers=tuple(value["triggers"]),
        publications=tuple(value["publications"]),
        estimated_rows=_whole(value["estimated_rows"]),
        pending_index=value["pending_index"] is True,
    )


def parse_lump(value: Mapping[str, Any]) -> Lump:
    clears = value.get("clears_in_s")
    if value["refused_by"] not in ("", "run", "hour", "day"):
        raise ValueError("an unknown ceiling")
    return Lump(float(value["granted_usd"]), value["refused_by"], None if clears is None else float(clears))


def parse_home(value: Mapping[str, Any]) -> Home:
    names = ("host", "home_id", "boot_id", "process_start", "lock_id")
    return Home(pid=_whole(value["pid"]), **{name: _text(value[name]) for name in names})


def parse_counts(value: Mapping[str, Any]) -> dict[str, int]:
    return {_text(name): _whole(count) for name, count in value.items()}


def keys_in_chunks(keys: Sequence[Key], at_most_bytes: int) -> list[list[Key]]:
    """Keys travel in the URL of a GET, and gateways refuse URLs of about 8 kB (nginx, Kong): so many at a time."""
    chunks: list[list[Key]] = [[]]
    size = 0
    for key in keys:
        weight = sum(len(part.encode()) * 3 for part in key) + 12
        if chunks[-1] and size + weight > at_most_bytes:
            chunks.append([])
            size = 0
        chunks[-1].append(key)
        size += weight
    return [chunk for chunk in chunks if chunk]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _text_or_null(value: Any) -> str | None:
    return None if value is None else _text(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("not a whole number")
    return value


def _key_or_null(value: Any) -> Key | None:
    return None if value is None else parse_key(value)
