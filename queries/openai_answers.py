"""What a 200 of the chat dialect must look like before anything in it is believed, and what all dialects share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from queries.chat import ChatAnswer
from queries.errors import RateLimits
from queries.openai_errors import classify, malformed
from queries.openai_limits import parse_limits


def read_answer(body: bytes, headers: Mapping[str, str]) -> ChatAnswer:
    """The answer in a 200's body; Transient "malformed" when it is none, and the fatal error when it holds one."""
    limits = known_limits(headers)
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        raise malformed(say_shape(body), limits=limits) from None
    if not isinstance(whole, dict):
        raise malformed("not an object", limits=limits)
    if whole.get("error"):
        raise classify(200, body, headers)
    choice, message = _first(whole, limits)
    tokens_in, tokens_out = _usage(whole)
    return ChatAnswer(
        text=_storable(_content(message, limits)),
        finish_reason=read_word(choice.get("finish_reason"), "finish_reason", limits),
        refusal=_storable(read_word(message.get("refusal"), "refusal", limits) or None),
        model=read_word(whole.get("model"), "model", limits),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        limits=limits,
    )


def known_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """None where the headers say nothing."""
    found = parse_limits(headers)
    return None if found == RateLimits() else found


def say_shape(body: bytes) -> str:
    """What the bytes are, without repeating any of them."""
    if not body.strip():
        return "empty"
    return "HTML" if body.lstrip()[:1] == b"<" else f"{len(body)} bytes that are no whole JSON"


def _first(whole: dict[str, Any], limits: RateLimits | None) -> tuple[dict[str, Any], dict[str, Any]]:
    choices = whole.get("choices")
    if not isinstance(choices, list) or not choices:
        raise malformed("no choices", limits=limits)
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise malformed("no message in the choice", limits=limits)
    return choice, message


def _content(message: dict[str, Any], limits: RateLimits | None) -> str | None:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        return "".join(part["text"] for part in content)
    raise malformed("the content is no text", limits=limits)


def read_word(value: object, name: str, limits: RateLimits | None) -> str:
    """Text, or the empty one for a null."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise malformed(f"{name} is no text", limits=limits)
    return value


def _usage(whole: dict[str, Any]) -> tuple[int, int]:
    """Both counts, or zeros: compatible servers leave usage out, and then the caller must count for itself."""
    usage = whole.get("usage")
    if not isinstance(usage, dict):
        return 0, 0
    return read_count(usage.get("prompt_tokens")), read_count(usage.get("completion_tokens"))


def read_count(value: object) -> int:
    """Zero for what is no count."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _storable(text: str | None) -> str | None:
    r"""A lone surrogate (the JSON escape \ud800) can be written to no file and no database: U+FFFD in its place."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
