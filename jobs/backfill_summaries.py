"""backfill-summaries: one or two sentences for every row that has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jobs import content, default_targets
from jobs.engine.job import Ask, Bad, Good, Means, Skip
from jobs.targets import Target
from queries.chat import ChatAnswer, ChatRequest
from queries.table import Row

_LABELS = {"channel_name": "Channel", "visual_summary": "Seen", "transcript_segment": "Said"}
_CUT_MARK = "\n[cut here: the text is longer than the model's window]"
_ANSWER_BYTES = 8  # per token, as JSON escapes it, at the worst
_LONGER = 3  # times the completion limit for the one retry after `length`


@dataclass(frozen=True, slots=True)
class BackfillSummaries:
    name: str = "backfill-summaries"
    service: Literal["chat"] = "chat"
    packing: None = None  # one row a call: what one text says must not reach another's summary
    example: str = "catchup backfill-summaries --dry-run"
    targets: tuple[Target, ...] = tuple(t for t in default_targets.DEFAULTS if t.job == "backfill-summaries")

    def expects(self, row: Row, means: Means) -> tuple[str, ...]:
        return ()

    def prepare(self, row: Row, means: Means) -> Ask | Skip:
        text, own, are_plain = _describe(row, means.target)
        least = means.options
        reason = content.why_not_worth_asking(own, least.min_characters, least.min_words, known_plain=are_plain)
        if reason:
            return Skip(row, reason)
        tokens, prompt = means.tokens, means.target.prompt
        most_out = min(means.target.max_completion_tokens, means.price.max_output)
        most_in = means.price.window - most_out * _LONGER - tokens.count(_CUT_MARK)
        request = ChatRequest(means.model, prompt, text, most_out)
        without = tokens.count_chat(prompt, "")
        if means.counts_later and without + tokens.at_most(text) <= most_in:
            return _ask_for(row, request, without, uncounted=(text,))
        tokens_in = without + tokens.count(text)
        if tokens_in > most_in:
            text = tokens.cut(text, most_in - without) + _CUT_MARK
            request, tokens_in = replace(request, user=text), without + tokens.count(text)
        return _ask_for(row, request, tokens_in)

    def pack(self, asks: Sequence[Ask]) -> Ask:
        (ask,) = asks  # one row a call: there are never more
        return ask

    def judge(self, ask: Ask, answer: ChatAnswer, means: Means) -> list[Good | Bad]:
        row, source = ask.rows[0], ask.source
        if answer.refusal:
            return [Bad(row, "refusal", answer.refusal)]
        if answer.finish_reason == "content_filter":
            return [Bad(row, "content filter")]
        if answer.finish_reason == "length":
            return [Bad(row, "cut off by its length limit", again=_ask_for_more(ask, means))]
        text = content.contain(answer.text or "", source, means.target.max_characters)
        reason = content.why_not_worth_storing(text, source, ask.request.system)
        return [Bad(row, reason, text)] if reason else [Good(row, text)]


def _ask_for(row: Row, request: ChatRequest, tokens_in: int, uncounted: tuple[str, ...] = ()) -> Ask:
    most_out = request.max_completion_tokens
    size = 4_096 + _ANSWER_BYTES * most_out
    return Ask((row,), request, tokens_in, request.user, most_out, answer_bytes=size, uncounted=uncounted)


def _ask_for_more(ask: Ask, means: Means) -> Ask | None:
    """The same question with a higher limit, once."""
    most_out = min(means.target.max_completion_tokens * _LONGER, means.price.max_output)
    if ask.tokens_out_most >= most_out:
        return None
    return _ask_for(ask.rows[0], replace(ask.request, max_completion_tokens=most_out), ask.tokens_in)


def _describe(row: Row, target: Target) -> tuple[str, str, bool]:
    """Title and channel on lines of their own, then the long text: one row, and nothing of any other.

    Beside it what must be long enough to be worth a call, all of the row's own words without our labels, and whether
    those are plain text.
    """
    lines, own, are_plain = [], [], True
    long = target.text[-1] if target.text else ""  # a target may have nothing but joined rows
    for column in target.text:
        value = row.values.get(column)
        if not value:
            continue
        said, is_plain = _clean(str(value))
        if column != "channel_name":
            own.append(str(value))
            are_plain = are_plain and is_plain
        if said and column == long:
            lines.append(f"\n{said}")
        elif said:
            lines.append(f"{_LABELS.get(column) or column.replace('_', ' ').capitalize()}: {said}")
    for number, part in enumerate(row.joined, start=1):
        told = []
        for name, value in part.items():
            if value:
                said, is_plain = _clean(str(value))
                own.append(str(value))
                are_plain = are_plain and is_plain
                told.append(f"{_LABELS.get(name, name)}: {said}")
        if told:
            lines.append(f"Scene {number}. " + " ".join(told))
    return "\n".join(lines), "\n".join(own), are_plain


def _clean(text: str) -> tuple[str, bool]:
    """And whether there was nothing to clean, which is looked at once a text: it is a tenth of preparing it."""
    return (text.strip(), True) if content.is_plain(text) else (content.clean(text), False)


JOB = BackfillSummaries()
