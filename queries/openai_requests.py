"""What is asked in OpenAI's dialect, as the JSON of a request: the same for a live call and for a line of a file."""

from __future__ import annotations

import re
from typing import Any

from queries.chat import ChatRequest
from queries.embed import EmbedRequest

NEW_LIMIT, OLD_LIMIT = "max_completion_tokens", "max_tokens"

# Only these take `dimensions` (docstring of OpenAI's SDK 3.52, read 2026-11-21); gateways put their own name before it.
_TAKES_DIMENSIONS = re.compile(r"(?:.*/)?text-embedding-3-")


def takes_dimensions(model: str) -> bool:
    return _TAKES_DIMENSIONS.match(model) is not None


def chat_body(request: ChatRequest, limit_field: str = NEW_LIMIT) -> dict[str, Any]:
    """The request as the service's JSON."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": "system", "content": request.system}, {"role": "user", "content": _show(request)}],
        limit_field: request.max_completion_tokens,
    }
    if request.schema is not None:
        shape = {"name": request.schema.name, "strict": True, "schema": request.schema.body}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
    return body


def _show(request: ChatRequest) -> str | list[dict[str, Any]]:
    if not request.image_url:
        return request.user
    image = {"url": request.image_url, "detail": request.detail}
    return [{"type": "text", "text": request.user}, {"type": "image_url", "image_url": image}]


def embed_body(request: EmbedRequest, *, names_dimensions: bool | None = None) -> dict[str, Any]:
    """None: the dimensions are named where OpenAI's models take them."""
    body: dict[str, Any] = {"model": request.model, "input": request.texts, "encoding_format": "base64"}
    if names_dimensions or (names_dimensions is None and takes_dimensions(request.model)):
        body["dimensions"] = request.dimensions
    return body
