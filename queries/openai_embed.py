"""OpenAI's embedding dialect: many texts, one vector for each."""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

from queries.embed import EmbedAnswer, EmbedRequest
from queries.errors import CatchupError, ItemPermanent, Misconfigured, Transient
from queries.openai_bodies import read_error
from queries.openai_client import OpenAIClient, Reply
from queries.openai_errors import SERVICE
from queries.openai_requests import embed_body, takes_dimensions
from queries.openai_vectors import read_vectors

ANSWER_AT_MOST = 256 * 2**20
"""2,048 vectors of 3,072 as plain JSON numbers are 140 MB; in base64 they are 34."""

_UNWANTED = re.compile(
    r"matryoshka|not support|n't support|unsupported|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed", re.I
)


class OpenAIEmbed:
    """One provider: `ask` is exactly one HTTP request, and raises only what queries.errors names."""

    name = "openai"
    is_local = False
    note = ""

    def __init__(
        self,
        api_key: str,
        base_url: str | None = None,
        *,
        timeout_s: float = 120.0,
        allow_hosts: Collection[str] = (),
    ) -> None:
        self._client = OpenAIClient(
            api_key,
            base_url,
            timeout_s=timeout_s,
            answer_at_most=ANSWER_AT_MOST,
            allow_hosts=allow_hosts,
            # Base64 shrinks by a quarter, and unpacking it would triple the CPU time of reading it.
            headers={"Accept-Encoding": "identity"},
        )
        self.base_url = self._client.base_url
        self._whole_only: set[str] = set()
        self._was_right: set[tuple[str, int]] = set()

    async def ask(self, request: EmbedRequest) -> EmbedAnswer:
        names_dimensions = request.model not in self._whole_only and takes_dimensions(request.model)
        reply = await self._client.post("/embeddings", _encode(request, names_dimensions=names_dimensions))
        if not reply.is_success:
            raise self._refusal(reply, request, names_dimensions=names_dimensions)
        model = (request.model, request.dimensions)
        answer = read_vectors(reply.body, reply.headers, request, was_right=model in self._was_right)
        if len(answer.bad) < len(answer.vectors):
            self._was_right.add(model)
        return answer

    async def close(self) -> None:
        await self._client.close()

    def _refusal(self, reply: Reply, request: EmbedRequest, *, names_dimensions: bool) -> CatchupError:
        said = self._client.refusal(reply, "\n".join(request.texts))
        if not names_dimensions or not isinstance(said, ItemPermanent | Misconfigured) or not _is_of_dimensions(reply):
            return said
        if _UNWANTED.search(read_error(reply.body).message):
            # Learnt once: the same texts are asked again, and what comes is measured as always.
            self._whole_only.add(request.model)
            return Transient(
                "The server takes no `dimensions`; asking without from now on.", service=SERVICE, code=said.code
            )
        return Misconfigured(
            f"{request.model} gives no vectors of {request.dimensions} dimensions.",
            service=SERVICE,
            code=said.code,
            words=said.words,
            fix="Choose a model of that dimension, or a space of the model's dimension.",
        )


def _encode(request: EmbedRequest, *, names_dimensions: bool) -> bytes:
    try:
        return msgspec.json.encode(embed_body(request, names_dimensions=names_dimensions))
    except UnicodeEncodeError:
        raise ItemPermanent("The item's text is not valid Unicode.", reason="not_unicode", service=SERVICE) from None


def _is_of_dimensions(reply: Reply) -> bool:
    """By parameter, by words, or by FastAPI's place of the fault, whose quotes no repeated text could have."""
    said = read_error(reply.body)
    named = said.param == "dimensions" or re.search(r"\bdimensions\b|matryoshka", said.message) is not None
    return reply.status in (400, 422) and (named or b'"dimensions"' in reply.body[:4000])
