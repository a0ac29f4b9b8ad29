"""Lines of a batch's result files, judged by the functions of live answers. Nothing in a file stops its reading."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from queries.chat import ChatAnswer
from queries.embed import EmbedAnswer, EmbedRequest
from queries.errors import CatchupError, Transient
from queries.openai_answers import read_answer
from queries.openai_errors import SERVICE, classify
from queries.openai_vectors import read_vectors

_NOT_REACHED = frozenset({"batch_expired", "batch_cancelled"})
_READ_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """What the provider says of one request. `is_paid`: it was answered, whatever the answer is worth."""

    number: int
    custom_id: str
    status: int
    body: bytes
    code: str = ""
    message: str = ""

    @property
    def is_paid(self) -> bool:
        return self.status == 200

    @property
    def was_reached(self) -> bool:
        """False where the batch ended before it, or the service gave it up without a word (status 0)."""
        return self.status > 0


@dataclass(frozen=True, slots=True)
class Garbage:
    """A line that names no request; what stands in it is not repeated."""

    number: int
    why: str


class _Response(msgspec.Struct):
    status_code: int = 0
    body: msgspec.Raw = msgspec.Raw(b"")


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Written(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


_WELL_FORMED = msgspec.json.Decoder(_Written)
_NOTHING = _Response()
_SILENCE = _Error()


def read_lines(path: Path) -> Iterator[Line | Garbage]:
    """One after the other, so that memory holds a line and not the file."""
    with path.open("rb", buffering=_READ_AT_ONCE) as file:
        for number, raw in enumerate(file, start=1):
            if not raw.isspace():
                yield _read_line(number, raw)


def judge_chat(line: Line, *, private: str = "", secrets: Sequence[str] = ()) -> ChatAnswer | CatchupError:
    """The answer, or the error a live call would have raised; `private` (the text sent) is never repeated in it."""
    try:
        return read_answer(line.body, {}) if line.is_paid else _refused(line, private, secrets)
    except CatchupError as error:
        return error


def judge_vectors(
    line: Line, request: EmbedRequest, *, was_right: bool = False, secrets: Sequence[str] = ()
) -> EmbedAnswer | CatchupError:
    """As above; a whole file of vectors of another dimension is the model's fault, and stops like a live run."""
    try:
        if line.is_paid:
            return read_vectors(line.body, {}, request, was_right=was_right)
        return _refused(line, "\n".join(request.texts), secrets)
    except CatchupError as error:
        return error


def _refused(line: Line, private: str, secrets: Sequence[str]) -> CatchupError:
    if line.status > 0:
        return classify(line.status, line.body, {}, private=private, secrets=secrets)
    if line.code in _NOT_REACHED or not (line.code or line.message):
        said = (
            "The batch ended before this request was worked." if line.code else "The request was given up unanswered."
        )
        return Transient(said, service=SERVICE, code=line.code or "status_0")
    # Words without a status: a fatal body is known by its words, anything else may succeed the next time.
    body = json.dumps({"error": {"code": line.code, "message": line.message}}).encode()
    return classify(500, body, {}, private=private, secrets=secrets)


def _read_line(number: int, raw: bytes) -> Line | Garbage:
    try:
        found = _WELL_FORMED.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _read_odd(number, raw)
    answer, error = found.response or _NOTHING, found.error or _SILENCE
    status = max(0, answer.status_code)
    body = bytes(answer.body) if status == 200 else _unquote(bytes(answer.body))
    return Line(number, found.custom_id, status, body, error.code or "", error.message or "")


def _read_odd(number: int, raw: bytes) -> Line | Garbage:
    """Slowly: half a character or a NaN is for the judges, and of another shape what can be named is no answer."""
    try:
        found: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return Garbage(number, "no JSON")
    custom_id = found.get("custom_id") if isinstance(found, dict) else None
    if not isinstance(custom_id, str):
        return Garbage(number, "no custom_id")
    answer = found.get("response")
    status, body = (answer.get("status_code"), answer.get("body")) if isinstance(answer, dict) else (200, None)
    if not isinstance(status, int) or body is None:
        return Line(number, custom_id, 200, b"")
    return Line(number, custom_id, max(0, status), json.dumps(body).encode())


def _unquote(body: bytes) -> bytes:
    """A body that was no JSON (a proxy's page) travels as a string, and is judged as what it was."""
    if body[:1] != b'"':
        return b"" if body == b"null" else body
    try:
        return str(json.loads(body)).encode("utf-8", "surrogatepass")
    except ValueError:
        return body
