"""The fake's /embeddings enforces what the real one documents, and spoils what a script says."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest

from tests.servers.fake_embeddings import fake_vector
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.fake_process import FakeProcess
from tests.servers.fake_script import rule

SMALL = "text-embedding-3-small"


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def send(
    web: aiohttp.ClientSession, fake: FakeOpenAI | FakeProcess, *texts: str, **more: Any
) -> tuple[int, Any, Any]:
    body = {"model": SMALL, "input": list(texts), "encoding_format": "base64", "dimensions": 16} | more
    body = {name: value for name, value in body.items() if value is not None}
    async with web.post(f"{fake.url}/embeddings", json=body) as answer:
        return answer.status, await answer.json(), answer.headers


def read(found: dict[str, Any]) -> list[Any]:
    whole = sorted(found["data"], key=lambda row: row["index"])
    return [base64.b64decode(row["embedding"]) for row in whole]


def test_a_vector_is_a_unit_vector_of_its_own() -> None:
    """10,000 texts, 10,000 vectors; the same text, model and dimension always the same one."""
    found = {fake_vector(f"text {n}", SMALL, 16) for n in range(10_000)}
    assert len(found) == 10_000
    for dimensions in (4, 5, 6, 7, 512, 1536):
        values = np.frombuffer(fake_vector("a", SMALL, dimensions), dtype="<f4")
        assert values.shape == (dimensions,)
        assert np.linalg.norm(values) == pytest.approx(1, abs=1e-5)
    assert fake_vector("a", SMALL, 16) == fake_vector("a", SMALL, 16)
    assert fake_vector("a", SMALL, 16) != fake_vector("a", "text-embedding-3-large", 16)


async def test_vectors_come_in_the_encoding_and_dimension_asked_for(
    fake_openai: FakeOpenAI, web: aiohttp.ClientSession
) -> None:
    """Base64 or numbers, the model's whole dimension when none is named, a single text without its list."""
    _, packed, _ = await send(web, fake_openai, "a", "b")
    assert read(packed) == [fake_vector(text, SMALL, 16) for text in "ab"]
    _, plain, _ = await send(web, fake_openai, encoding_format=None, dimensions=None, input="a")
    assert np.array(plain["data"][0]["embedding"], dtype="<f4").tobytes() == fake_vector("a", SMALL, 1536)
    fake_openai.configure(floats=True)
    _, ignored, _ = await send(web, fake_openai, "a")
    assert isinstance(ignored["data"][0]["embedding"], list)


async def test_a_bill_is_kept_text_by_text(fake_openai: FakeOpenAI, web: aiohttp.ClientSession) -> None:
    """By item where a text names one, else by its hash; double payment is seen, chat is counted apart."""
    await send(web, fake_openai, "[[item:a]] one", "[[item:b]] two", "unnamed")
    await send(web, fake_openai, "[[item:b]] two")
    world = fake_openai.world
    assert (world.embedded["a"], world.embedded["b"], len(world.embedded)) == (1, 2, 3)
    stats = world.stats(with_log=True)
    assert (stats["embed_calls"], stats["embedded_texts"], stats["embedded_twice"]) == (2, 3, 1)
    assert stats["embedded"]["b"] == 2
    assert stats["paid_calls"] == 0
    assert stats["tokens_in"] == 4 + 4 + 2 + 4
    assert stats["bill_usd"] == pytest.approx(14 * 0.02 / 1e6)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("too many texts", {"input": ["x"] * 2049}, "array_above_max_length"),
    ("no texts", {"input": []}, "'$.input' is invalid"),
    ("no input", {"input": None}, "'$.input' is invalid"),
    ("empty text", {"input": ["x", ""]}, "'$.input' is invalid"),
    ("long text", {"input": ["x", "x" * 32_772]}, "however you requested 8193 tokens"),
    ("many tokens", {"input": ["x" * 32_768] * 37}, "Requested 303104 tokens, max 300000 tokens per request"),
    ("large dimension", {"input": ["x"], "dimensions": 1537}, "Must be less than or equal to 1536"),
    ("fixed dimension", {"input": ["x"], "model": "text-embedding-ada-002"}, "does not support specifying dimensions"),
]


@pytest.mark.parametrize(("change", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
async def test_what_is_documented_as_refused_is_refused(
    fake_openai: FakeOpenAI, web: aiohttp.ClientSession, change: dict[str, Any], words: str
) -> None:
    """With a 400 in the real words, and unpaid."""
    status, said, _ = await send(web, fake_openai, **change)
    assert status == 400
    assert words in str(said)
    assert fake_openai.world.bill_usd == 0
    assert fake_openai.world.admitted == 0


async def test_limits_count_all_texts_of_a_request(fake_openai: FakeOpenAI, web: aiohttp.ClientSession) -> None:
    """One request, the sum of its tokens; the headers say what is left."""
    fake_openai.configure(rpm=600, tpm=60_000)
    _, _, headers = await send(web, fake_openai, "x" * 400, "x" * 400)
    assert (headers["x-ratelimit-remaining-requests"], headers["x-ratelimit-remaining-tokens"]) == ("9", "800")
    status, said, _ = await send(web, fake_openai, *["x" * 4_000] * 61)
    assert (status, said["error"]["code"]) == (429, "rate_limit_exceeded")


async def test_a_wrong_key_is_refused(fake_openai: FakeOpenAI, web: aiohttp.ClientSession) -> None:
    """As for chat."""
    fake_openai.configure(key="right")
    assert (await send(web, fake_openai, "a"))[0] == 401


SPOILT: list[tuple[str, dict[str, Any], Callable[[list[dict[str, Any]]], bool]]] = [
    ("shuffle", {}, lambda data: [r["index"] for r in data] != [0, 1, 2, 3]),
    ("drop_one", {"at": 2}, lambda data: [r["index"] for r in data] == [0, 1, 3]),
    ("double_one", {"at": 2}, lambda data: [r["index"] for r in data] == [0, 1, 1, 3]),
    ("empty_data", {}, lambda data: data == []),
    ("null_one", {"at": -1}, lambda data: data[3]["embedding"] is None),
    ("nan_one", {"at": 1}, lambda data: data[1]["embedding"] == base64.b64encode(b"\0\0\xc0\x7f" * 16).decode()),
    ("zero_one", {}, lambda data: not any(base64.b64decode(data[0]["embedding"]))),
    ("short_one", {}, lambda data: [len(base64.b64decode(r["embedding"])) for r in data] == [60, 64, 64, 64]),
    ("wrong_dimension", {}, lambda data: {len(base64.b64decode(r["embedding"])) for r in data} == {32}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "action", "shows"), SPOILT, ids=[s[0] for s in SPOILT])
async def test_an_answer_is_spoilt_as_scripted_and_paid(
    fake_openai: FakeOpenAI,
    web: aiohttp.ClientSession,
    kind: str,
    action: dict[str, Any],
    shows: Callable[[list[dict[str, Any]]], bool],
) -> None:
    """Every fault of an answer comes after the work."""
    fake_openai.script(rule(kind, **action))
    status, found, _ = await send(web, fake_openai, *"abcd")
    assert status == 200
    assert shows(found["data"])
    assert fake_openai.world.embedded.total() == 4


async def test_a_rule_about_an_item_meets_it_among_many(fake_openai: FakeOpenAI, web: aiohttp.ClientSession) -> None:
    """A pack is met when one of its texts is meant, and only that one is spoilt; other packs are not met."""
    fake_openai.script(rule("null_one", on={"item": "^poison$"}))
    _, clean, _ = await send(web, fake_openai, "[[item:a]]", "[[item:poisonous]]")
    _, found, _ = await send(web, fake_openai, "[[item:a]]", "[[item:poison]]", "[[item:b]]")
    assert all(row["embedding"] for row in clean["data"])
    assert [bool(row["embedding"]) for row in found["data"]] == [True, False, True]


async def test_another_process_tells_what_was_embedded(
    fake_openai_process: Callable[..., FakeProcess], web: aiohttp.ClientSession
) -> None:
    """Over /__fake/, with its settings on the command line."""
    fake = await asyncio.to_thread(fake_openai_process, usd_embed_per_m=1.0, embed_tokens_most=50)
    assert (await send(web, fake, "[[item:a]] one", "[[item:b]] two"))[0] == 200
    assert (await send(web, fake, "x" * 204))[0] == 400
    stats = await asyncio.to_thread(lambda: fake.stats(log=True))
    assert stats["embedded"] == {"a": 1, "b": 1}
    assert stats["bill_usd"] == pytest.approx(8 / 1e6)
