"""Vector i belongs to text i or the answer is not believed, and one ask is one request."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from queries.embed import Embed, EmbedRequest
from queries.errors import (
    CatchupError,
    ItemPermanent,
    Misconfigured,
    OutOfMoney,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.openai_embed import OpenAIEmbed
from tests.servers.fake_embeddings import fake_vector
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.fake_script import rule

KEY = "sk-proj-s3ntinel-0123456789abcdef"
SMALL = "text-embedding-3-small"
SENTINEL = "Tr4nscript-sentinel: today we talk about compilers, parsers and the joy of small languages."


def request(texts: int = 5, *, model: str = SMALL, dimensions: int = 64) -> EmbedRequest:
    return EmbedRequest(model, tuple(f"[[item:t{n}]] {SENTINEL}" for n in range(texts)), dimensions)


def expected(asked: EmbedRequest) -> tuple[bytes, ...]:
    return tuple(fake_vector(text, asked.model, asked.dimensions) for text in asked.texts)


@pytest.fixture
async def embed(fake_openai: FakeOpenAI) -> AsyncIterator[OpenAIEmbed]:
    provider = OpenAIEmbed(KEY, fake_openai.url, timeout_s=0.4)
    yield provider
    await provider.close()


@pytest.mark.parametrize("floats", [False, True], ids=["base64", "plain-numbers"])
@pytest.mark.parametrize("texts", [1, 2, 2048])
async def test_each_text_has_its_own_vector(embed: Embed, fake_openai: FakeOpenAI, texts: int, floats: bool) -> None:
    """In float32 to the last bit, with tokens as billed, also from a server that does not know base64."""
    fake_openai.configure(floats=floats)
    asked = request(texts, dimensions=8)
    answer = await embed.ask(asked)
    assert answer.vectors == expected(asked)
    assert (answer.model, answer.bad, answer.limits) == (SMALL, {}, None)
    assert answer.tokens_in == fake_openai.world.tokens_in > 0
    assert (fake_openai.world.requests, fake_openai.world.embedded.total()) == (1, texts)


async def test_the_request_holds_nothing_but_what_is_needed(embed: Embed, fake_openai: FakeOpenAI) -> None:
    """Model, texts, base64 and, of a model that takes it, the dimension; and no compression is asked for."""
    fake_openai.configure(rpm=600, tpm=600_000)
    answer = await embed.ask(request(2))
    (body,), ((path, headers),) = fake_openai.bodies, fake_openai.seen
    assert set(body) == {"model", "input", "encoding_format", "dimensions"}
    assert (body["encoding_format"], body["dimensions"], len(body["input"])) == ("base64", 64, 2)
    assert (path, headers["accept-encoding"]) == ("/v1/embeddings", "identity")
    assert answer.limits is not None
    assert answer.limits.requests_per_min == 600


@pytest.mark.parametrize(
    ("model", "dimensions", "sent"),
    [
        ("text-embedding-3-large", 3072, True),
        ("openai/text-embedding-3-small", 384, True),
        ("text-embedding-ada-002", 1536, False),
        ("nomic-embed-text", 384, False),
        ("my-text-embedding-3-like", 384, False),
    ],
)
async def test_only_some_models_are_told_the_dimension(
    embed: Embed, fake_openai: FakeOpenAI, model: str, dimensions: int, sent: bool
) -> None:
    """The others have one dimension, and would refuse the word."""
    answer = await embed.ask(request(2, model=model, dimensions=dimensions))
    assert not answer.bad
    assert ("dimensions" in fake_openai.bodies[0]) is sent


REFUSES_DIMENSIONS: list[tuple[str, dict[str, Any]]] = [
    ("vllm", rule("no_dimensions", on={"times": 1})),
    (
        "fastapi",
        rule(
            "status",
            on={"times": 1},
            status=422,
            body={
                "detail": [{"type": "extra", "loc": ["body", "dimensions"], "msg": "Extra inputs are not permitted"}]
            },
        ),
    ),
    (
        "by-param",
        rule(
            "status",
            on={"times": 1},
            status=400,
            body={
                "error": {"message": "Unrecognized argument", "param": "dimensions", "type": "invalid_request_error"}
            },
        ),
    ),
]


@pytest.mark.parametrize("line", [r[1] for r in REFUSES_DIMENSIONS], ids=[r[0] for r in REFUSES_DIMENSIONS])
async def test_a_server_that_takes_no_dimensions_is_asked_without(
    embed: Embed, fake_openai: FakeOpenAI, line: dict[str, Any]
) -> None:
    """Learnt from one refusal; the same texts are asked again by the caller, and later ones that way too."""
    fake_openai.script(line)
    asked = request(2, dimensions=1536)
    with pytest.raises(Transient, match="without"):
        await embed.ask(asked)
    for _ in range(2):
        assert (await embed.ask(asked)).vectors == expected(asked)
    assert ["dimensions" in body for body in fake_openai.bodies] == [True, False, False]


async def test_what_such_a_server_gives_is_measured_all_the_same(embed: Embed, fake_openai: FakeOpenAI) -> None:
    """Its whole vectors do not fit a space of fewer dimensions: said with both numbers."""
    fake_openai.configure(whole_only=True)
    with pytest.raises(Transient):
        await embed.ask(request())
    with pytest.raises(Misconfigured, match=r"1536 dimensions, and 64 are"):
        await embed.ask(request())


async def test_a_dimension_the_model_cannot_give_is_nobodys_fault(embed: Embed, fake_openai: FakeOpenAI) -> None:
    """Refused unpaid, for every text alike; and nothing is learnt from it."""
    for _ in range(2):
        with pytest.raises(Misconfigured, match="9999"):
            await embed.ask(request(dimensions=9999))
    assert fake_openai.bodies[1]["dimensions"] == 9999
    assert fake_openai.world.embedded.total() == 0


async def test_a_text_that_speaks_of_dimensions_teaches_nothing(embed: Embed, fake_openai: FakeOpenAI) -> None:
    """A refusal that repeats the text is about the text."""
    body = {"error": {"message": "flagged by our content policy", "type": "x", "input": 'unsupported "dimensions"'}}
    fake_openai.script(rule("status", on={"times": 1}, status=400, body=body))
    with pytest.raises(ItemPermanent, match="policy"):
        await embed.ask(request())
    await embed.ask(request())
    assert "dimensions" in fake_openai.bodies[1]


ODD: list[tuple[str, str, bool]] = [
    ("null", "null_one", False),
    ("no base64", "garbled_one", False),
    ("NaN", "nan_one", False),
    ("NaN in plain JSON", "nan_one", True),
    ("infinite", "inf_one", False),
    ("infinite in plain JSON", "inf_one", True),
    ("zeros", "zero_one", False),
    ("zeros in plain JSON", "zero_one", True),
    ("short", "short_one", False),
    ("short in plain JSON", "short_one", True),
]
WHY = {"null_one": "no_vector", "garbled_one": "no_vector", "zero_one": "all_zero", "short_one": "wrong_dimension"}


@pytest.mark.parametrize(("kind", "floats"), [o[1:] for o in ODD], ids=[o[0] for o in ODD])
async def test_one_odd_vector_is_named_and_the_others_are_kept(
    embed: Embed, fake_openai: FakeOpenAI, kind: str, floats: bool
) -> None:
    """What was paid is not thrown away for one that must not be stored."""
    fake_openai.configure(floats=floats)
    fake_openai.script(rule(kind, on={"item": "^t3$"}))
    asked = request()
    answer = await embed.ask(asked)
    right = list(expected(asked))
    right[3] = b""
    assert answer.vectors == tuple(right)
    assert answer.bad == {3: WHY.get(kind, "not_finite")}


async def test_a_text_alone_that_comes_odd_does_not_stop_a_run_that_works(
    embed: Embed, fake_openai: FakeOpenAI
) -> None:
    """After right ones a single wrong dimension is that text's; before any it is the model's."""
    fake_openai.script(rule("short_one", on={"item": "t0"}))
    with pytest.raises(Misconfigured):
        await embed.ask(request(1))
    fake_openai.script()
    await embed.ask(request())
    fake_openai.script(rule("short_one", on={"item": "t0"}))
    assert (await embed.ask(request(1))).bad == {0: "wrong_dimension"}


async def test_answers_are_matched_by_index(embed: Embed, fake_openai: FakeOpenAI) -> None:
    """In whatever order they come: 0 mispaired of 2,048."""
    fake_openai.script(rule("shuffle"))
    asked = request(2048)
    assert (await embed.ask(asked)).vectors == expected(asked)


@pytest.mark.parametrize("kind", ["drop_one", "double_one", "empty_data", "no_choices", "wrong_types"])
async def test_an_answer_that_leaves_texts_out_is_malformed(embed: Embed, fake_openai: FakeOpenAI, kind: str) -> None:
    """Fewer, double or none: no vector of it is believed, and it may have been billed."""
    fake_openai.script(rule(kind))
    with pytest.raises(Transient) as failed:
        await embed.ask(request())
    assert failed.value.code == "malformed"
    assert fake_openai.world.embedded.total() == 5


@pytest.mark.parametrize("given", [32, 63, 65, 1536])
async def test_a_model_of_another_dimension_stops_the_run(embed: Embed, fake_openai: FakeOpenAI, given: int) -> None:
    """Every row would fail alike, so no row is blamed: both dimensions are named, and the books count it as paid."""
    fake_openai.script(rule("wrong_dimension", dimensions=given))
    await_right = request()
    with pytest.raises(Misconfigured, match=f"{given} dimensions, and 64 are") as stopped:
        await embed.ask(await_right)
    assert stopped.value.fix
    assert stopped.value.code == "malformed"


FAULTS: list[tuple[str, dict[str, Any], type[CatchupError], int]] = [
    ("throttle", rule("status", status=429, body="slow", headers={"retry-after": "3"}), Throttle, 0),
    ("quota", rule("quota"), OutOfMoney, 0),
    ("wrong-key", rule("auth"), Misconfigured, 0),
    ("wrong-model", rule("model_404"), Misconfigured, 0),
    ("too-long", rule("too_long"), ItemPermanent, 0),
    ("request-too-large", rule("request_too_large"), ItemPermanent, 0),
    ("500", rule("status", status=500), Transient, 0),
    ("503-html", rule("status", status=503, body="<html><title>busy</title>"), Transient, 0),
    ("504", rule("status", status=504), UnknownOutcome, 0),
    ("hang", rule("hang"), UnknownOutcome, 5),
    ("reset-after-work", rule("reset"), UnknownOutcome, 5),
    ("reset-before-work", rule("reset_before"), UnknownOutcome, 0),
    ("half-body", rule("half_body"), UnknownOutcome, 5),
    ("html-200", rule("html200"), Transient, 5),
    ("cut-json", rule("malformed"), Transient, 5),
    ("error-200", rule("error200"), Transient, 5),
    ("null-data", rule("no_choices"), Transient, 5),
]


@pytest.mark.parametrize(("line", "becomes", "billed"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
async def test_one_ask_is_one_request(
    embed: Embed, fake_openai: FakeOpenAI, line: dict[str, Any], becomes: type[CatchupError], billed: int
) -> None:
    """Each attempt is one, booked by the caller."""
    fake_openai.script(line)
    with pytest.raises(becomes) as failed:
        await embed.ask(request())
    assert type(failed.value) is becomes
    assert fake_openai.world.requests == 1
    assert fake_openai.world.embedded.total() == billed


@pytest.mark.parametrize("line", [f[1] for f in FAULTS], ids=[f[0] for f in FAULTS])
async def test_neither_key_nor_text_is_in_any_log_or_traceback(
    fake_openai: FakeOpenAI, line: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every logger at DEBUG and the whole chain of exceptions printed, for each fault."""
    monkeypatch.setenv("OPENAI_LOG", "debug")
    caplog.set_level(logging.DEBUG)
    provider = OpenAIEmbed(KEY, fake_openai.url, timeout_s=0.2)
    fake_openai.script(line)
    with pytest.raises(CatchupError) as failed:
        await provider.ask(request())
    await provider.close()
    said = "".join(traceback.format_exception(failed.value, chain=True)) + caplog.text
    said += repr([failed.value, failed.value.__cause__, failed.value.__context__, vars(failed.value)]) + repr(provider)
    assert "s3ntinel" not in said
    assert "sentinel:" not in said


async def test_a_server_that_echoes_a_text_is_not_quoted(embed: Embed, fake_openai: FakeOpenAI) -> None:
    """Whichever of the texts it is."""
    body = {"error": {"message": f"bad input: [[item:t4]] {SENTINEL}"}}
    fake_openai.script(rule("status", status=400, body=body))
    with pytest.raises(ItemPermanent) as named:
        await embed.ask(request())
    assert "sentinel" not in repr(vars(named.value))


LIMITS: list[tuple[str, tuple[str, ...], str]] = [
    ("a text too long", ("short", "x" * 40_000), "too_long"),
    ("tokens of a request", ("x" * 30_000,) * 41, "request_too_large"),
    ("texts of a request", ("x",) * 2_049, "request_too_large"),
    ("an empty text", ("x", ""), "rejected"),
    ("a lone surrogate", ("x", "bad \ud800 text"), "not_unicode"),
]


@pytest.mark.parametrize(("texts", "reason"), [x[1:] for x in LIMITS], ids=[x[0] for x in LIMITS])
async def test_what_the_service_does_not_take_has_a_reason(
    embed: Embed, fake_openai: FakeOpenAI, texts: tuple[str, ...], reason: str
) -> None:
    """The caller halves the request down to the text that is to blame; none of it is paid."""
    with pytest.raises(ItemPermanent) as named:
        await embed.ask(EmbedRequest(SMALL, texts, 64))
    assert named.value.reason == reason
    assert fake_openai.world.embedded.total() == 0


async def test_nobody_listening_is_an_outage() -> None:
    """No connection means nothing was sent and nothing billed."""
    provider = OpenAIEmbed(KEY, "http://127.0.0.1:9/v1", timeout_s=1)
    with pytest.raises(Unreachable):
        await provider.ask(request())
    await provider.close()


def test_the_key_goes_nowhere_but_home() -> None:
    """The same host check as for chat, before a client exists."""
    with pytest.raises(Misconfigured, match="not a known host"):
        OpenAIEmbed(KEY, "https://evil.example/v1")


async def test_a_large_answer_is_read_in_little_time(fake_openai: FakeOpenAI) -> None:
    """2,048 vectors of 512 dimensions: far below the 0.5 s that float lists and a loop would take."""
    provider = OpenAIEmbed(KEY, fake_openai.url)
    asked = request(2048, dimensions=512)
    await provider.ask(asked)
    began = time.process_time()
    answer = await provider.ask(asked)
    assert time.process_time() - began < 0.25  # the fake's half included: 20 us a vector are 0.04 s
    assert np.frombuffer(answer.vectors[7], "<f4").shape == (512,)
    await provider.close()
