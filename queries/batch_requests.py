"""Lines of a batch's input file: the very bodies of live requests, each under an id of our own."""

from __future__ import annotations

import re
from functools import lru_cache

import orjson

from queries.batches import CHAT, EMBED, Endpoint
from queries.chat import ChatRequest
from queries.embed import EmbedRequest
from queries.errors import ItemPermanent
from queries.openai_errors import SERVICE
from queries.openai_requests import chat_body, embed_body
from queries.record import record

_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PLACE = "the user's text"
_SHELL = {
    endpoint: (b'{"custom_id":"', b'","method":"POST","url":"' + endpoint.encode() + b'","body":', b"}\n")
    for endpoint in (CHAT, EMBED)
}


@record(frozen=True, slots=True)
class Encoded:
    """A request whose body was written before, by another process."""

    body: bytes


def write_body(request: ChatRequest | EmbedRequest) -> bytes:
    """What a live call would send. Text that is no Unicode is the item's fault, as it is there."""
    try:
        if not isinstance(request, ChatRequest):
            return orjson.dumps(embed_body(request))
        if request.schema is not None or request.image_url:
            return orjson.dumps(chat_body(request))
        before, after = _around_user(request.model, request.system, request.max_completion_tokens)
        return b"".join((before, orjson.dumps(request.user), after))
    except TypeError:  # half a character: no file can hold it
        raise ItemPermanent("The item's text is not valid Unicode.", reason="not_unicode", service=SERVICE) from None


@lru_cache(8)
def _around_user(model: str, system: str, tokens_most: int) -> tuple[bytes, bytes]:
    """All that a hundred thousand requests have in common. Nothing after the user's text is anybody's text."""
    whole = orjson.dumps(chat_body(ChatRequest(model, system, _PLACE, tokens_most)))
    before, _, after = whole.rpartition(orjson.dumps(_PLACE))
    return before, after


def write_line(custom_id: str, endpoint: Endpoint, request: ChatRequest | EmbedRequest | Encoded) -> bytes:
    """One line. An id is ours, never data's: anything but letters, digits, dots and dashes is a bug here."""
    if not _PLAIN_ID.fullmatch(custom_id):
        raise ValueError(f"no id for a line: {custom_id!r}")
    body = request.body if isinstance(request, Encoded) else write_body(request)
    head, middle, end = _SHELL[endpoint]
    return b"".join((head, custom_id.encode(), middle, body, end))
