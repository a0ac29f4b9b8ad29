"""A line of the journal: `crc32 json`, written into one buffer, since an answer of vectors is megabytes.

An encoder for each row and two joins took 7 us a row of 512 dimensions, one buffer for all of them 3 (2026-11-22).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from jobs.engine.past import Paid, paid_json

_ROOM = b"00000000 "  # of the checksum
_BEFORE, _AFTER = b'["paid",{"n":0,"usd":0.0,"rows":[', b'],"bad":[]}]'
_PAID = msgspec.json.Encoder()


def write_line(kind: str, record: Mapping[str, Any]) -> bytearray:
    return _seal(bytearray(_ROOM + encode([kind, record])))


def write_answer(record: Mapping[str, Any], paid: Sequence[Paid]) -> tuple[bytearray, list[tuple[int, int]]]:
    """The line of an answer, and where in it each paid row begins and how long it is; `record` has none of them."""
    before, at, after = encode(["paid", record]).partition(b'"rows":[')
    line, places = bytearray(_ROOM + before + at), []
    for each in paid:
        start = len(line)
        _write_paid(each, line)
        places.append((start, len(line) - start))
        line += b","
    if paid:
        line.pop()
    line += after
    return _seal(line), places


def wrap_rows(rows: bytes) -> tuple[int, bytearray]:
    """A line of rows that were paid for before, and where in it they begin."""
    return len(_ROOM) + len(_BEFORE), _seal(bytearray(_ROOM + _BEFORE + rows + _AFTER))


def encode(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate or a number too long: the slow way takes them (3 kB: 25 us against 1)
        return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()


def encode_paid(paid: Paid) -> bytes:
    line = bytearray()
    _write_paid(paid, line)
    return bytes(line)


def _write_paid(paid: Paid, line: bytearray) -> None:
    """Vectors become base64 where the JSON is made: 2 us a vector of 512 against 6 in two steps."""
    start = len(line)
    try:
        _PAID.encode_into(paid_json(paid, bytes), line, -1)
    except (TypeError, ValueError, OverflowError):
        line[start:] = encode(paid_json(paid))


def _seal(line: bytearray) -> bytearray:
    """The checksum of all that stands behind its room."""
    line[: len(_ROOM)] = b"%08x " % zlib.crc32(memoryview(line)[len(_ROOM) :])
    line += b"\n"
    return line
