"""Lines of a fake batch: checked as the service checks them, answered by the brain of live calls, written with lies."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from tests.servers.fake_embeddings import read_asked, refuse_input, write_answer
from tests.servers.fake_script import BILLED, REFUSALS, Meeting, error_body, share

if TYPE_CHECKING:
    from tests.servers.fake_batches import BatchSettings, FakeBatch
    from tests.servers.fake_openai import FakeOpenAI

CHAT = "/v1/chat/completions"
LOST = -1
NO_ANSWER = frozenset({"reset", "reset_before", "hang", "slow"})
EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}
CANCELLED = {"code": "batch_cancelled", "message": "This request was cancelled before it could be executed."}


@dataclass
class Line:
    custom_id: str
    body: dict[str, Any] = field(repr=False)
    tokens: int


@dataclass
class Answered:
    """What a line came to; status 0 is a line the service failed on without a bill."""

    custom_id: str
    status: int
    body: bytes


def find_faults(data: bytes, endpoint: str, now: BatchSettings) -> tuple[list[Line], list[dict[str, Any]]]:
    """The lines, and what makes the whole batch fail; a batch that fails is not worked and costs nothing."""
    lines: list[Line] = []
    errors: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    models: set[str] = set()

    def fault(code: str, message: str, number: int | None, param: str | None = None) -> None:
        errors.append({"code": code, "message": message, "line": number, "param": param})

    for number, raw in enumerate(data.splitlines(), start=1):
        try:
            asked = orjson.loads(raw)
            custom_id, body = asked["custom_id"], asked["body"]
            fits = asked["method"] == "POST" and isinstance(custom_id, str) and custom_id and isinstance(body, dict)
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            fault("invalid_json_line", "This line is not parseable as valid JSON.", number)
            continue
        if asked["url"] != endpoint:
            fault("mismatched_endpoint", f"The url '{asked['url']}' does not match the batch's.", number, "url")
        if custom_id in seen:
            said = f"The custom_id '{custom_id}' in line {number} was already used in line {seen[custom_id]}."
            fault("duplicate_custom_id", said, number, "custom_id")
        seen[custom_id] = number
        models.add(str(body.get("model")))
        lines.append(Line(custom_id, body, _count_tokens(body)))
    if len(models) > 1:
        fault("mismatched_model", f"A batch is for one model; this file names {len(models)}.", None, "body.model")
    if len(lines) > now.requests_most:
        fault("max_requests_exceeded", f"{len(lines)} requests, at most {now.requests_most} are allowed.", None)
    if sum(_count_inputs(line.body) for line in lines) > now.inputs_most:
        fault("max_inputs_exceeded", f"More than {now.inputs_most} embedding inputs in one batch.", None)
    if not lines and not errors:
        fault("empty_file", "The file is empty.", None)
    return lines, errors[:20]


def _count_tokens(body: dict[str, Any]) -> int:
    texts = [m["content"] for m in body["messages"]] if "messages" in body else _inputs(body)
    return sum(math.ceil(len(text.encode("utf-8", "replace")) / 4) for text in texts)


def _count_inputs(body: dict[str, Any]) -> int:
    return len(_inputs(body)) if "input" in body else 0


def _inputs(body: dict[str, Any]) -> list[str]:
    given = body.get("input", [])
    return given if isinstance(given, list) else [given]


def answer_line(host: FakeOpenAI, line: Line, price_factor: float) -> Answered:
    """The same rules, texts, vectors and bill as a live call; what breaks a connection there is a failed line here."""
    answer = _chat(host, line, price_factor) if "messages" in line.body else _embed(host, line, price_factor)
    if answer is None:
        return Answered(line.custom_id, 0, b"{}")
    data = answer.body if isinstance(answer.body, bytes) else str(answer.text).encode()
    return Answered(line.custom_id, answer.status, data)


def _chat(host: FakeOpenAI, line: Line, price_factor: float) -> web.Response | None:
    now, body = host.settings, line.body
    user = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")
    item = host._item(user)
    number, attempt, order = host.world.admit(item)
    met = Meeting(number, item, attempt, order)
    action = next((r.action for r in host.rules if r.meets(now.seed, met)), {"kind": "answer"})
    text = host._text(action, user, met)
    tokens_in = math.ceil(sum(len(m["content"].encode("utf-8", "replace")) for m in body["messages"]) / 4)
    tokens_out = min(math.ceil(len(text.encode("utf-8", "replace")) / 4), body.get("max_completion_tokens") or 4096)
    if action["kind"] in NO_ANSWER:
        return None
    if action.get("bill", action["kind"] in BILLED):
        usd = (tokens_in * now.usd_in_per_m + tokens_out * now.usd_out_per_m) / 1e6
        host.world.bill(item, tokens_in, tokens_out, usd * price_factor)
    fault = _fault(host, action, body)
    if fault is not None:
        return fault
    return host._spoilt(action["kind"], action, host._completion(body, (tokens_in, tokens_out), text))


def _embed(host: FakeOpenAI, line: Line, price_factor: float) -> web.Response | None:
    now, body = host.settings, line.body
    asked = read_asked(body, host._item, now.count_factor, floats=now.floats)
    wrong = refuse_input(asked, body, tokens_most=now.embed_tokens_most, whole_only=now.whole_only)
    if wrong:
        return host._json(wrong[1], wrong[0])
    number, attempt, order = host.world.admit(asked.name)
    met = Meeting(number, "\n".join(asked.items), attempt, order)
    rule = next((r for r in host.rules if r.meets(now.seed, met)), None)
    action = {"kind": "answer"} if rule is None else rule.action
    if action["kind"] in NO_ANSWER:
        return None
    if action.get("bill", action["kind"] in BILLED):
        tokens = sum(asked.tokens)
        host.world.bill_texts(asked.items, tokens, tokens * now.usd_embed_per_m / 1e6 * price_factor)
    fault = _fault(host, action, body)
    if fault is not None:
        return fault
    if action["kind"] == "error200":
        return host._json(error_body("The server had an error while processing your request.", "server_error"))
    return web.Response(body=write_answer(asked, rule, no_usage=now.no_usage), content_type="application/json")


def _fault(host: FakeOpenAI, action: dict[str, Any], body: dict[str, Any]) -> web.Response | None:
    from tests.servers.fake_openai import PAGES  # noqa: PLC0415 - that module brings this one

    kind = action["kind"]
    if kind in REFUSALS:
        return host._refuse(kind, body, "")
    return PAGES[kind](host, action) if kind in PAGES else None


def work(host: FakeOpenAI, batch: FakeBatch, lines: Iterable[Line], price_factor: float) -> list[Answered]:
    """What comes of the lines that were reached; those the batch loses or fails on are not billed."""
    seed, lie = host.settings.seed, batch.lie
    answered = []
    for line in lines:
        if lie.all_failed or share(seed, "zero", batch.id, line.custom_id) < lie.status_zero:
            answered.append(Answered(line.custom_id, 0, b"{}"))
        elif share(seed, "missing", batch.id, line.custom_id) < lie.missing:
            answered.append(Answered(line.custom_id, LOST, b""))
        else:
            answered.append(answer_line(host, line, price_factor))
    return answered


def write_results(batch: FakeBatch, answered: list[Answered], status: str, seed: int) -> tuple[bytes, bytes]:
    """Output file and error file; the counts that will be told are set."""
    lie, output, errors = batch.lie, [], []
    for each in answered:
        if each.status == LOST:
            continue
        (output if each.status == 200 else errors).append(_write(each.custom_id, each.status, each.body))
        if each.status == 200:
            batch.delivered.append(each.custom_id)
        if each.status and share(seed, "doubled", batch.id, each.custom_id) < lie.doubled:
            (output if each.status == 200 else errors).append(_write(each.custom_id, each.status, each.body))
    if status in ("expired", "cancelled"):
        why, reached = EXPIRED if status == "expired" else CANCELLED, {each.custom_id for each in answered}
        rest = (line.custom_id for line in batch.lines if line.custom_id not in reached)
        errors += [_write_unreached(custom_id, why) for custom_id in rest]
    batch.counts = _told((len(batch.lines), len(output), len(errors)), lie.counts)
    _spoil(lie.foreign, lie.garbage, output, batch.id)
    if lie.shuffled:
        random.Random(seed).shuffle(output)
    return b"".join(output), b"".join(errors)


def _spoil(foreign: int, garbage: int, output: list[bytes], name: str) -> None:
    output += [_write(f"somebody-{name}-{n}", 200, b'{"choices":[]}') for n in range(foreign)]
    odd = [b'{"id": "batch_req", "custom_id": "cut in the mid\n', b"[1, 2]\n", b"<html>busy</html>\n", b"\xff\xfe{}\n"]
    output += odd[:garbage]


def _told(true: tuple[int, int, int], how: str) -> tuple[int, int, int]:
    total = true[0]
    return {"true": true, "rosy": (total, total, 0), "zero": (0, 0, 0), "wild": (total, total * 7, 3)}[how]


def _write(custom_id: str, status: int, body: bytes) -> bytes:
    """One line of a result file; a body that is no JSON travels as a string."""
    try:
        whole: Any = json.loads(body)
        text = orjson.dumps(whole) if not _is_surrogate(body) else json.dumps(whole).encode()
    except ValueError:
        text = orjson.dumps(body.decode("utf-8", "replace"))
    head = b'{"id":"batch_req_fake","custom_id":%b,"response":{"status_code":%d,' % (orjson.dumps(custom_id), status)
    return head + b'"request_id":"%b","body":%b},"error":null}\n' % (b"req_fake" if status else b"", text)


def _is_surrogate(body: bytes) -> bool:
    return b"\\ud8" in body


def _write_unreached(custom_id: str, why: dict[str, str]) -> bytes:
    line = {"id": "batch_req_fake", "custom_id": custom_id, "response": None, "error": why}
    return orjson.dumps(line) + b"\n"
