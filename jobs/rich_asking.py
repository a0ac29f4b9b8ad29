"""What both steps of rich semantics do alike: a request for one row, and answers that are none."""

from __future__ import annotations

from dataclasses import replace

from jobs.engine.job import Ask, Bad, Means
from queries.chat import ChatAnswer, ChatRequest
from queries.table import Row

LONGER = 3  # times the completion limit for the one retry after `length`
_ANSWER_BYTES = 8  # per token, as JSON escapes it, at the worst


def ask_for(row: Row, request: ChatRequest, tokens_in: int) -> Ask:
    most_out = request.max_completion_tokens
    return Ask((row,), request, tokens_in, request.user, most_out, answer_bytes=4_096 + _ANSWER_BYTES * most_out)


def why_refused(ask: Ask, answer: ChatAnswer, means: Means) -> Bad | None:
    """What the service itself says of an answer that is not whole."""
    row = ask.rows[0]
    if answer.refusal:
        return Bad(row, "refusal", answer.refusal)
    if answer.finish_reason == "content_filter":
        return Bad(row, "content filter")
    if answer.finish_reason == "length":
        return Bad(row, "cut off by its length limit", again=_ask_for_more(ask, means))
    return None


def once_more(ask: Ask) -> Ask | None:
    """A slip of the model's is worth a second call; two are no slip."""
    return None if ask.is_again else replace(ask, is_again=True)


def _ask_for_more(ask: Ask, means: Means) -> Ask | None:
    """The same question with a higher limit, once."""
    most_out = min(means.target.max_completion_tokens * LONGER, means.price.max_output)
    if ask.tokens_out_most >= most_out:
        return None
    more = ask_for(ask.rows[0], replace(ask.request, max_completion_tokens=most_out), ask.tokens_in)
    return replace(more, is_again=ask.is_again)
