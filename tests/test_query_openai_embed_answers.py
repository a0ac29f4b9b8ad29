"""Whatever stands in a 200 of /embeddings, no vector is believed that does not belong to its text."""

from __future__ import annotations

import base64
import json
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.embed import EmbedRequest
from queries.errors import Misconfigured, OutOfMoney, RateLimits, RunFatal, Transient, UpstreamError
from queries.openai_vectors import read_vectors

NAN, HUGE = math.nan, 10**400


def asked(texts: int = 2, dimensions: int = 2) -> EmbedRequest:
    return EmbedRequest("m", tuple(f"text {n}" for n in range(texts)), dimensions)


def packed(*values: float) -> str:
    return base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()


def answer(*vectors: Any, **more: Any) -> bytes:
    data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
    return json.dumps({"object": "list", "data": data, "model": "m", **more}).encode()


def floats(vector: bytes) -> list[float]:
    return [float(x) for x in np.frombuffer(vector, dtype="<f4")]


VECTORS: list[tuple[str, Any, list[float] | str]] = [
    ("base64", packed(1, -2), [1, -2]),
    ("numbers", [0.5, 2], [0.5, 2]),
    ("tiny", [1e-30, 0], [float(np.float32(1e-30)), 0]),
    ("large but finite", packed(3e38, -3e38), [float(np.float32(3e38)), float(np.float32(-3e38))]),
    ("too large for float32", [1e39, 1], "not_finite"),
    ("too large for float64", [HUGE, 1], "no_vector"),
    ("infinite", packed(-math.inf, 1), "not_finite"),
    ("NaN", packed(NAN, 0), "not_finite"),
    ("NaN written out", [NAN, 1.0], "not_finite"),
    ("null in it", [None, 1.0], "no_vector"),
    ("texts in it", ["1", "2"], "no_vector"),
    ("lists in it", [[1.0], [2.0]], "no_vector"),
    ("zero", packed(0, 0), "all_zero"),
    ("minus zero", packed(-0.0, 0), "all_zero"),
    ("underflow", [1e-60, 0], "all_zero"),
    ("null", None, "no_vector"),
    ("object", {"0": 1}, "no_vector"),
    ("number", 7, "no_vector"),
    ("url-safe base64", "__-_", "no_vector"),
    ("cut base64", packed(1, 2)[:-1], "no_vector"),
    ("base64 with blanks", "\n" + packed(1, 2), "no_vector"),
    ("base64 too long", packed(1, 2, 3), "wrong_dimension"),
    ("no whole floats", base64.b64encode(b"1234567").decode(), "wrong_dimension"),
    ("empty text", "", "wrong_dimension"),
    ("empty list", [], "wrong_dimension"),
]


@pytest.mark.parametrize(("vector", "becomes"), [v[1:] for v in VECTORS], ids=[v[0] for v in VECTORS])
@pytest.mark.parametrize("place", [0, 1])
def test_a_vector_is_right_or_has_a_reason(vector: Any, becomes: list[float] | str, place: int) -> None:
    """Its neighbour is kept whatever it is."""
    both: list[Any] = [packed(3, 4)] * 2
    both[place] = vector
    found = read_vectors(answer(*both), {}, asked())
    assert floats(found.vectors[1 - place]) == [3, 4]
    if isinstance(becomes, str):
        assert (found.bad, found.vectors[place]) == ({place: becomes}, b"")
    else:
        assert (found.bad, floats(found.vectors[place])) == ({}, becomes)


@pytest.mark.parametrize("vector", [None, packed(0, 0), packed(NAN, 1)], ids=["null", "zero", "nan"])
def test_all_of_them_odd_is_still_each_one_s_own(vector: Any) -> None:
    """Only a wrong dimension says something of the model."""
    assert set(read_vectors(answer(vector, vector), {}, asked()).bad) == {0, 1}


def test_all_of_another_dimension_is_the_model_s() -> None:
    """Unless one text was asked alone of a model that gave the right dimension before."""
    with pytest.raises(Misconfigured, match="3 dimensions, and 2 are needed"):
        read_vectors(answer(packed(1, 2, 3), packed(1, 2, 3)), {}, asked(), was_right=True)
    with pytest.raises(Misconfigured):
        read_vectors(answer(packed(1, 2, 3)), {}, asked(1))
    assert read_vectors(answer(packed(1, 2, 3)), {}, asked(1), was_right=True).bad == {0: "wrong_dimension"}


def rows(*indexes: Any) -> bytes:
    return json.dumps({"data": [{"index": i, "embedding": packed(1, 2)} for i in indexes]}).encode()


NO_ANSWERS: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("blank", b" \n"),
    ("html", b"<html>"),
    ("cut", answer(packed(1, 2), packed(1, 2))[:60]),
    ("list", b"[]"),
    ("null", b"null"),
    ("no data", b"{}"),
    ("null data", b'{"data": null}'),
    ("empty data", b'{"data": []}'),
    ("data of another kind", b'{"data": {"0": 1}}'),
    ("data of texts", b'{"data": ["a", "b"]}'),
    ("short", rows(0)),
    ("long", rows(0, 1, 2)),
    ("twice", rows(0, 0)),
    ("twice besides", rows(0, 1, 1)),
    ("from one", rows(1, 2)),
    ("negative", rows(0, -1)),
    ("far", rows(0, 2**70)),
    ("fractions", rows(0.0, 1.0)),
    ("truths", rows(False, True)),
    ("words", rows("0", "1")),
    ("nulls", rows(None, None)),
    ("no index", b'{"data": [{"embedding": "AAAA"}, {"embedding": "AAAA"}]}'),
    ("deep", b'{"data": ' + b"[" * 100_000),
    ("deep elsewhere", b'{"x": ' + b"[" * 100_000),
    ("no utf-8", b'{"data": [{"index": 0, "embedding": "\xff"}]}'),
    ("a model that is no text", answer(packed(1, 2), packed(1, 2), model=7)),
]


@pytest.mark.parametrize("body", [n[1] for n in NO_ANSWERS], ids=[n[0] for n in NO_ANSWERS])
def test_a_200_that_is_no_answer_is_malformed(body: bytes) -> None:
    """Every text has exactly one vector, or none is believed."""
    with pytest.raises(Transient) as failed:
        read_vectors(body, {"x-ratelimit-limit-requests": "5"}, asked())
    assert failed.value.code == "malformed"
    assert failed.value.limits == RateLimits(requests_per_min=5)


def test_a_fatal_error_in_a_200_is_fatal() -> None:
    """Gateways answer 200 with the error of the service behind them."""
    with pytest.raises(OutOfMoney):
        read_vectors(b'{"error": {"code": "insufficient_quota", "message": "no"}}', {}, asked())


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [({"prompt_tokens": 5, "total_tokens": 6}, 5), ({"total_tokens": 6}, 6), ({"prompt_tokens": -1}, 0), ([], 0)],
)
def test_tokens_are_what_usage_says_or_zero(usage: Any, tokens: int) -> None:
    """Zero tells the caller to count for itself."""
    assert read_vectors(answer(packed(1, 2), packed(1, 2), usage=usage), {}, asked()).tokens_in == tokens
    assert read_vectors(answer(None, None, usage=usage), {}, asked()).tokens_in == tokens


@given(st.integers(1, 40), st.integers(1, 9), st.booleans(), st.randoms(use_true_random=False))
def test_any_order_is_put_right(texts: int, dimensions: int, as_floats: bool, mix: random.Random) -> None:
    """Vector i is what the service gave index i."""
    values = np.arange(1, texts * dimensions + 1, dtype="<f4").reshape(texts, dimensions)
    data = [{"index": i, "embedding": row.tolist() if as_floats else packed(*row)} for i, row in enumerate(values)]
    mix.shuffle(data)
    found = read_vectors(json.dumps({"data": data}).encode(), {}, asked(texts, dimensions))
    assert found.vectors == tuple(row.tobytes() for row in values)
    assert not found.bad


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(packed(1, 2)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "index", "embedding", "model", "usage", "error"]), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(
    st.one_of(
        st.binary(max_size=200),
        JSON.map(lambda found: json.dumps(found).encode()),
        st.lists(JSON, min_size=2, max_size=2).map(lambda pair: answer(*pair)),
    )
)
def test_junk_is_malformed_or_judged(body: bytes) -> None:
    """read_vectors raises nothing but errors of ours, and what it keeps is whole and finite."""
    try:
        found = read_vectors(body, {}, asked())
    except (UpstreamError, RunFatal):
        return
    kept = [floats(vector) for place, vector in enumerate(found.vectors) if place not in found.bad]
    assert all(len(vector) == 2 and any(vector) and all(map(math.isfinite, vector)) for vector in kept)
    assert len(found.vectors) == 2
