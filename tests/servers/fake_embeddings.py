"""What a fake /embeddings answers: a unit vector of its own for every text, checked limits, and spoilt vectors."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from tests.servers.fake_script import Rule, error_body

SIZES = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
OTHER_SIZE = 384
TEXTS_MOST = 2_048
TEXT_TOKENS_MOST = 8_192
POOL = 512
HEAD = 3
"""Floats that are a text's own, before a tail out of the pool; three of them end where base64 starts afresh."""
HEAD_NORM = 0.1

Refusal = tuple[int, dict[str, Any]]
SENT = "invalid_request_error"


@dataclass
class Asked:
    """One request, read."""

    model: str
    texts: list[str]
    items: list[str]
    tokens: list[int]
    dimensions: int
    as_base64: bool

    @property
    def name(self) -> str:
        """Of one text its item; of many something short that is the same for the same texts."""
        if len(self.items) == 1:
            return self.items[0]
        return f"{len(self.items)} texts {_digest(chr(10).join(self.items)).hex()[:8]}"


def read_asked(body: dict[str, Any], find_item: Callable[[str], str], factor: float, *, floats: bool) -> Asked:
    given = body.get("input")
    texts = [text if isinstance(text, str) else "" for text in given] if isinstance(given, list) else [str(given or "")]
    sizes = (len(text) if text.isascii() else len(text.encode("utf-8", "replace")) for text in texts)
    return Asked(
        model=str(body.get("model")),
        texts=texts,
        items=[find_item(text) for text in texts],
        tokens=[math.ceil(size / 4 * factor) for size in sizes],
        dimensions=int(body.get("dimensions") or SIZES.get(str(body.get("model")), OTHER_SIZE)),
        as_base64=body.get("encoding_format") == "base64" and not floats,
    )


def refuse_input(asked: Asked, body: dict[str, Any], *, tokens_most: int, whole_only: bool) -> Refusal | None:
    """What the real service refuses with a 400 before any work, in its words; `whole_only` takes no `dimensions`."""
    most, total, longest = SIZES.get(asked.model, 4096), sum(asked.tokens), max(asked.tokens, default=0)
    told: tuple[str | None, ...] = ()
    if "dimensions" in body and (whole_only or asked.model == "text-embedding-ada-002"):
        told = ("This model does not support specifying dimensions.", SENT)
    elif not HEAD < asked.dimensions <= most:
        said = f"Invalid value for 'dimensions' = {asked.dimensions}. Must be less than or equal to {most}."
        told = (said, SENT, None, "dimensions")
    elif len(asked.texts) > TEXTS_MOST:
        said = f"Invalid 'input': array too long. Expected an array with maximum length {TEXTS_MOST}, but got an array "
        told = (f"{said}with length {len(asked.texts)} instead.", SENT, "array_above_max_length", "input")
    elif not asked.texts or not all(asked.texts):
        said = "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
        told = (said, SENT)
    elif longest > TEXT_TOKENS_MOST:
        said = (
            f"This model's maximum context length is {TEXT_TOKENS_MOST} tokens, however you requested {longest} tokens "
        )
        said += f"({longest} in your prompt; 0 for the completion). Please reduce your prompt; or completion length."
        told = (said, SENT)
    elif total > tokens_most:
        told = (f"Requested {total} tokens, max {tokens_most} tokens per request", *["max_tokens_per_request"] * 2)
    return (400, error_body(*told)) if told else None  # type: ignore[arg-type]  # message and type are always told


def fake_vector(text: str, model: str, dimensions: int) -> bytes:
    """The vector of a text as little-endian float32: what a test compares a stored one with."""
    (own, tail) = _parts([text], model, dimensions)
    return base64.b64decode(own[:16] + _tails(model, dimensions)[tail[0]])


@dataclass
class Data:
    """The list of an answer: JSON of each vector, and the indexes in the order they are sent."""

    dimensions: int
    as_base64: bool
    vectors: list[bytes]
    order: list[int] = field(default_factory=list)

    def write(self, vector: Sequence[float] | np.ndarray[Any, Any]) -> bytes:
        values = np.asarray(vector, dtype="<f4")
        return (
            b'"' + base64.b64encode(values.tobytes()) + b'"' if self.as_base64 else json.dumps(values.tolist()).encode()
        )


def write_answer(asked: Asked, rule: Rule | None, *, no_usage: bool) -> bytes:
    action: dict[str, Any] = {"kind": "answer"} if rule is None else rule.action
    dimensions = (
        action.get("dimensions", asked.dimensions // 2) if action["kind"] == "wrong_dimension" else asked.dimensions
    )
    data = Data(dimensions, asked.as_base64, _write_vectors(asked, dimensions), list(range(len(asked.texts))))
    if action["kind"] in SPOILERS:
        SPOILERS[action["kind"]](data, meant(asked, rule, action))
    rows = b",".join([b'{"object":"embedding","index":%d,"embedding":%b}' % (i, data.vectors[i]) for i in data.order])
    total = sum(asked.tokens)
    end: dict[str, Any] = {"model": asked.model}
    if not no_usage:
        end["usage"] = {"prompt_tokens": total, "total_tokens": total}
    return b'{"object":"list","data":[' + rows + b"]," + json.dumps(end).encode()[1:]


def meant(asked: Asked, rule: Rule | None, action: dict[str, Any]) -> list[int]:
    """The texts a rule about single ones means: by its item pattern, or the one it says, or the first."""
    if rule is not None and rule.pattern is not None:
        return [place for place, item in enumerate(asked.items) if rule.pattern.search(item)]
    return [range(len(asked.texts))[action.get("at", 0)]]


def _write_vectors(asked: Asked, dimensions: int) -> list[bytes]:
    own, picked = _parts(asked.texts, asked.model, dimensions)
    tails = _tails(asked.model, dimensions)
    if asked.as_base64:
        return [b'"%b%b"' % (own[16 * i : 16 * i + 16], tails[tail]) for i, tail in enumerate(picked)]
    whole = (base64.b64decode(own[16 * i : 16 * i + 16] + tails[tail]) for i, tail in enumerate(picked))
    return [json.dumps(np.frombuffer(each, dtype="<f4").tolist()).encode() for each in whole]


def _parts(texts: Sequence[str], model: str, dimensions: int) -> tuple[bytes, list[int]]:
    """For each text 16 characters of base64 that are its own, and which tail of the pool follows them."""
    marks = np.frombuffer(b"".join([_digest(text) for text in texts]), dtype="<u8").reshape(-1, 2)
    angles = marks[:, 0].astype(np.float64) * (2 * math.pi / 2**64)
    heads = np.zeros((len(texts), HEAD), dtype="<f4")
    heads[:, 0], heads[:, 1] = HEAD_NORM * np.cos(angles), HEAD_NORM * np.sin(angles)
    return base64.b64encode(heads.tobytes()), (marks[:, 1] % POOL).tolist()


def _digest(text: str) -> bytes:
    return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).digest()


@cache
def _tails(model: str, dimensions: int) -> list[bytes]:
    seed = int.from_bytes(_digest(f"{model} {dimensions}")[:4], "little")
    drawn = np.random.default_rng(seed).standard_normal((POOL, dimensions - HEAD))
    drawn *= math.sqrt(1 - HEAD_NORM**2) / np.linalg.norm(drawn, axis=1, keepdims=True)
    return [base64.b64encode(row.tobytes()) for row in drawn.astype("<f4")]


def _shuffle(data: Data, _: list[int]) -> None:
    random.Random(len(data.order)).shuffle(data.order)


def _drop(data: Data, meant: list[int]) -> None:
    data.order = [place for place in data.order if place not in meant]


def _double(data: Data, meant: list[int]) -> None:
    data.order[meant[0]] = data.order[meant[0] - 1]


def _empty(data: Data, _: list[int]) -> None:
    data.order = []


def _put(make: Callable[[int], Any]) -> Callable[[Data, list[int]], None]:
    def spoil(data: Data, meant: list[int]) -> None:
        for place in meant:
            made = make(data.dimensions)
            data.vectors[place] = made if isinstance(made, bytes) else data.write(made)

    return spoil


SPOILERS: dict[str, Callable[[Data, list[int]], None]] = {
    "shuffle": _shuffle,
    "drop_one": _drop,
    "double_one": _double,
    "empty_data": _empty,
    "null_one": _put(lambda _: b"null"),
    "garbled_one": _put(lambda _: b'"no base64!"'),
    "nan_one": _put(lambda size: [math.nan] * size),
    "inf_one": _put(lambda size: [math.inf] + [0.1] * (size - 1)),
    "zero_one": _put(lambda size: [0.0] * size),
    "short_one": _put(lambda size: [0.1] * (size - 1)),
}
"""Faults of a paid answer by name; those of one meet the texts whose item the rule names, else `at`, else the first."""
