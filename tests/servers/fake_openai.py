"""A fake OpenAI in one process: limits, a bill, and every unkindness of the real one on request.

python -m tests.servers.fake_openai --port 0 --rpm 6000 --tpm 3000000 --latency 0.3 --jitter 0.2
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import msgspec
import pytest
from aiohttp import web

from tests.servers.fake_batches import FakeBatches
from tests.servers.fake_embeddings import Asked, read_asked, refuse_input, write_answer
from tests.servers.fake_limits import Meter, say_duration
from tests.servers.fake_scenes import IMAGE_TOKENS, as_asked, count_images, read_content
from tests.servers.fake_script import BILLED, HOSTILE, REFUSALS, Meeting, Rule, error_body, read_script, share
from tests.servers.fake_sentences import TELLERS, write_sentence
from tests.servers.fake_world import World


@dataclass(frozen=True)
class Settings:
    """How the fake behaves when no rule says otherwise; rpm or tpm 0 is unlimited."""

    rpm: int = 0
    tpm: int = 0
    window: float = 1.0
    fixed_windows: bool = False
    latency: float = 0.0
    jitter: float = 0.0
    count_factor: float = 1.0
    """Its own token count over ours: 1.15 is a service that counts 15 % more than len/4."""
    headers: str = "window"
    """What x-ratelimit-remaining-* tells: of the window, of the "minute", or "off"."""
    refusals_count: bool = False
    """Whether a 429 uses up a request of the limit too ("unsuccessful requests contribute")."""
    usd_in_per_m: float = 0.15
    usd_out_per_m: float = 0.60
    usd_embed_per_m: float = 0.02
    embed_tokens_most: int = 300_000
    """Of one request, in the fake's own count."""
    floats: bool = False
    """A compatible server that answers with plain numbers whatever encoding is asked for."""
    whole_only: bool = False
    """A compatible server that takes no `dimensions`."""
    item: str = r"\[\[item:([^\]]+)\]\]"
    """Finds the item in the user message; without a match its hash names it."""
    vary: bool = False
    """Every answer of an item differs by its attempt number."""
    no_usage: bool = False
    key: str = ""
    """When set, any other bearer key is answered 401."""
    seed: int = 1


class FakeOpenAI:
    """The server; `async with FakeOpenAI(rpm=500) as fake:` then `fake.url`, `fake.script(...)`, `fake.world`."""

    def __init__(self, *, port: int = 0, **settings: Any) -> None:
        self.port = port
        self.configure(**asdict(Settings(**settings)))
        self.rules: list[Rule] = []
        self.world = World()
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[dict[str, Any]] = []
        self.keep = 100
        self.batches = FakeBatches(self)

    def configure(self, **changes: Any) -> None:
        """Change settings on the fly; the meters start whole."""
        self.settings = replace(getattr(self, "settings", Settings()), **changes)
        now = self.settings
        self.pattern = re.compile(now.item)
        self.meters = {
            "requests": Meter(now.rpm, now.window, fixed=now.fixed_windows),
            "tokens": Meter(now.tpm, now.window, fixed=now.fixed_windows),
        }
        self.minutes = {"requests": Meter(now.rpm, 60.0), "tokens": Meter(now.tpm, 60.0)}

    def script(self, *lines: dict[str, Any]) -> None:
        """Replace the table of behaviours; the first rule that meets a request decides."""
        self.rules = read_script(list(lines))

    def reset(self) -> None:
        """A new world: no bill, no counts; rules and settings stay, the rules' counts start again."""
        self.world = World()
        self.seen.clear()
        self.bodies.clear()
        for each in self.rules:
            each.used = 0
        self.batches.reset()
        self.configure()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**28, middlewares=[])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/embeddings", self._embed)
        self.batches.add_routes(app.router)
        app.router.add_get("/__fake/stats", self._stats)
        app.router.add_post("/__fake/script", self._script)
        app.router.add_post("/__fake/settings", self._settings)
        app.router.add_post("/__fake/reset", self._reset)
        app.router.add_route("*", "/{rest:.*}", self._unknown)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=4096)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        world = self.world
        world.enter()
        item, status = "?", 0
        try:
            body = await request.json()
            user = next(read_content(m) for m in reversed(body["messages"]) if m["role"] == "user")
            item = self._item(user)
            self._remember(request, body)
            answer = await self._answer(request, world, item, user, body)
            status = answer.status
            return answer
        finally:
            world.leave(item, status)

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        world, now = self.world, self.settings
        world.enter()
        name, status = "?", 0
        try:
            body = msgspec.json.decode(await request.read())
            asked = read_asked(body, self._item, now.count_factor, floats=now.floats)
            name = asked.name
            self._remember(request, body)
            answer = await self._answer_texts(request, world, asked, body)
            status = answer.status
            return answer
        finally:
            world.leave(name, status)

    async def _answer_texts(
        self, request: web.Request, world: World, asked: Asked, body: dict[str, Any]
    ) -> web.StreamResponse:
        now, tokens = self.settings, sum(asked.tokens)
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        refusal = self._refuse_texts(world, asked, body, key)
        if refusal is not None:
            return refusal
        number, attempt, order = world.admit(asked.name)
        met = Meeting(number, "\n".join(asked.items), attempt, order)
        rule = next((r for r in self.rules if r.meets(now.seed, met)), None)
        action: dict[str, Any] = {"kind": "answer"} if rule is None else rule.action
        if action.get("bill", action["kind"] in BILLED):
            world.bill_texts(asked.items, tokens, tokens * now.usd_embed_per_m / 1e6)
        await self._pause(asked.name, attempt)
        fault = await self._fault(request, action, body, key)
        if fault is not None:
            return fault
        whole = self._write_texts(asked, rule)
        if action["kind"] == "half_body":
            return await self._half(request, whole)
        if action["kind"] in WRONG_LISTS:
            return self._json(WRONG_LISTS[action["kind"]])
        headers = self._limit_headers() | {"x-request-id": "req_fake"} | action.get("headers", {})
        return web.Response(body=whole, content_type="application/json", headers=headers)

    def _write_texts(self, asked: Asked, rule: Rule | None) -> bytes:
        return write_answer(asked, rule, no_usage=self.settings.no_usage)

    def _refuse_texts(self, world: World, asked: Asked, body: dict[str, Any], key: str) -> web.Response | None:
        if self.settings.key and key != self.settings.key:
            return self._refuse("auth", body, key)
        most, whole_only = self.settings.embed_tokens_most, self.settings.whole_only
        wrong = refuse_input(asked, body, tokens_most=most, whole_only=whole_only)
        return self._json(wrong[1], wrong[0]) if wrong else self._limit(world, body, sum(asked.tokens))

    def _item(self, user: str) -> str:
        found = self.pattern.search(user)
        if found is not None:
            return found.group(1)
        return hashlib.sha1(user.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()[:12]

    def _remember(self, request: web.Request, body: dict[str, Any]) -> None:
        if len(self.seen) < self.keep:
            self.seen.append((request.path, {k.lower(): v for k, v in request.headers.items()}))
            self.bodies.append(body)

    async def _answer(
        self, request: web.Request, world: World, item: str, user: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.settings.key and key != self.settings.key:
            return self._refuse("auth", body, key)
        prompt_bytes = sum(len(read_content(m).encode("utf-8", "replace")) for m in body["messages"])
        tokens_in = math.ceil(prompt_bytes / 4 * self.settings.count_factor) + IMAGE_TOKENS * count_images(body)
        refusal = self._limit(world, body, tokens_in + int(body.get("max_completion_tokens") or 16))
        if refusal is not None:
            return refusal
        met = Meeting(*(n := world.admit(item))[:1], item, *n[1:])
        action = next((r.action for r in self.rules if r.meets(self.settings.seed, met)), {"kind": "answer"})
        text = self._text(action, user, met, body)
        tokens_out = min(math.ceil(len(text.encode("utf-8", "replace")) / 4), body.get("max_completion_tokens") or 4096)
        if action.get("bill", action["kind"] in BILLED):
            usd = (tokens_in * self.settings.usd_in_per_m + tokens_out * self.settings.usd_out_per_m) / 1e6
            world.bill(item, tokens_in, tokens_out, usd)
        await self._pause(item, met.attempt)
        return await self._act(request, action, text, (tokens_in, tokens_out), body, key)

    async def _pause(self, item: str, attempt: int) -> None:
        pause = self.settings.latency + self.settings.jitter * share(self.settings.seed, "jitter", item, attempt)
        if pause > 0:
            await asyncio.sleep(pause)

    def _limit(self, world: World, body: dict[str, Any], tokens: int) -> web.Response | None:
        """None and both meters debited, or the 429 of the limit that binds."""
        if self.settings.tpm and tokens > self.settings.tpm:
            world.refused += 1
            return self._throttle(body, "tokens", tokens, 0.0)
        amounts = {"requests": 1, "tokens": tokens}
        waits = {name: self.meters[name].wait_s(amount) for name, amount in amounts.items()}
        worst = max(waits, key=lambda name: waits[name])
        if waits[worst] > 0:
            world.refused += 1
            if self.settings.refusals_count:
                self.meters["requests"].take(1)
            return self._throttle(body, worst, amounts[worst], waits[worst])
        for name, amount in amounts.items():
            self.meters[name].take(amount)
            self.minutes[name].take(amount)
        return None

    def _throttle(self, body: dict[str, Any], what: str, amount: int, wait_s: float) -> web.Response:
        limit = self.settings.rpm if what == "requests" else self.settings.tpm
        name = "requests per min (RPM)" if what == "requests" else "tokens per min (TPM)"
        where = f"for {body.get('model')} in organization org-fake on {name}: Limit {limit}, "
        if wait_s:
            used = f"Used {limit}, Requested {amount}. Please try again in {say_duration(wait_s)}."
            said = f"Rate limit reached {where}{used}"
            headers = {"retry-after-ms": str(math.ceil(wait_s * 1000)), "retry-after": str(math.ceil(wait_s))}
        else:
            said = f"Request too large {where}Requested {amount}. The input or output tokens must be reduced."
            headers = {}
        return self._json(error_body(said, what, "rate_limit_exceeded"), 429, headers)

    def _limit_headers(self) -> dict[str, str]:
        if self.settings.headers == "off":
            return {}
        told = self.minutes if self.settings.headers == "minute" else self.meters
        found = {}
        for name, meter in told.items():
            if meter.per_min:
                found[f"x-ratelimit-limit-{name}"] = str(round(meter.per_min))
                found[f"x-ratelimit-remaining-{name}"] = str(meter.remaining())
                found[f"x-ratelimit-reset-{name}"] = say_duration(meter.reset_s())
        return found

    def _json(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
        return web.Response(
            body=json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"),
            status=status,
            content_type="application/json",
            headers=self._limit_headers() | {"x-request-id": "req_fake"} | (headers or {}),
        )

    def _refuse(self, name: str, body: dict[str, Any], key: str) -> web.Response:
        status, said = REFUSALS[name]
        shown = f"{key[:7]}{'*' * 8}{key[-4:]}"
        text = said["error"]["message"].replace("{key}", shown).replace("{model}", str(body.get("model")))
        return self._json({"error": said["error"] | {"message": text}}, status)

    def _text(self, action: dict[str, Any], user: str, met: Meeting, body: dict[str, Any] | None = None) -> str:
        fixed = {
            "same": "This video is about several interesting things and how they work.",
            "empty": " \n",
            "hostile": f"Talk about safety. {HOSTILE}",
        }
        if action["kind"] in TELLERS:
            return TELLERS[action["kind"]](user)
        if "text" in action or action["kind"] in fixed:
            return str(action.get("text", fixed.get(action["kind"])))
        sentence = write_sentence(self.pattern.sub("", user), met.attempt if self.settings.vary else 0)
        return sentence if body is None else as_asked(sentence, body)

    async def _act(
        self,
        request: web.Request,
        action: dict[str, Any],
        text: str,
        tokens: tuple[int, int],
        body: dict[str, Any],
        key: str,
    ) -> web.StreamResponse:
        fault = await self._fault(request, action, body, key)
        if fault is not None:
            return fault
        whole = self._completion(body, tokens, text)
        if action["kind"] == "half_body":
            return await self._half(request, json.dumps(whole).encode())
        return self._spoilt(action["kind"], action, whole)

    async def _fault(
        self, request: web.Request, action: dict[str, Any], body: dict[str, Any], key: str
    ) -> web.StreamResponse | None:
        """What is done instead of an answer of any dialect, or None once whatever has to be waited for is over."""
        kind = action["kind"]
        if kind in REFUSALS:
            return self._refuse(kind, body, key)
        if kind in ("slow", "hang"):
            await asyncio.sleep(action.get("seconds", 1.0 if kind == "slow" else 3600))
        if kind in ("reset", "reset_before"):
            return cut(request)
        return PAGES[kind](self, action) if kind in PAGES else None

    def _spoilt(self, kind: str, action: dict[str, Any], whole: dict[str, Any]) -> web.Response:
        choice = whole["choices"][0]
        match kind:
            case "no_choices":
                whole["choices"] = []
            case "error200":
                whole = WRONG_LISTS["error200"]
            case "wrong_types":
                choice["message"] = "not an object"
            case "finish":
                choice["finish_reason"] = action.get("reason", "length")
            case "refusal":
                choice["message"] |= {"content": None, "refusal": "I'm sorry, I can't help with that."}
            case "null_content":
                choice["message"]["content"] = None
            case "hostile":
                return self._raw(whole, surrogate=True)
        return self._json(whole, headers=action.get("headers"))

    def _page(self, action: dict[str, Any]) -> web.Response:
        text = action.get("body", "<html><title>Welcome</title>Log in</html>")
        return web.Response(text=text, content_type="text/html")

    def _malformed(self, action: dict[str, Any]) -> web.Response:
        return web.Response(text=action.get("body", '{"choices": [{"mess'), content_type="application/json")

    def _redirect(self, action: dict[str, Any]) -> web.Response:
        return web.Response(status=action.get("status", 307), headers={"location": action["location"]})

    def _raw(self, whole: dict[str, Any], *, surrogate: bool) -> web.Response:
        """A lone surrogate only travels as an escape, which strict parsers refuse and Python's accepts."""
        text = json.dumps(whole)
        text = text.replace("Talk about safety.", r"Talk about safety \ud800.") if surrogate else text
        return web.Response(text=text, content_type="application/json", headers=self._limit_headers())

    def _scripted(self, action: dict[str, Any]) -> web.Response:
        body, status = action.get("body", ""), action.get("status", 500)
        headers = {str(k): str(v) for k, v in action.get("headers", {}).items()}
        if isinstance(body, dict | list):
            return self._json(body, status, headers)
        kind = "text/html" if body.lstrip().startswith("<") else "text/plain"
        return web.Response(text=body, status=status, content_type=kind, headers=headers)

    async def _half(self, request: web.Request, data: bytes) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-length": str(len(data)), "content-type": "application/json"})
        await answer.prepare(request)
        await answer.write(data[: len(data) // 2])
        cut(request)
        return answer

    def _completion(self, body: dict[str, Any], tokens: tuple[int, int], text: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": body.get("model"),
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text, "refusal": None},
                }
            ],
        }
        if not self.settings.no_usage:
            found["usage"] = {
                "prompt_tokens": tokens[0],
                "completion_tokens": tokens[1],
                "total_tokens": sum(tokens),
            }
        return found

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response(self.world.stats(with_log="log" in request.query) | {"seed": self.settings.seed})

    async def _script(self, request: web.Request) -> web.Response:
        self.script(*await request.json())
        return web.json_response({"rules": len(self.rules)})

    async def _settings(self, request: web.Request) -> web.Response:
        self.configure(**await request.json())
        return web.json_response(asdict(self.settings))

    async def _reset(self, _: web.Request) -> web.Response:
        self.reset()
        return web.json_response({})

    async def _unknown(self, request: web.Request) -> web.Response:
        self.world.requests += 1
        self.seen.append((request.path, {k.lower(): v for k, v in request.headers.items()}))
        said = f"Invalid URL ({request.method} {request.path})"
        return self._json(error_body(said, "invalid_request_error"), 404)


WRONG_LISTS: dict[str, dict[str, Any]] = {
    "error200": error_body("The server had an error while processing your request.", "server_error"),
    "no_choices": {"object": "list", "data": None},
    "wrong_types": {"object": "list", "data": "not a list"},
}
PAGES: dict[str, Callable[[FakeOpenAI, dict[str, Any]], web.Response]] = {
    "status": FakeOpenAI._scripted,
    "redirect": FakeOpenAI._redirect,
    "html200": FakeOpenAI._page,
    "malformed": FakeOpenAI._malformed,
}


def cut(request: web.Request) -> web.Response:
    """Reset the connection the hard way: RST, not FIN."""
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=499)


@pytest.fixture
async def fake_openai() -> AsyncIterator[FakeOpenAI]:
    """A fresh fake without limits or latency; tests call configure() and script()."""
    async with FakeOpenAI() as fake:
        yield fake


def read_settings() -> tuple[int, dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    for name, default in asdict(Settings()).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(default, bool):
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, type=type(default), default=default)
    found = vars(parser.parse_args())
    return found.pop("port"), found


async def serve() -> None:
    port, settings = read_settings()
    async with FakeOpenAI(port=port, **settings) as fake:
        print(json.dumps({"port": fake.port, "seed": fake.settings.seed}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
