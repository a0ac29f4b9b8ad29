"""Lines of a batch's input file: the very bodies of live requests, each under an id of our own."""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from queries.batches import CHAT, EMBED, Endpoint
from queries.chat import ChatRequest
from queries.embed import EmbedRequest
from queries.errors import ItemPermanent
from queries.openai_errors import SERVICE
from queries.openai_requests import chat_body, embed_body

_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SHELL = {
    endpoint: (b'{"custom_id":"', b'","method":"POST","url":"' + endpoint.encode() + b'","body":', b"}\n")
    for endpoint in (CHAT, EMBED)
}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request whose body was written before, by another process."""

    body: bytes


def write_body(request: ChatRequest | EmbedRequest) -> bytes:
    """What a live call would send. Text that is no Unicode is the item's fault, as it is there."""
    made = chat_body(request) if isinstance(request, ChatRequest) else embed_body(request)
    try:
        return orjson.dumps(made)
    except TypeError:  # half a character: no file can hold it
        raise ItemPermanent("The item's text is not valid Unicode.", reason="not_unicode", service=SERVICE) from None


def write_line(custom_id: str, endpoint: Endpoint, request: ChatRequest | EmbedRequest | Encoded) -> bytes:
    """One line. An id is ours, never data's: anything but letters, digits, dots and dashes is a bug here."""
    if not _PLAIN_ID.fullmatch(custom_id):
        raise ValueError(f"no id for a line: {custom_id!r}")
    body = request.body if isinstance(request, Encoded) else write_body(request)
    head, middle, end = _SHELL[endpoint]
    return b"".join((head, custom_id.encode(), middle, body, end))
