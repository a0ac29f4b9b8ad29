"""The one gRPC call of the fake Pinecone: Upsert, read by Google's protobuf and answered as a tonic server would."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import quote

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tests.servers.fake_http2 import Stream
from tests.servers.fake_pinecone_answers import Outcome, cut
from tests.servers.fake_pinecone_world import Refused

UPSERT = "/VectorService/Upsert"
# google/rpc/code.proto backwards; where several codes have one status, the one a server gives most. Too long a message
# is OUT_OF_RANGE at a tonic server, and no code means that somebody should pay.
CODES = {
    400: 3, 401: 16, 402: 8, 403: 7, 404: 5, 408: 4, 409: 6, 413: 11, 422: 3, 429: 8, 499: 1, 500: 13, 501: 12, 502: 14,
    503: 14, 504: 4,
}  # fmt: skip
UNKNOWN = 2
_PRINTABLE = "".join(chr(each) for each in range(0x20, 0x7F) if chr(each) != "%")


def _describe() -> descriptor_pb2.FileDescriptorProto:
    """Pinecone's public proto, as far as an upsert goes: name, number, type and whether it is repeated."""
    kind = descriptor_pb2.FieldDescriptorProto
    text, message = kind.TYPE_STRING, kind.TYPE_MESSAGE
    fields: dict[str, list[tuple[str, int, int, bool, str]]] = {
        "SparseValues": [("indices", 1, kind.TYPE_UINT32, True, ""), ("values", 2, kind.TYPE_FLOAT, True, "")],
        "Vector": [
            ("id", 1, text, False, ""),
            ("values", 2, kind.TYPE_FLOAT, True, ""),
            ("metadata", 3, message, False, ".google.protobuf.Struct"),
            ("sparse_values", 4, message, False, ".SparseValues"),
        ],
        "UpsertRequest": [("vectors", 1, message, True, ".Vector"), ("namespace", 2, text, False, "")],
        "UpsertResponse": [("upserted_count", 1, kind.TYPE_UINT32, False, "")],
    }
    file = descriptor_pb2.FileDescriptorProto(name="upsert.proto", syntax="proto3")
    file.dependency.append("google/protobuf/struct.proto")
    for name, members in fields.items():
        told = file.message_type.add(name=name)
        for field, number, type_, repeated, of in members:
            label = kind.LABEL_REPEATED if repeated else kind.LABEL_OPTIONAL
            told.field.add(name=field, number=number, type=type_, label=label, type_name=of or None)
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
_POOL.Add(_describe())
UpsertRequest: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("UpsertRequest"))
UpsertResponse: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("UpsertResponse"))


def unwrap(body: bytes) -> bytes:
    """The one message of a call, out of its prefix of five bytes."""
    if body[:1] == b"\1":
        raise Refused("Content is compressed with an encoding that is not supported", 501)
    if len(body) < 5 or int.from_bytes(body[1:5], "big") != len(body) - 5:
        raise Refused("Missing request message.", 500)
    return body[5:]


def read_proto(message: bytes, cheap: bool) -> tuple[list[Any], str]:
    """The vectors as JSON would have them, and the namespace; of a benchmark's vectors their ids only."""
    try:
        if cheap:
            return _read_ids(message)
        read = UpsertRequest.FromString(message)
    except (DecodeError, IndexError) as wrong:
        raise Refused(f"failed to decode Protobuf message: {wrong}", 500) from None
    return [
        {"id": each.id, "values": list(each.values), "metadata": _plain_struct(each.metadata)} for each in read.vectors
    ], read.namespace


def _plain_struct(struct: Any) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in struct.fields.items()}


def _plain_value(value: Any) -> Any:
    """As JSON has it: a whole number has no point there, and there are numbers that it has not."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise Refused(f"Metadata value must be a finite number, got {number}")
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_plain_value(each) for each in value.list_value.values]
        case "struct_value":
            return _plain_struct(value.struct_value)
    return None


def _read_ids(message: bytes) -> tuple[list[str], str]:
    """The first field of each vector, which writers put in the order of their numbers, and nothing else of it."""
    ids: list[str] = []
    at, end, namespace = 0, len(message), ""
    while at < end:
        tag = message[at]
        size, start = _length(message, at + 1)
        at = start + size
        if tag == 0x0A and message[start] == 0x0A:
            length, first = _length(message, start + 1)
            ids.append(message[first : first + length].decode())
        elif tag == 0x12:
            namespace = message[start:at].decode()
        else:
            raise Refused("the cheap reader knows vectors that begin with their id, and the namespace")
    if at != end:
        raise IndexError("buffer underflow")
    return ids, namespace


def _length(message: bytes, at: int) -> tuple[int, int]:
    """A varint, and where what follows it begins."""
    value = message[at]
    if value < 0x80:
        return value, at + 1
    value, shift = value & 0x7F, 7
    while True:
        at += 1
        more = message[at]
        value |= (more & 0x7F) << shift
        if more < 0x80:
            return value, at + 1
        shift += 7


def speak_grpc(stream: Stream, outcome: Outcome) -> None:
    """The answer as gRPC gives it: a status in trailers, unless something in between speaks mere HTTP."""
    if outcome.end == "reset":
        cut(stream.transport)
        return
    if outcome.end == "goaway":
        stream.say_goodbye()
    headers = [*outcome.headers.items()]
    if outcome.is_html or 300 <= outcome.status < 400:
        stream.send([(":status", str(outcome.status)), ("content-type", "text/html"), *headers], outcome.body)
        return
    opening = [(":status", "200"), ("content-type", "application/grpc")]
    if outcome.end == "half":
        stream.begin([*opening, *headers], b"\0\0\0\0\x50\x08")
        cut(stream.transport)
    elif outcome.status >= 400:
        words = quote(_message(outcome), safe=_PRINTABLE)
        status = [("grpc-status", str(CODES.get(outcome.status, UNKNOWN))), ("grpc-message", words)]
        stream.send([*opening, *status, *headers])
    else:
        message = _encode(outcome)
        body = b"\0" + len(message).to_bytes(4, "big") + message if message is not None else b""
        stream.send([*opening, *headers], body, [("grpc-status", "0")])


def _encode(outcome: Outcome) -> bytes | None:
    """None when there is no message at all."""
    if isinstance(outcome.said, dict) and "upsertedCount" in outcome.said:
        return bytes(UpsertResponse(upserted_count=outcome.said["upsertedCount"]).SerializeToString())
    return outcome.body or None


def _message(outcome: Outcome) -> str:
    """The words of either form of Pinecone's errors, or all that was said."""
    said = outcome.said if isinstance(outcome.said, dict) else {}
    inner = said.get("error")
    found = said.get("message", inner.get("message") if isinstance(inner, dict) else None)
    return outcome.body.decode() if found is None else str(found)
