"""Records and the count of them as Pinecone's gRPC has them, written by hand: the vectors are copied, never read.

The messages are those that the SDK's own gRPC client writes (10.2.0, compared 2026-11-22). Google's writer is given
each number as a Python float: 17 us a record of 512 dimensions and five fields instead of 3.

    message Vector { string id = 1; repeated float values = 2; google.protobuf.Struct metadata = 3; }
    message UpsertRequest { repeated Vector vectors = 1; string namespace = 2; }
    message UpsertResponse { uint32 upserted_count = 1; }
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache

from queries.pinecone_errors import malformed
from queries.vectors import Value

# A field is its number and its kind in one byte, then, for texts, packed numbers and messages, their length
# (protobuf.dev, encoding): the first field that has a length is 0x0A, the second 0x12, the third 0x1A, the sixth 0x32.
_VECTOR, _NAMESPACE = b"\x0a", b"\x12"  # of UpsertRequest
_ID, _VALUES, _METADATA = b"\x0a", b"\x12", b"\x1a"  # of Vector
_ENTRY, _KEY, _VALUE = b"\x0a", b"\x0a", b"\x12"  # of google.protobuf.Struct, which is a map
_NUMBER, _TEXT, _TRUTH, _LIST, _ITEM = b"\x11", b"\x1a", b"\x20", b"\x32", b"\x0a"  # of google.protobuf.Value
_double = struct.Struct("<d").pack


class ProtobufForm:
    """An UpsertRequest."""

    head = between = b""

    def __init__(self, namespace: str) -> None:
        self.tail = _long(_NAMESPACE, namespace.encode()) if namespace else b""

    def encode(self, id_: str, values: bytes, metadata: Mapping[str, Value]) -> bytes:
        own, fields = id_.encode(), _encode_fields(metadata)
        first, second, third = _record_heads(len(own), len(values), len(fields))
        return b"".join((first, own, second, values, third, fields))


@lru_cache(maxsize=4096)
def _record_heads(own: int, values: int, fields: int) -> tuple[bytes, bytes, bytes]:
    """What stands before id, values and metadata of such lengths."""
    of_own, of_values = _head(_ID, own), _head(_VALUES, values)
    of_fields = _head(_METADATA, fields) if fields else b""
    whole = len(of_own) + own + len(of_values) + values + len(of_fields) + fields
    return _head(_VECTOR, whole) + of_own, of_values, of_fields


def _encode_fields(metadata: Mapping[str, Value]) -> bytes:
    parts: list[bytes] = []
    for name, value in metadata.items():
        if isinstance(value, str):
            text = value.encode()
            parts += (_text_head(name, len(text)), text)
        elif isinstance(value, bool):
            parts.append(_entry(name, _TRUTH + bytes([value])))
        elif isinstance(value, list):
            texts = [_long(_ITEM, _long(_TEXT, each.encode())) for each in value]
            parts.append(_entry(name, _long(_LIST, b"".join(texts))))
        else:
            parts += (_number_head(name), _double(value))
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _text_head(name: str, size: int) -> bytes:
    """All of an entry before its text: the lengths of what lies around it, which is the same for many rows."""
    return _entry(name, _long(_TEXT, bytes(size)))[: -size or None]


@lru_cache(maxsize=256)
def _number_head(name: str) -> bytes:
    return _entry(name, _NUMBER + _double(0))[:-8]


def _entry(name: str, value: bytes) -> bytes:
    """One pair of a Struct's map: its key and its Value."""
    return _long(_ENTRY, _long(_KEY, name.encode()) + _long(_VALUE, value))


def _long(field: bytes, data: bytes) -> bytes:
    return _head(field, len(data)) + data


@lru_cache(maxsize=4096)
def _head(field: bytes, size: int) -> bytes:
    """The length is a varint: seven bits a byte, the lowest first."""
    found = bytearray(field)
    while size > 0x7F:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    found.append(size)
    return bytes(found)


def read_count(body: bytes) -> int:
    """Of an UpsertResponse; a count of nought is not written down, and fields that are new are passed over."""
    count, at = 0, 0
    try:
        while at < len(body):
            tag, at = _read_number(body, at)
            number, kind = tag >> 3, tag & 7
            if kind == 0:
                value, at = _read_number(body, at)
                count = value if number == 1 else count
            elif kind == 2 and number != 1:
                size, at = _read_number(body, at)
                at += size
            elif kind in (1, 5) and number != 1:
                at += 8 if kind == 1 else 4
            else:
                raise malformed("it counts no records")
    except IndexError:
        raise malformed("it counts no records") from None
    if at != len(body):
        raise malformed("it ends in the middle")
    return count


def _read_number(body: bytes, at: int) -> tuple[int, int]:
    """A varint, and where what follows it begins."""
    value = shift = 0
    while shift < 64:
        value |= (body[at] & 0x7F) << shift
        if body[at] < 0x80:
            return value, at + 1
        at, shift = at + 1, shift + 7
    raise malformed("it holds a number of more than 64 bits")
