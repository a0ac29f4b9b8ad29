"""Pinecone's key goes nowhere but home, and its client does nothing on its own initiative."""

from __future__ import annotations

import gc
import logging
import struct
import traceback
from typing import Any

import pinecone
import pytest
from pinecone import AsyncIndex

from queries.errors import CatchupError, Misconfigured, Transient
from queries.pinecone_client import PineconeClient
from queries.pinecone_hosts import check_host
from queries.pinecone_space import PineconeSpace
from queries.vectors import VectorRecord
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.fake_script import rule

KEY = "pcsk_s3ntinel_0123456789abcdef"
LEGACY_KEY = "01234567-89ab-cdef-0123-456789abcdef"
ONE = [VectorRecord("a", struct.pack("<8f", *range(1, 9)), {})]


def open_space(host: str | None, **changes: Any) -> PineconeSpace:
    given = {"index_host": host, "index": "videos", "namespace": "ns", "controller_host": host, "timeout_s": 2.0}
    return PineconeSpace(**{"api_key": KEY, **given, **changes})


@pytest.mark.parametrize(
    ("host", "becomes"),
    [
        ("videos-abc.svc.aped-1.pinecone.io", "https://videos-abc.svc.aped-1.pinecone.io"),
        ("https://videos-abc.svc.pinecone.io/", "https://videos-abc.svc.pinecone.io"),
        ("http://127.0.0.1:4097/indexes/videos", "http://127.0.0.1:4097/indexes/videos"),
        ("localhost:5081", "http://localhost:5081"),
        ("http://[::1]:5081", "http://[::1]:5081"),
        ("https://vectors.example", "https://vectors.example"),
    ],
)
def test_the_key_goes_to_pinecone_loopback_and_whom_the_operator_names(host: str, becomes: str) -> None:
    """Without a scheme it is https, on loopback http, as Pinecone's own emulator gives its hosts."""
    assert check_host(host, KEY, ["Vectors.example"]) == becomes


@pytest.mark.parametrize(
    "host",
    [
        "https://evil.example",
        "https://pinecone.io.evil.example",
        "https://evilpinecone.io",
        "http://videos-abc.svc.pinecone.io",
        "http://vectors.example",
        "https://user@videos.svc.pinecone.io",
        "https://videos.svc.pinecone.io?x=1",
        "https://videos.svc.pinecone.io#@evil.example",
        "ftp://videos.svc.pinecone.io",
        "http://169.254.169.254",
        "https://",
        "https://videos.svc.pinecone.io:0",
        "https://[::1",
        "javascript://x",
    ],
)
@pytest.mark.parametrize("key", [KEY, LEGACY_KEY])
def test_the_key_goes_nowhere_else(host: str, key: str) -> None:
    """Refused before anything is opened, without the key in the words."""
    with pytest.raises(Misconfigured) as caught:
        check_host(host, key, ["vectors.example"])
    assert key not in str(caught.value)
    with pytest.raises(Misconfigured):
        open_space("http://127.0.0.1:1", controller_host="https://evil.example")


async def test_a_host_that_the_control_plane_names_is_checked_as_well(fake_pinecone: FakePinecone) -> None:
    """A control plane that is not Pinecone's cannot send the key elsewhere."""
    told = fake_pinecone._told_index(fake_pinecone.indexes["videos"]) | {"host": "evil.example"}
    fake_pinecone.script(rule("status", on={"item": "describe_index"}, status=200, body=told))
    space = open_space(None, controller_host=fake_pinecone.url)
    with pytest.raises(Misconfigured, match=r"not sent to evil\.example"):
        await space.put(ONE)
    await space.close()


@pytest.mark.parametrize("key", ["", " ", "with space", "line\n", "kéy"])
def test_a_key_that_no_header_takes_is_refused(key: str) -> None:
    """A newline read from a file is told before the first request, and never echoed."""
    with pytest.raises(Misconfigured, match="Pinecone API key"):
        open_space("http://127.0.0.1:1", api_key=key)


@pytest.mark.parametrize(
    "names",
    [
        {"index": "Videos"},
        {"index": ""},
        {"index": "x" * 46},
        {"namespace": "ö"},
        {"namespace": "a\n"},
        {"index": "a/b"},
    ],
    ids=str,
)
def test_names_that_pinecone_does_not_have_are_refused(names: dict[str, str]) -> None:
    """Before anything is asked."""
    with pytest.raises(Misconfigured):
        open_space("http://127.0.0.1:1", **names)


@pytest.mark.parametrize("over_grpc", [True, False], ids=["grpc", "rest"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_never_followed(fake_pinecone: FakePinecone, status: int, over_grpc: bool) -> None:
    """Neither key nor vectors travel on: the second server is not asked at all."""
    async with FakePinecone() as other:
        space = open_space(fake_pinecone.url, over_grpc=over_grpc)
        await space.put(ONE)
        fake_pinecone.script(rule("redirect", status=status, location=other.url + "/vectors/upsert"))
        with pytest.raises(Misconfigured, match="redirects"):
            await space.put(ONE)
        assert not other.requests
        await space.close()


async def test_the_environment_cannot_replace_the_key(
    fake_pinecone: FakePinecone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PINECONE_ADDITIONAL_HEADERS stands above the key in the client; here it does not."""
    monkeypatch.setenv("PINECONE_ADDITIONAL_HEADERS", '{"Api-Key": "another"}')
    monkeypatch.setenv("PINECONE_CONTROLLER_HOST", "https://evil.example")
    space = open_space(None, controller_host=fake_pinecone.url)
    await space.put(ONE)
    assert {headers["api-key"] for _, headers in fake_pinecone.seen} == {KEY}
    await space.close()


async def test_nothing_is_logged(fake_pinecone: FakePinecone, caplog: pytest.LogCaptureFixture) -> None:
    """The client's loggers tell requests and URLs below WARNING; nobody's --verbose turns that on."""
    caplog.set_level(logging.DEBUG)
    space = open_space(None, controller_host=fake_pinecone.url)
    await space.facts()
    await space.put(ONE)
    await space.seen(["a"])
    await space.close()
    assert [record for record in caplog.records if record.name.startswith(("pinecone", "http"))] == []


@pytest.mark.parametrize("over_grpc", [True, False], ids=["grpc", "rest"])
async def test_an_error_keeps_no_body_alive(fake_pinecone: FakePinecone, over_grpc: bool) -> None:
    """Two megabytes hang on the client's exception; ours has neither cause nor context."""
    space = open_space(fake_pinecone.url, over_grpc=over_grpc)
    await space.put(ONE)
    fake_pinecone.script(rule("status", status=500))
    with pytest.raises(Transient) as caught:
        await space.put(ONE)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert KEY not in "".join(traceback.format_exception(caught.value))
    await space.close()
    gc.collect()


async def test_a_huge_answer_is_not_read(fake_pinecone: FakePinecone, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger than any answer can be is refused by its length."""
    monkeypatch.setattr("queries.pinecone_client.ANSWER_AT_MOST", 20)
    space = open_space(fake_pinecone.url)
    with pytest.raises(Transient, match="larger than an answer"):
        await space.facts()
    await space.close()


async def test_the_client_is_still_built_as_we_rely_on_it() -> None:
    """Private parts of 10.2 that have no public equal: where retries are kept, and a post that takes bytes."""
    index = AsyncIndex(host="http://127.0.0.1:1", api_key=KEY)
    assert index._http._config.retry_config.max_retries == 3, pinecone.__version__
    client = PineconeClient(
        KEY, index="v", index_host="http://127.0.0.1:1", controller_host=None, allow_hosts=(), timeout_s=1
    )
    for http in ((await client.index())._http, client.controller()._http):
        transport: Any = http._ensure_client()._transport
        assert transport._config.max_retries == 0
        assert http._ensure_client().follow_redirects is False
    await client.close()
    await index.close()


@pytest.mark.parametrize("operation", ["stats", "fetch", "list", "delete", "query", "describe_namespace"])
async def test_reading_is_one_request_too(fake_pinecone: FakePinecone, operation: str) -> None:
    """Each operation meets a 503 once, and raises what it means."""
    space = open_space(fake_pinecone.url)
    await space.facts()
    before = fake_pinecone.requests[operation]
    fake_pinecone.script(rule("status", on={"item": f"^{operation}$"}, status=503))
    with pytest.raises(CatchupError) as caught:
        await ASK[operation](space)
    assert type(caught.value) is Transient
    assert fake_pinecone.requests[operation] == before + 1
    await space.close()


async def list_all(space: PineconeSpace) -> None:
    async for _ in space.ids():
        pass


ASK: dict[str, Any] = {
    "stats": lambda space: space.facts(),
    "describe_namespace": lambda space: space.facts(),
    "fetch": lambda space: space.seen(["a"]),
    "list": list_all,
    "delete": lambda space: space.delete(["a"]),
    "query": lambda space: space.query(ONE[0].values, 1, {}),
}
