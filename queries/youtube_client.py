"""YouTube's statistics through google-api-python-client: several threads, each with an HTTP object of its own.

The SDK blocks, and httplib2 is not safe for two threads (both documented). The threads are daemons: one that hangs in a
name lookup must not hold the end of the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from queries.errors import CatchupError, ItemPermanent
from queries.youtube import IDS_MOST, ViewsAnswer, ViewsRequest, is_video_id
from queries.youtube_answers import read_answer
from queries.youtube_errors import SERVICE, classify, malformed
from queries.youtube_hosts import DEFAULT_ENDPOINT, check_endpoint, check_key
from queries.youtube_http import AnswerTooLarge, Wire

_PARTS = "statistics"  # a unit a call, whatever the parts (documented); more would only be more to read
_LOGGERS = (
    *("googleapiclient", "googleapiclient.http", "googleapiclient.discovery", "googleapiclient.model"),
    *("google", "google.auth", "google_auth_httplib2", "httplib2"),
)
_GRACE_S = 1.0

Outcome = ViewsAnswer | CatchupError


class YouTube:
    """One provider: `ask` is exactly one HTTP request, and raises only what queries.errors names."""

    name = SERVICE
    is_local = False
    note = ""

    def __init__(
        self,
        api_key: str,
        endpoint: str | None = None,
        *,
        timeout_s: float = 60.0,
        allow_hosts: Collection[str] = (),
    ) -> None:
        check_key(api_key)
        self.endpoint = check_endpoint(endpoint or DEFAULT_ENDPOINT, allow_hosts)
        self._key, self._timeout_s = api_key, timeout_s
        silence_loggers()
        self._videos: Future[Any] = Future()
        # a fifth of a second that the database's first answers take as well
        threading.Thread(target=self._open, name="youtube-open", daemon=True).start()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()

    def _open(self) -> None:
        try:
            self._videos.set_result(_build(self.endpoint, Wire(self._key, self._timeout_s).http))
        except Exception as error:  # met by whoever asks
            self._videos.set_exception(error)

    async def ask(self, request: ViewsRequest) -> ViewsAnswer:
        refusal = _check_ids(request)
        if refusal is not None:
            raise refusal
        # The engine decides how many are out at once, so that many threads there are.
        worker = self._idle.pop() if self._idle else _Worker(self._videos, self._key, self._timeout_s)
        self._busy.add(worker)
        waiting: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        worker.put(request, waiting, self._rest)
        try:
            # The library's own timeouts are per read: a server that dribbles would never meet them.
            async with asyncio.timeout(self._timeout_s + _GRACE_S):
                outcome = await waiting
        except TimeoutError as silence:
            outcome = classify(None, exception=silence)
        finally:
            if not waiting.done() or waiting.cancelled():
                worker.wire.abort()
        if isinstance(outcome, CatchupError):
            raise outcome
        return outcome

    async def close(self) -> None:
        for worker in (*self._idle, *self._busy):
            worker.end()
        self._idle.clear()

    def _rest(self, worker: _Worker) -> None:
        self._busy.discard(worker)
        self._idle.append(worker)


class _Worker:
    """A thread and its HTTP object. It works on one request at a time and hands back to the loop that asked."""

    def __init__(self, videos: Future[Any], api_key: str, timeout_s: float) -> None:
        self.wire = Wire(api_key, timeout_s)
        self._videos, self._key = videos, api_key
        self._todo: queue.SimpleQueue[tuple[ViewsRequest, asyncio.Future[Outcome], Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="youtube", daemon=True).start()

    def put(self, request: ViewsRequest, waiting: asyncio.Future[Outcome], rest: Any) -> None:
        self._todo.put((request, waiting, rest))

    def end(self) -> None:
        self.wire.abort()
        self._todo.put(None)

    def _work(self) -> None:
        while (task := self._todo.get()) is not None:
            request, waiting, rest = task
            outcome = self._ask(request)
            # The loop may be gone: then nobody waits for this any more.
            with contextlib.suppress(RuntimeError):
                waiting.get_loop().call_soon_threadsafe(self._hand_back, waiting, outcome, rest)
        self.wire.http.close()

    def _hand_back(self, waiting: asyncio.Future[Outcome], outcome: Outcome, rest: Any) -> None:
        rest(self)
        if not waiting.done():
            waiting.set_result(outcome)

    def _ask(self, request: ViewsRequest) -> Outcome:
        """What this request came to. An exception never leaves: it holds the request, and would be logged with it."""
        self.wire.reply = None
        try:
            wanted = self._videos.result().list(part=_PARTS, id=",".join(request.ids))
            found = wanted.execute(http=self.wire.http, num_retries=0)
            if not (isinstance(found, dict) and "error" in found):
                answer = read_answer(found, request)
                at = self.wire.reply.at if self.wire.reply else None
                return replace(answer, at=at) if isinstance(answer, ViewsAnswer) else answer
            failure: Exception | None = None
        except AnswerTooLarge:
            return malformed("it is larger than an answer can be")
        except Exception as error:  # whatever the SDK raises becomes one of ours
            failure = error
        reply = self.wire.reply
        if reply is None:
            return classify(None, exception=failure)
        if reply.status < 300 and failure is not None:
            return malformed("it is no JSON")
        return classify(reply.status, reply.body, reply.headers, secrets=(self._key,), now_s=time.time())


def silence_loggers() -> None:
    """The SDK logs URLs and bodies, refusals even at WARNING: all of it is in the error that is raised."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _build(endpoint: str, http: Any) -> Any:
    from googleapiclient.discovery import build  # noqa: PLC0415

    # Everything that could else come from the environment is given: credentials, certificates, universe.
    options = {"api_endpoint": endpoint, "universe_domain": "googleapis.com"}
    return build(
        "youtube", "v3", http=http, static_discovery=True, cache_discovery=False, client_options=options
    ).videos()


def _check_ids(request: ViewsRequest) -> ItemPermanent | None:
    """A comma in an id would be two ids, and a long one would turn the request into another."""
    if len(request.ids) > IDS_MOST:
        what = f"The request holds {len(request.ids)} ids, and YouTube takes {IDS_MOST}."
        return ItemPermanent(what, reason="too_many_ids", service=SERVICE)
    if not all(map(is_video_id, request.ids)):
        return ItemPermanent("An id is not one that YouTube has.", reason="not_an_id", service=SERVICE)
    return None
