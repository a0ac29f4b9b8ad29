"""What a 200 of the embedding dialect must look like before a vector in it is believed."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from queries.embed import EmbedAnswer, EmbedRequest
from queries.errors import Misconfigured, RateLimits
from queries.openai_answers import known_limits, read_count, read_word, say_shape
from queries.openai_errors import SERVICE, classify, malformed

FLOAT_BYTES = 4

_Vector = bytes | list[float] | None
"""Base64 is decoded where the JSON is: 3 us a vector of 512 against 12 in two steps (orjson, a2b_base64)."""


class _Row(msgspec.Struct):
    index: int
    embedding: _Vector = None


class _Whole(msgspec.Struct):
    data: list[_Row] | None = None
    model: str | None = None
    usage: Any = None
    error: Any = None


_WELL_FORMED = msgspec.json.Decoder(_Whole)


def read_vectors(
    body: bytes, headers: Mapping[str, str], request: EmbedRequest, *, was_right: bool = False
) -> EmbedAnswer:
    """One vector for each text, in the order of the texts; `was_right`: this model gave the dimension before."""
    limits = known_limits(headers)
    whole = _parse(body, limits)
    if whole.error:
        raise classify(200, body, headers)
    vectors = [_as_bytes(each) for each in _by_index(whole.data or [], len(request.texts), limits)]
    bad = _judge(vectors, request, was_right=was_right)
    usage = whole.usage if isinstance(whole.usage, dict) else {}
    return EmbedAnswer(
        vectors=tuple(b"" if place in bad else vector or b"" for place, vector in enumerate(vectors)),
        model=read_word(whole.model, "model", limits),
        tokens_in=read_count(usage.get("prompt_tokens")) or read_count(usage.get("total_tokens")),
        bad=bad,
        limits=limits,
    )


def _parse(body: bytes, limits: RateLimits | None) -> _Whole:
    try:
        return _WELL_FORMED.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return _parse_odd(body, limits)


def _parse_odd(body: bytes, limits: RateLimits | None) -> _Whole:
    """Slowly, row by row: one odd vector (bad base64, a NaN in plain JSON) must not spoil the paid others."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise malformed(say_shape(body), limits=limits) from None
    if not isinstance(found, dict):
        raise malformed("not an object", limits=limits)
    data = found.get("data") or []
    if not isinstance(data, list):
        raise malformed("data is no list", limits=limits)
    rows = []
    for row in data:
        index = row.get("index") if isinstance(row, dict) else None
        if not isinstance(index, int) or isinstance(index, bool):
            raise malformed("a vector without its index", limits=limits)
        rows.append(_Row(index, _odd_vector(row.get("embedding"))))
    return _Whole(rows, found.get("model"), found.get("usage"), found.get("error"))


def _odd_vector(value: object) -> _Vector:
    if isinstance(value, str):
        try:
            return binascii.a2b_base64(value, strict_mode=True)
        except ValueError:
            return None
    if isinstance(value, list) and all(isinstance(each, int | float) for each in value):
        return value
    return None


def _by_index(data: Sequence[_Row], count: int, limits: RateLimits | None) -> list[_Vector]:
    """Answers may come in any order, never short, double or beyond the texts (UPSTREAMS O12)."""
    found = {row.index: row.embedding for row in data}
    if len(data) != count or found.keys() != set(range(count)):
        raise malformed(f"{len(data)} vectors, {len(found)} different, for {count} texts", limits=limits)
    return [found[place] for place in range(count)]


def _as_bytes(vector: _Vector) -> bytes | None:
    if not isinstance(vector, list):
        return vector
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is judged as that
            return np.array(vector, dtype="<f4").tobytes()
    except OverflowError:
        return None


def _judge(vectors: Sequence[bytes | None], request: EmbedRequest, *, was_right: bool) -> dict[int, str]:
    """Why which vector must not be stored. All of them of another dimension is the model's fault, not the texts'."""
    size = request.dimensions * FLOAT_BYTES
    bad: dict[int, str] = {}
    good: list[int] = []
    for place, vector in enumerate(vectors):
        if vector is None:
            bad[place] = "no_vector"
        elif len(vector) != size:
            bad[place] = "wrong_dimension"
        else:
            good.append(place)
    # A text asked alone after others came right is an odd text; stopping for it would block the run for ever.
    if set(bad.values()) == {"wrong_dimension"} and not good and not (was_right and len(vectors) == 1):
        raise _wrong_model(request, len(vectors[0] or b"") // FLOAT_BYTES)
    matrix = np.frombuffer(b"".join(vectors[place] or b"" for place in good), dtype="<f4").reshape(
        len(good), request.dimensions
    )
    is_finite, is_something = np.isfinite(matrix).all(axis=1), matrix.any(axis=1)
    bad |= {good[row]: "not_finite" for row in np.flatnonzero(~is_finite)}
    bad |= {good[row]: "all_zero" for row in np.flatnonzero(~is_something)}
    return bad


def _wrong_model(request: EmbedRequest, given: int) -> Misconfigured:
    return Misconfigured(
        f"{request.model} gives vectors of {given} dimensions, and {request.dimensions} are needed.",
        service=SERVICE,
        code="malformed",  # answered and not to be used: the books take it for paid
        fix="Choose a model of that dimension, or a space of the model's dimension.",
    )
