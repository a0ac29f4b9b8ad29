"""The table that scripts a fake upstream: which request it meets, and what is done to it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

BILLED = frozenset(
    {
        "hang", "reset", "half_body", "html200", "malformed", "no_choices", "error200", "finish", "refusal",
        "null_content", "empty", "echo", "same", "hostile", "obedient", "slow", "answer", "wrong_types",
        "shuffle", "drop_one", "double_one", "empty_data", "null_one", "garbled_one", "nan_one", "inf_one", "zero_one",
        "short_one", "wrong_dimension",
    }
)  # fmt: skip
"""Actions that happen after the work was done and paid; `bill` in an action overrides it."""

HOSTILE = (
    "NUL\x00 ESC\x1b[2J\x1b]0;pwn\x07 C1\x9b31m [/b][red]markup[/red] <script>alert(1)</script> \u202egnp.exe\u2066"
)


def share(seed: int, *what: object) -> float:
    """A number in [0, 1) that depends on nothing but its arguments, so concurrency cannot reorder it.

    Not crc32: it is linear, so that the attempts of one item would fail together.
    """
    digest = hashlib.blake2b(repr((seed, *what)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


@dataclass
class Meeting:
    """One admitted request, as rules see it: `number` in the order of admission, `attempt` within its item.

    Of a request for many texts `item` is all of their items, a line each.
    """

    number: int
    item: str
    attempt: int
    item_order: int


@dataclass
class Rule:
    """match: nth, every, share, item, after, until, attempts, items_after, times; all given must hold."""

    match: dict[str, Any]
    action: dict[str, Any]
    order: int = 0
    used: int = 0
    pattern: re.Pattern[str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        unknown = set(self.match) - {
            "nth", "every", "share", "item", "after", "until", "attempts", "items_after", "times",
        }  # fmt: skip
        if unknown or "kind" not in self.action:
            raise ValueError(f"rule not understood: {self.match} {self.action}")
        if "item" in self.match:
            self.pattern = re.compile(self.match["item"], re.MULTILINE)

    def meets(self, seed: int, met: Meeting) -> bool:
        want = self.match
        nth = want.get("nth")
        holds = (
            (nth is None or met.number in (nth if isinstance(nth, list) else [nth]))
            and ("every" not in want or met.number % want["every"] == 0)
            and met.number > want.get("after", 0)
            and met.number <= want.get("until", met.number)
            and met.attempt <= want.get("attempts", met.attempt)
            and met.item_order > want.get("items_after", 0)
            and self.used < want.get("times", self.used + 1)
            and (self.pattern is None or self.pattern.search(met.item) is not None)
            and ("share" not in want or share(seed, self.order, met.item, met.attempt) < want["share"])
        )
        self.used += holds
        return holds


def rule(kind: str, /, *, on: dict[str, Any] | None = None, **action: Any) -> dict[str, Any]:
    """One line of a script: rule("status", on={"nth": 3}, status=500)."""
    return {"match": on or {}, "action": {"kind": kind, **action}}


def read_script(lines: list[dict[str, Any]]) -> list[Rule]:
    return [Rule(line.get("match", {}), line["action"], order) for order, line in enumerate(lines)]


def error_body(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


REFUSALS: dict[str, tuple[int, dict[str, Any]]] = {
    "quota": (
        429,
        error_body(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota",
        ),
    ),
    "auth": (
        401,
        error_body("Incorrect API key provided: {key}. You can find your API key at https://platform.openai.com/"
                   "account/api-keys.", "invalid_request_error", "invalid_api_key"),
    ),
    "model_404": (
        404,
        error_body("The model `{model}` does not exist or you do not have access to it.", "invalid_request_error",
                   "model_not_found"),
    ),
    "unsupported": (
        400,
        error_body("Unsupported parameter: 'max_completion_tokens' is not supported with this model. Use "
                   "'max_tokens' instead.", "invalid_request_error", "unsupported_parameter", "max_completion_tokens"),
    ),
    "too_long": (
        400,
        error_body("This model's maximum context length is 128000 tokens. However, your messages resulted in 140012 "
                   "tokens. Please reduce the length of the messages.", "invalid_request_error",
                   "context_length_exceeded", "messages"),
    ),
    "request_too_large": (
        400,
        error_body("Requested 416735 tokens, max 300000 tokens per request", "max_tokens_per_request",
                   "max_tokens_per_request"),
    ),
    "no_dimensions": (
        400,
        error_body("Model \"{model}\" does not support matryoshka representation, changing output dimensions will lead "
                   "to poor results.", "BadRequestError", "400"),
    ),
    "filtered": (
        400,
        error_body("Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
                   "invalid_request_error", "invalid_prompt"),
    ),
    "overloaded": (503, error_body("The engine is currently overloaded, please try again later", "server_error")),
}  # fmt: skip
"""Refusals by name, in the words of the real service."""
