"""One question is one request, whatever the service does, and the key goes to one place in one header."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

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
from queries.youtube import ViewsRequest
from queries.youtube_client import YouTube
from queries.youtube_hosts import check_endpoint
from tests.servers.fake_script import rule
from tests.servers.fake_youtube import FakeYouTube
from tests.servers.fake_youtube_script import REFUSALS

KEY = "AIzaSy-s3ntinel_0123456789abcdefghijklm"
IDS = ViewsRequest(tuple(f"video_{n:05d}" for n in range(50)))


@pytest.fixture
async def open_client(fake_youtube: FakeYouTube) -> AsyncIterator[Callable[..., YouTube]]:
    made: list[YouTube] = []

    def open_one(endpoint: str | None = None, **how: Any) -> YouTube:
        made.append(YouTube(KEY, endpoint or fake_youtube.url, **{"timeout_s": 30.0, **how}))
        return made[-1]

    yield open_one
    for each in made:
        await each.close()


async def test_fifty_ids_are_one_request_for_the_parts_that_are_needed(
    fake_youtube: FakeYouTube, open_client: Callable[..., YouTube]
) -> None:
    """One comma-joined parameter, one part, the key in a header and nowhere in the URL."""
    answer = await open_client().ask(IDS)
    assert set(answer.found) == set(IDS.ids)
    (asked,) = fake_youtube.seen
    assert asked.query == {"part": ["statistics"], "id": [",".join(IDS.ids)], "alt": ["json"]}
    assert asked.headers["x-goog-api-key"] == KEY
    assert KEY not in asked.path
    assert (fake_youtube.requests, fake_youtube.units) == (1, 1)


@pytest.mark.parametrize("is_chunked", [False, True], ids=["whole", "chunked"])
@pytest.mark.parametrize("is_gzip", [False, True], ids=["plain", "gzip"])
async def test_many_at_once_each_get_their_own_answer(
    fake_youtube: FakeYouTube, open_client: Callable[..., YouTube], is_gzip: bool, is_chunked: bool
) -> None:
    """A thread each and a connection each, kept open and used again."""
    fake_youtube.configure(gzip=is_gzip, chunked=is_chunked, latency=0.005)
    client = open_client()
    batches = [ViewsRequest(tuple(f"b{b}_{n}" for n in range(50))) for b in range(80)]
    todo = iter(batches)

    async def work() -> None:
        for request in todo:
            assert set((await client.ask(request)).found) == set(request.ids)

    await asyncio.gather(*(work() for _ in range(8)))
    assert fake_youtube.requests == 80
    assert fake_youtube.connections <= 9
    assert 1 < fake_youtube.max_open <= 8


FAULTS: list[Any] = [
    pytest.param(rule("quota"), OutOfMoney, id="quotaExceeded"),
    pytest.param(rule("quota_rpc"), OutOfMoney, id="quota as RESOURCE_EXHAUSTED"),
    pytest.param(rule("rate"), Throttle, id="rateLimitExceeded"),
    pytest.param(rule("user_rate", retry_after=7), Throttle, id="userRateLimitExceeded"),
    pytest.param(rule("key_invalid"), Misconfigured, id="a wrong key"),
    pytest.param(rule("not_configured"), Misconfigured, id="API not enabled"),
    pytest.param(rule("bad_id"), ItemPermanent, id="a bad id"),
    pytest.param(rule("backend"), Transient, id="500"),
    pytest.param(rule("raw", status=502), Transient, id="a gateway's page"),
    pytest.param(rule("raw", status=200), Transient, id="a captive portal"),
    pytest.param(rule("raw", status=200, body="upstream connect error"), Transient, id="text"),
    pytest.param(rule("raw", status=200, body=""), Transient, id="an empty body"),
    pytest.param(rule("raw", status=204, body=""), Transient, id="no content"),
    pytest.param(rule("raw", status=200, body=[]), Transient, id="a list"),
    pytest.param(rule("raw", status=200, body={}), Transient, id="no items"),
    pytest.param(rule("raw", status=200, body=REFUSALS["quota"][1]), OutOfMoney, id="quota inside a 200"),
    pytest.param(rule("raw", status=403, body={"error": None}), Misconfigured, id="an error that trips the SDK"),
    pytest.param(rule("raw", status=403, body={"error": {"message": 5, "errors": 7}}), Misconfigured, id="and another"),
    pytest.param(rule("raw", status=500, body=[{"error": "x"}]), Transient, id="and a third"),
    pytest.param(rule("raw", status=401, body="", headers={"WWW-Authenticate": "Basic"}), Misconfigured, id="401"),
    pytest.param(rule("cut_json"), Transient, id="cut JSON"),
    pytest.param(rule("cut"), UnknownOutcome, id="a cut body"),
    pytest.param(rule("close"), UnknownOutcome, id="closed without an answer"),
    pytest.param(rule("close", kindly=False), UnknownOutcome, id="reset without an answer"),
    pytest.param(rule("hang"), UnknownOutcome, id="silence"),
    pytest.param(rule("dribble"), UnknownOutcome, id="a byte at a time"),
    pytest.param(rule("bomb"), Transient, id="a few bytes that unpack to too many"),
    pytest.param(rule("raw", status=200, body=" " * 5_000_000), Transient, id="an endless answer"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "becomes"), FAULTS)
async def test_a_fault_is_one_request_one_error_and_no_key(
    fake_youtube: FakeYouTube,
    open_client: Callable[..., YouTube],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    action: dict[str, Any],
    becomes: type[CatchupError],
) -> None:
    """The library repeats nothing by itself; the key is in no log at DEBUG, no error, no traceback and no output."""
    fake_youtube.script(action)
    never_ends = action["action"]["kind"] in ("hang", "dribble")
    with caplog.at_level(logging.DEBUG), pytest.raises(CatchupError) as caught:
        await open_client(timeout_s=0.4 if never_ends else 30.0).ask(IDS)
    assert type(caught.value) is becomes
    assert fake_youtube.requests == 1
    told = "".join(traceback.format_exception(caught.value)) + str(vars(caught.value)) + caplog.text
    assert KEY not in told + "".join(capfd.readouterr())
    assert "HttpError" not in told  # the SDK's exception, which holds the request, does not hang on ours


async def test_a_connection_closed_while_idle_is_opened_again_before_anything_is_sent(
    fake_youtube: FakeYouTube, open_client: Callable[..., YouTube]
) -> None:
    """The server closes what it kept open: no request is lost to that, and none is doubled."""
    fake_youtube.script(rule("idle_close"))
    client = open_client()
    for _ in range(3):
        await client.ask(IDS)
        while fake_youtube.live:
            await asyncio.sleep(0.01)
    assert (fake_youtube.requests, fake_youtube.connections) == (3, 3)


async def test_after_a_fault_the_next_question_is_answered(
    fake_youtube: FakeYouTube, open_client: Callable[..., YouTube]
) -> None:
    """A broken connection is thrown away, and the thread goes on."""
    fake_youtube.script(*(rule(kind, on={"nth": n}) for n, kind in enumerate(("close", "cut", "hang"), 1)))
    client = open_client(timeout_s=1.5)
    for _ in range(3):
        with pytest.raises(UnknownOutcome):
            await client.ask(IDS)
    assert len((await client.ask(IDS)).found) == 50


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error_and_the_key_does_not_follow(
    fake_youtube: FakeYouTube, open_client: Callable[..., YouTube], status: int
) -> None:
    """Nothing at all is asked of where it leads."""
    async with FakeYouTube() as elsewhere:
        fake_youtube.script(
            rule("raw", status=status, body="", headers={"Location": f"{elsewhere.url}/youtube/v3/videos"})
        )
        with pytest.raises(Misconfigured, match="redirects"):
            await open_client().ask(IDS)
        assert (elsewhere.requests, elsewhere.connections) == (0, 0)


async def test_no_connection_is_an_outage(open_client: Callable[..., YouTube]) -> None:
    """Nobody listens, or nobody has that name: nothing was sent."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Unreachable):
        await open_client(f"http://127.0.0.1:{port}").ask(IDS)
    with pytest.raises(Unreachable):
        await open_client("https://no-such-host.invalid", allow_hosts=["no-such-host.invalid"]).ask(IDS)


async def test_the_environment_changes_nothing(
    fake_youtube: FakeYouTube, open_client: Callable[..., YouTube], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No proxy reads the key, and no universe or certificate setting moves the request."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example.com")
    monkeypatch.setenv("GOOGLE_API_USE_MTLS_ENDPOINT", "always")
    monkeypatch.setenv("GOOGLE_API_USE_CLIENT_CERTIFICATE", "true")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent.json")
    assert len((await open_client().ask(IDS)).found) == 50


async def test_a_hanging_request_that_is_given_up_leaves_its_thread(
    fake_youtube: FakeYouTube, open_client: Callable[..., YouTube]
) -> None:
    """Cancelled, the connection is closed at once: an end within seconds is not held up by a silent server."""
    fake_youtube.script(rule("hang"))
    client = open_client(timeout_s=60.0)
    asking = [asyncio.create_task(client.ask(IDS)) for _ in range(4)]
    while fake_youtube.open < 4:
        await asyncio.sleep(0.01)
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await client.close()
    given_up = time.monotonic() + 5
    while any(each.name == "youtube" for each in threading.enumerate()) and time.monotonic() < given_up:
        await asyncio.sleep(0.01)
    assert not [each for each in threading.enumerate() if each.name == "youtube"]


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        pytest.param(tuple("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNO"), "too_many_ids", id="51"),
        pytest.param(("a,b",), "not_an_id", id="a comma would be two"),
        pytest.param(("a b",), "not_an_id", id="a blank"),
        pytest.param(("",), "not_an_id", id="nothing"),
        pytest.param(("x" * 33,), "not_an_id", id="too long"),
        pytest.param(("é" * 11,), "not_an_id", id="not ASCII"),
        pytest.param(("a&key=x",), "not_an_id", id="another parameter"),
        pytest.param(("a\r\nX: y",), "not_an_id", id="another header"),
    ],
)
async def test_what_is_no_id_is_never_sent(
    fake_youtube: FakeYouTube, open_client: Callable[..., YouTube], ids: tuple[str, ...], reason: str
) -> None:
    """It costs no unit, and cannot change what is asked."""
    with pytest.raises(ItemPermanent) as refused:
        await open_client().ask(ViewsRequest(ids))
    assert refused.value.reason == reason
    assert fake_youtube.requests == 0


@pytest.mark.parametrize(
    ("endpoint", "fix"),
    [
        pytest.param("https://youtube.example.com", "--allow-host youtube.example.com", id="another host"),
        pytest.param("https://youtube.googleapis.com.evil.example", "--allow-host", id="only begins like it"),
        pytest.param("http://youtube.googleapis.com", "https", id="http"),
        pytest.param("http://allowed.example", "https", id="http to an allowed one"),
        pytest.param("https://u:p@youtube.googleapis.com", "YOUTUBE_API_ENDPOINT", id="with a password"),
        pytest.param("https://youtube.googleapis.com/?key=x", "YOUTUBE_API_ENDPOINT", id="with a query"),
        pytest.param("ftp://youtube.googleapis.com", "YOUTUBE_API_ENDPOINT", id="another scheme"),
        pytest.param("youtube.googleapis.com", "YOUTUBE_API_ENDPOINT", id="no scheme"),
        pytest.param("", "YOUTUBE_API_ENDPOINT", id="nothing"),
    ],
)
def test_the_key_goes_only_home(endpoint: str, fix: str) -> None:
    """https and a host of YouTube's API or one allowed by name; else nothing is opened."""
    with pytest.raises(Misconfigured) as refused:
        check_endpoint(endpoint, ["allowed.example"])
    assert fix in refused.value.fix


@pytest.mark.parametrize(
    "endpoint",
    ["https://youtube.googleapis.com", "https://www.googleapis.com/", "https://ALLOWED.example", "http://127.0.0.1:4050",
     "http://[::1]:4050", "http://localhost:4050"],
)  # fmt: skip
def test_known_allowed_and_loopback_addresses_are_taken(endpoint: str) -> None:
    """With one closing slash, since the path is put behind it."""
    assert check_endpoint(endpoint, ["allowed.example"]).rstrip("/") == endpoint.rstrip("/")


@pytest.mark.parametrize("key", ["", " ", "AIza x", "AIza\n", "schlüssel"])
def test_a_key_that_is_none_is_refused_before_anything_is_opened(key: str) -> None:
    """A line break in it would be a header of its own."""
    with pytest.raises(Misconfigured, match="API key"):
        YouTube(key)


def test_the_default_is_googles_own_address() -> None:
    """Taken from the discovery document, not from the environment."""
    assert YouTube(KEY).endpoint == "https://youtube.googleapis.com/"
