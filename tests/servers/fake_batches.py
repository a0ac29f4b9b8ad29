"""The Files and Batches half of the fake OpenAI: the same world, bill and answers as its live calls, at half the price.

Time is virtual: a batch's state follows from its age by `clock`, which `advance` moves. How it lies is scripted in
tests/servers/fake_batch_lies.py, by batch or drawn from the seed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from tests.servers.fake_batch_files import LOST, Refusal, StoredFile, list_page, read_upload
from tests.servers.fake_batch_lies import Lie, LieRule, draw_lie
from tests.servers.fake_batch_lines import Line, find_faults, work, write_results
from tests.servers.fake_script import error_body, share

if TYPE_CHECKING:
    from tests.servers.fake_openai import FakeOpenAI

DAY = 86_400.0
ENDED = ("failed", "completed", "expired", "cancelled")


@dataclass(frozen=True)
class BatchSettings:
    """Seconds are virtual. An enqueued limit of 0 is none."""

    validating_s: float = 0.0
    working_s: float = 0.0
    finalizing_s: float = 0.0
    cancelling_s: float = 0.0
    enqueued_limit: int = 0
    counts_in_progress: bool = False
    """What occupies the limit: `validating` only, or what is in progress too."""
    requests_most: int = 50_000
    bytes_most: int = 200 * 10**6
    inputs_most: int = 50_000
    kept_s: float = 30 * DAY
    price_factor: float = 0.5
    lies: bool = False
    """Every batch, upload, poll and download misbehaves as the seed draws it."""
    polls_fail: float = 0.0
    """Share of the retrieves that are answered 503, or 404 in a fifth of these."""


@dataclass
class FakeBatch:
    """One batch as it was asked for, and how it will go."""

    id: str
    input_file_id: str
    endpoint: str
    metadata: dict[str, str]
    created_at: float
    model: str = ""
    lines: list[Line] = field(default_factory=list)
    tokens: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    lie: Lie = field(default_factory=Lie)
    is_foreign: bool = False
    listed_at: float = 0.0
    cancel_at: float | None = None
    ended_at: float | None = None
    status: str = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    counts: tuple[int, int, int] = (0, 0, 0)
    delivered: list[str] = field(default_factory=list)
    """The ids whose paid answers stand in its output file: none of these may be thrown away."""


class FakeBatches:
    """`fake.batches`; a test moves time with `advance`, scripts lies with `script`, and reads `batches` and `files`."""

    def __init__(self, host: FakeOpenAI) -> None:
        self.host = host
        self.clock: Callable[[], float] = time.time
        self._numbers = itertools.count(1)
        self.reset()

    def reset(self) -> None:
        self.settings = BatchSettings()
        self.rules: list[LieRule] = []
        self.files: dict[str, StoredFile] = {}
        self.batches: dict[str, FakeBatch] = {}
        self.skipped = 0.0
        self.calls: dict[str, int] = {}
        self.polls: list[float] = []
        self.enqueued_peak = 0

    def configure(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)

    def script(self, *lines: dict[str, Any]) -> None:
        """[{"match": {"nth": 1}, "lie": {"ends": "expired", "share": 0.37}}]; the first rule that meets decides."""
        self.rules = [LieRule(line.get("match", {}), Lie(**line["lie"])) for line in lines]

    @property
    def now(self) -> float:
        return self.clock() + self.skipped

    def advance(self, seconds: float) -> None:
        self.skipped += seconds
        self.settle()

    def add_foreign(self, tokens: int, *, status: str = "validating", model: str = "gpt-4o-mini") -> FakeBatch:
        """Somebody else's batch in the same organisation: listed, and it takes room."""
        batch = FakeBatch(self._name("batch"), "file-of-others", "/v1/chat/completions", {}, self.now, model)
        batch.is_foreign, batch.tokens, batch.status = True, tokens, status
        self.batches[batch.id] = batch
        return batch

    def add_routes(self, router: web.UrlDispatcher) -> None:
        routes: list[tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]]] = [
            ("POST", "/v1/files", self._upload),
            ("GET", "/v1/files", self._list_files),
            ("GET", "/v1/files/{id}", self._file),
            ("GET", "/v1/files/{id}/content", self._content),
            ("DELETE", "/v1/files/{id}", self._delete),
            ("POST", "/v1/batches", self._create),
            ("GET", "/v1/batches", self._list),
            ("GET", "/v1/batches/{id}", self._get),
            ("POST", "/v1/batches/{id}/cancel", self._cancel),
        ]
        for method, path, handle in routes:
            router.add_route(method, path, self._checked(handle))
        router.add_route("*", "/__fake/batches", self._control)

    def _checked(
        self, handle: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def check(request: web.Request) -> web.StreamResponse:
            key = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self.host.settings.key and key != self.host.settings.key:
                return self.host._refuse("auth", {}, key)
            self.host._remember(request, {})
            return await handle(request)

        return check

    # --- files ---------------------------------------------------------------------------------------------

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        number = self._count("upload")
        lie = self._lie_of(number)
        stored = await read_upload(request, lie, self._name("file"), self.now, self.settings.bytes_most)
        if stored is LOST:
            return self._cut(request)
        if isinstance(stored, Refusal):
            return self._refuse(stored.message, stored.status, stored.code)
        self.files[stored.id] = stored
        return self._cut(request) if lie.upload == "unanswered" else self._json(stored.describe())

    async def _list_files(self, request: web.Request) -> web.Response:
        self._count("list_files")
        found = [each for each in self.files.values() if self._is_kept(each)]
        if "purpose" in request.query:
            found = [each for each in found if each.purpose == request.query["purpose"]]
        return self._json(list_page([each.describe() for each in reversed(found)], request.query))

    async def _file(self, request: web.Request) -> web.Response:
        stored = self._find_file(request)
        return self._json(stored.describe()) if stored else self._no_file(request)

    async def _content(self, request: web.Request) -> web.StreamResponse:
        number = self._count("content")
        stored = self._find_file(request)
        if stored is None or stored.lie.content == "gone":
            return self._no_file(request)
        data = stored.data
        if stored.lie.content and stored.spoilt < stored.lie.content_times:
            stored.spoilt += 1
            if stored.lie.content == "late":
                return self._no_file(request)
            if stored.lie.content == "failing":
                return self._refuse("The server had an error", 503, "server_error")
            if stored.lie.content == "short":  # a proxy that lost the rest and closed politely
                return web.Response(body=data[: len(data) * 2 // 3], content_type="application/octet-stream")
            answer = web.StreamResponse(headers={"content-length": str(len(data))})
            await answer.prepare(request)
            await answer.write(data[: int(len(data) * share(self.host.settings.seed, "cut", number))])
            await asyncio.sleep(0)
            return self._cut(request)
        return web.Response(body=data, content_type="application/octet-stream")

    async def _delete(self, request: web.Request) -> web.Response:
        self._count("delete")
        stored = self._find_file(request)
        if stored is None:
            return self._no_file(request)
        del self.files[stored.id]
        return self._json({"id": stored.id, "object": "file", "deleted": True})

    def _find_file(self, request: web.Request) -> StoredFile | None:
        self.settle()
        stored = self.files.get(request.match_info["id"])
        return stored if stored is not None and self._is_kept(stored) else None

    def _is_kept(self, stored: StoredFile) -> bool:
        return self.now - stored.created_at < self.settings.kept_s

    def _no_file(self, request: web.Request) -> web.Response:
        said = f"No such File object: {request.match_info['id']}"
        return self.host._json(error_body(said, "invalid_request_error", None, "id"), 404)

    # --- batches -------------------------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.Response:
        number = self._count("create")
        self.settle()
        lie = self._lie_of(number)
        body = await request.json()
        stored = self.files.get(str(body.get("input_file_id")))
        if lie.create == "failing":
            return self._refuse("The server had an error while processing your request", 500, "server_error")
        if stored is None or not self._is_kept(stored):
            return self._refuse(f"No such File object: {body.get('input_file_id')}", 400, "invalid_value")
        batch = FakeBatch(
            self._name("batch"), stored.id, body["endpoint"], dict(body.get("metadata") or {}), self.now, lie=lie
        )
        batch.listed_at = self.now + lie.listed_after_s
        batch.cancel_at = self.now + lie.cancelled_after_s if lie.cancelled_after_s else None
        self._validate(batch, stored)
        self.batches[batch.id] = batch
        self.settle()
        return self._cut(request) if lie.create == "unanswered" else self._json(self._describe(batch))

    def _validate(self, batch: FakeBatch, stored: StoredFile) -> None:
        """Everything that makes it fail is known now, and told only once `validating` is over."""
        batch.lines, batch.errors = find_faults(stored.data, batch.endpoint, self.settings)
        batch.model = batch.lines[0].body.get("model", "") if batch.lines else ""
        batch.tokens = sum(line.tokens for line in batch.lines)
        limit, inside = self.settings.enqueued_limit, self.enqueued(batch.model)
        if batch.errors:
            return
        if limit and inside + batch.tokens > limit:
            said = (
                f"Enqueued token limit reached for {batch.model} in organization org-fake. Limit: {limit:,} enqueued "
                "tokens. Please try again once some in_progress batches have been completed."
            )
            batch.errors = [{"code": "token_limit_exceeded", "message": said, "line": None, "param": None}]
        else:
            self.enqueued_peak = max(self.enqueued_peak, inside + batch.tokens)

    def enqueued(self, model: str) -> int:
        states = ("validating", "in_progress") if self.settings.counts_in_progress else ("validating",)
        mine = (b for b in self.batches.values() if b.model == model and b.status in states and not b.errors)
        return sum(batch.tokens for batch in mine)

    async def _get(self, request: web.Request) -> web.Response:
        number = self._count("get")
        self.polls.append(self.now)
        self.settle()
        luck = share(self.host.settings.seed, "poll", number)
        failing = self.settings.polls_fail or (0.3 if self.settings.lies else 0.0)
        if luck < failing:
            return self._refuse("Not found", 404) if luck < failing / 5 else self._refuse("Bad gateway", 503)
        batch = self.batches.get(request.match_info["id"])
        return self._json(self._describe(batch)) if batch else self._no_batch(request)

    async def _list(self, request: web.Request) -> web.Response:
        self._count("list")
        self.settle()
        found = [b for b in self.batches.values() if b.listed_at <= self.now]
        found.sort(key=lambda batch: batch.created_at)
        return self._json(list_page([self._describe(each) for each in reversed(found)], request.query))

    async def _cancel(self, request: web.Request) -> web.Response:
        self._count("cancel")
        self.settle()
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return self._no_batch(request)
        if batch.status in ENDED:
            return self._refuse(f"Cannot cancel a batch with status '{batch.status}'.", 409, "invalid_request")
        batch.cancel_at = self.now if batch.cancel_at is None else min(self.now, batch.cancel_at)
        self.settle()
        return self._json(self._describe(batch))

    def _no_batch(self, request: web.Request) -> web.Response:
        return self._refuse(f"No batch found with id '{request.match_info['id']}'.", 404)

    # --- time ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Brings every batch to where its age says it is; what ends is worked, billed and has its files."""
        for batch in list(self.batches.values()):
            if batch.is_foreign or batch.ended_at is not None:
                continue
            status, done = self._state_of(batch)
            if status in ENDED:
                self._end(batch, status, done)
            batch.status = status

    def _state_of(self, batch: FakeBatch) -> tuple[str, float]:
        """The state at this age, and the share of the lines that is worked by then."""
        now, lie, age = self.settings, batch.lie, self.now - batch.created_at
        if batch.errors:
            return ("failed" if age >= now.validating_s else "validating"), 0.0
        if batch.cancel_at is not None and self.now >= batch.cancel_at:
            is_over = self.now - batch.cancel_at >= now.cancelling_s
            return ("cancelled" if is_over else "cancelling"), self._worked_at(batch, batch.cancel_at)
        if lie.stuck and (age < DAY or not lie.lets_go):
            return lie.stuck, 0.0
        if lie.ends == "expired" or lie.stuck:
            return ("expired" if age >= DAY or not now.working_s else "in_progress"), self._worked_at(batch, self.now)
        return self._state_by(age, lie.ends), lie.share

    def _state_by(self, age: float, ends: str) -> str:
        now = self.settings
        if age < now.validating_s:
            return "validating"
        if age < now.validating_s + now.working_s:
            return "in_progress"
        return "finalizing" if age < now.validating_s + now.working_s + now.finalizing_s else ends

    def _worked_at(self, batch: FakeBatch, when: float) -> float:
        """The share of its lines that was worked by then."""
        worked_s = when - batch.created_at - self.settings.validating_s
        if worked_s < 0 or batch.lie.stuck == "validating":
            return 0.0
        return min(batch.lie.share, worked_s / self.settings.working_s if self.settings.working_s else 1.0)

    def _end(self, batch: FakeBatch, status: str, done: float) -> None:
        batch.ended_at = self.now
        if status == "failed":
            return
        answered = work(self.host, batch, self._worked(batch, done), self.settings.price_factor)
        output, errors = write_results(batch, answered, status, self.host.settings.seed)
        for name, data in (("output", output), ("error", errors)):
            if data:
                stored = StoredFile(self._name("file"), f"{batch.id}_{name}.jsonl", "batch_output", data, self.now)
                stored.lie = batch.lie
                self.files[stored.id] = stored
                setattr(batch, f"{name}_file_id", stored.id)

    def _worked(self, batch: FakeBatch, done: float) -> Iterator[Line]:
        """Which lines were reached: any, for the service keeps no order."""
        seed, most = self.host.settings.seed, round(len(batch.lines) * done)
        order = sorted(batch.lines, key=lambda line: share(seed, batch.id, line.custom_id)) if done < 1 else batch.lines
        return iter(order[:most])

    # --- what is said --------------------------------------------------------------------------------------

    def _describe(self, batch: FakeBatch) -> dict[str, Any]:
        def at(when: float | None) -> int | None:
            return None if when is None else int(when)

        age, now = self.now - batch.created_at, self.settings
        worked_from = batch.created_at + now.validating_s
        ended = {f"{name}_at": at(batch.ended_at) if batch.status == name else None for name in ENDED}
        total, completed, failed = batch.counts if batch.ended_at else (len(batch.lines), 0, 0)
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "model": batch.model or None,
            "errors": {"object": "list", "data": batch.errors} if batch.status == "failed" else None,
            "input_file_id": batch.input_file_id,
            "completion_window": "24h",
            "status": batch.status,
            "output_file_id": batch.output_file_id,
            "error_file_id": "" if batch.lie.empty_error_id and not batch.error_file_id else batch.error_file_id,
            "created_at": at(batch.created_at),
            "in_progress_at": at(worked_from) if age >= now.validating_s and not batch.errors else None,
            "expires_at": at(batch.created_at + DAY),
            "finalizing_at": at(worked_from + now.working_s) if batch.status in ("finalizing", "completed") else None,
            "cancelling_at": at(batch.cancel_at),
            "request_counts": {"total": total, "completed": completed, "failed": failed},
            "metadata": batch.metadata or None,
            **ended,
        }

    async def _control(self, request: web.Request) -> web.Response:
        """For a fake in another process: a POST changes settings, script and time; every answer tells what there is."""
        asked = await request.json() if request.method == "POST" and request.can_read_body else {}
        self.configure(**asked.get("settings", {}))
        if "script" in asked:
            self.script(*asked["script"])
        if "foreign" in asked:
            self.add_foreign(**asked["foreign"])
        self.advance(asked.get("advance", 0.0))
        return self._json(self.tell())

    def tell(self) -> dict[str, Any]:
        return {
            "settings": asdict(self.settings),
            "calls": self.calls,
            "enqueued_peak": self.enqueued_peak,
            "batches": [self._describe(each) for each in self.batches.values()],
            "files": [each.describe() for each in self.files.values()],
        }

    def _lie_of(self, number: int) -> Lie:
        found = next((each.lie for each in self.rules if each.meets(number)), None)
        drawn = draw_lie(self.host.settings.seed, number) if self.settings.lies else Lie()
        return drawn if found is None else found

    def _count(self, what: str) -> int:
        self.host.world.requests += 1
        self.calls[what] = self.calls.get(what, 0) + 1
        return self.calls[what]

    def _name(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers):06d}"

    def _json(self, body: Any) -> web.Response:
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    def _refuse(self, message: str, status: int, code: str | None = None) -> web.Response:
        return self.host._json(error_body(message, "invalid_request_error", code), status)

    def _cut(self, request: web.Request) -> web.Response:
        from tests.servers.fake_openai import cut  # noqa: PLC0415 - that module brings this one

        return cut(request)


def read_lines(data: bytes) -> list[dict[str, Any]]:
    """A results file, as a test looks at it."""
    return [json.loads(line) for line in data.splitlines()]
