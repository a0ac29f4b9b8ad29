"""One test a trap of the packages we stand on: when a lock file moves and one of these turns, a guard of ours is void.

Each shows what the obvious code would do, with the real package against the fake; the guard itself is tested elsewhere.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
import tiktoken
from openai.types.chat import ChatCompletion

from queries.tokens import TokenCounter, seed
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.fake_script import rule

KEY = "sk-proj-s3ntinel-0123456789abcdef"
MESSAGES: list[Any] = [{"role": "user", "content": "[[item:a]] hello"}]


@pytest.fixture
async def sdk(fake_openai: FakeOpenAI) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK as its documentation opens it."""
    async with openai.AsyncOpenAI(api_key=KEY, base_url=fake_openai.url) as client:
        yield client


async def ask(client: openai.AsyncOpenAI) -> ChatCompletion:
    return await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)


@pytest.mark.parametrize(
    "line",
    [
        rule("quota", headers={}),
        rule("status", status=500, headers={"retry-after-ms": "1"}),
        rule("status", status=503, headers={"retry-after-ms": "1"}),
        rule("status", status=408, headers={"retry-after-ms": "1"}),
        rule("status", status=409, headers={"retry-after-ms": "1"}),
        rule("status", status=429, headers={"retry-after-ms": "1"}),
    ],
    ids=["quota", "500", "503", "408", "409", "429"],
)
async def test_the_sdk_sends_three_requests_for_one_call(
    sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI, line: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even for an empty account; two of them are invisible to the caller."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)
    fake_openai.script(line)
    with pytest.raises(openai.APIStatusError):
        await ask(sdk)
    assert fake_openai.world.requests == 3


async def test_a_timeout_is_paid_three_times(sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI) -> None:
    """Each abandoned request was billed on arrival, and none carries an idempotency key."""
    fake_openai.script(rule("hang"))
    with pytest.raises(openai.APITimeoutError):
        await ask(sdk.with_options(timeout=0.05))
    assert fake_openai.world.paid == {"a": 3}
    assert not any("idempotency-key" in headers for _, headers in fake_openai.seen)


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_other_refusals_are_sent_once(sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI, status: int) -> None:
    """What the SDK does not retry."""
    fake_openai.script(rule("status", status=status))
    with pytest.raises(openai.APIStatusError):
        await ask(sdk)
    assert fake_openai.world.requests == 1


async def test_a_server_can_order_a_retry_or_forbid_it(sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI) -> None:
    """x-should-retry decides over the status: another owner of retries that is not us."""
    fake_openai.script(rule("status", status=429, headers={"x-should-retry": "false"}))
    with pytest.raises(openai.RateLimitError):
        await ask(sdk)
    assert fake_openai.world.requests == 1


async def test_a_long_retry_after_ends_the_retries(sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI) -> None:
    """Told to wait 121 s the SDK gives up at once, so waiting must be ours."""
    fake_openai.script(rule("status", status=429, headers={"retry-after": "121"}))
    with pytest.raises(openai.RateLimitError):
        await ask(sdk)
    assert fake_openai.world.requests == 1


async def test_html_in_a_200_becomes_a_str(sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI) -> None:
    """The typed call returns text where a completion was promised; `.choices` fails far from the cause."""
    fake_openai.script(rule("html200"))
    answer: object = await ask(sdk)
    assert isinstance(answer, str)


async def test_empty_choices_are_an_answer(sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI) -> None:
    """No error: the caller meets an IndexError."""
    fake_openai.script(rule("no_choices"))
    assert (await ask(sdk)).choices == []


async def test_an_error_object_in_a_200_is_an_answer(sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI) -> None:
    """A completion with no choices at all, and the error hidden in an extra field."""
    fake_openai.script(rule("error200"))
    answer = await ask(sdk)
    assert getattr(answer, "choices", None) is None
    assert (answer.model_extra or {})["error"]["type"] == "server_error"


@pytest.mark.parametrize("kind", ["refusal", "null_content", "finish"])
async def test_refusals_and_cuts_are_normal_objects(
    sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI, kind: str
) -> None:
    """Nothing is raised for an answer that must not be stored."""
    fake_openai.script(rule(kind))
    assert len((await ask(sdk)).choices) == 1


async def test_a_html_503_has_no_code(sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI) -> None:
    """Code and type are None: a classifier that trusts them sees nothing."""
    fake_openai.script(rule("status", status=503, body="<html>busy</html>"))
    with pytest.raises(openai.InternalServerError) as failed:
        await ask(sdk.with_options(max_retries=0))
    assert (failed.value.code, failed.value.type) == (None, None)


async def test_redirects_are_followed_with_the_text(sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI) -> None:
    """307 to another server: the key is dropped, the transcript is not."""
    async with FakeOpenAI() as elsewhere:
        fake_openai.script(rule("redirect", status=307, location=f"{elsewhere.url}/chat/completions"))
        await ask(sdk)
        assert elsewhere.world.requests == 1
        assert elsewhere.bodies[0]["messages"] == MESSAGES


async def test_aiohttp_transport_calls_every_broken_connection_a_connect_timeout(fake_openai: FakeOpenAI) -> None:
    """A reset after sending looks like a connection that was never made: the cause's class must decide."""
    fake_openai.script(rule("reset"))
    http = openai.DefaultAioHttpClient()
    async with openai.AsyncOpenAI(api_key=KEY, base_url=fake_openai.url, max_retries=0, http_client=http) as client:
        with pytest.raises(openai.APITimeoutError) as failed:
            await ask(client)
    assert isinstance(failed.value.__cause__, httpx2.ConnectTimeout)
    assert isinstance(failed.value.__cause__.__cause__, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError)
    assert fake_openai.world.paid == {"a": 1}


async def test_the_raw_road_gives_headers_and_status_errors(fake_openai: FakeOpenAI) -> None:
    """cast_to=Response skips the typed path, keeps the limits' headers and still raises on an error status."""
    http = openai.DefaultAioHttpClient(follow_redirects=False)
    async with openai.AsyncOpenAI(api_key=KEY, base_url=fake_openai.url, max_retries=0, http_client=http) as client:
        fake_openai.configure(rpm=600)
        body = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
        response = await client.post("/chat/completions", content=body, cast_to=httpx2.Response)
        assert response.headers["x-ratelimit-limit-requests"] == "600"
        assert response.json()["choices"]
        for line in (rule("redirect", location="http://127.0.0.1:9/"), rule("auth")):
            fake_openai.script(line)
            with pytest.raises(openai.APIStatusError):
                await client.post("/chat/completions", content=body, cast_to=httpx2.Response)


async def test_the_environment_can_replace_the_key(fake_openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_CUSTOM_HEADERS may carry an Authorization that stands above api_key=."""
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer other")
    async with openai.AsyncOpenAI(api_key=KEY, base_url=fake_openai.url) as client:
        await ask(client)
    assert fake_openai.seen[0][1]["authorization"] == "Bearer other"


async def test_transport_loggers_name_the_url(
    sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    """At INFO the transport logs every request's URL, unless it is silenced by name."""
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    await ask(sdk)
    assert fake_openai.url in caplog.text
    assert KEY not in caplog.text


async def test_a_401_echoes_part_of_the_key(sdk: openai.AsyncOpenAI, fake_openai: FakeOpenAI) -> None:
    """And the SDK puts the body into the exception's text."""
    fake_openai.script(rule("auth"))
    with pytest.raises(openai.AuthenticationError, match="sk-proj"):
        await ask(sdk)


def test_an_unknown_model_has_no_tokenizer() -> None:
    """tiktoken raises KeyError: every model a price table learns later must not end a run."""
    with pytest.raises(KeyError):
        tiktoken.encoding_name_for_model("some-local-model")


@pytest.mark.parametrize(
    ("model", "encoding"),
    [("gpt-4o-mini-2024-07-18", "o200k_base"), ("gpt-4.1-nano", "o200k_base"), ("gpt-5.1", "o200k_base"),
     ("o3", "o200k_base"), ("gpt-4-turbo", "cl100k_base"), ("text-embedding-3-large", "cl100k_base"),
     ("gpt-oss-20b", "o200k_harmony")],
)  # fmt: skip
def test_models_have_the_tokenizer_they_had(model: str, encoding: str) -> None:
    """A family that changes its tokenizer changes every count and cost."""
    assert tiktoken.encoding_name_for_model(model) == encoding


def test_special_tokens_in_text_make_encode_raise(tmp_path: Path) -> None:
    """`encode` refuses a transcript that says <|endoftext|>; `encode_ordinary` reads it as text."""
    TokenCounter("gpt-4o", tmp_path)
    encoding = tiktoken.get_encoding("o200k_base")
    with pytest.raises(ValueError, match="disallowed special token"):
        encoding.encode("<|endoftext|>")
    assert len(encoding.encode_ordinary("<|endoftext|>")) > 1


def test_a_missing_vocabulary_means_a_download(tmp_path: Path) -> None:
    """Without the file tiktoken goes to the network at first use, in the middle of a run."""
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('NETWORK')\n"
        "socket.getaddrinfo = refuse\n"
        "import tiktoken; tiktoken.get_encoding('o200k_base')"
    )
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()} | {
        "TIKTOKEN_CACHE_DIR": str(tmp_path)
    }
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "NETWORK" in ended.stderr


def test_a_damaged_vocabulary_is_deleted_and_downloaded(tmp_path: Path) -> None:
    """A wrong hash is not an error but a reason to fetch again."""
    place = seed("o200k_base", tmp_path)
    place.write_bytes(b"damaged")
    code = "import tiktoken; tiktoken.get_encoding('o200k_base')"
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    environment |= {"TIKTOKEN_CACHE_DIR": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:9"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert not place.exists()
