"""One call a scene: what is seen and done in it, who and what is there. Run by `catchup reprocess-videos --inline`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from jobs import content, rich_targets
from jobs.engine.job import Ask, Bad, Good, Means, Skip
from jobs.rich_asking import ask_for, once_more, why_refused
from jobs.rich_tags import clean_names, make_tags
from jobs.targets import Target
from queries.chat import ChatAnswer, ChatRequest
from queries.sentences import count_sentences
from queries.table import Row

_LABELS = {"visual_summary": "Seen", "transcript_segment": "Said"}
_CUT_MARK = "\n[cut here: the text is longer than what is read of a scene]"
_READ_MOST = 6_000  # tokens of one scene's words: minutes of speech
_SHORTEST = 15  # characters of a description
_SENTENCES_MOST = 2
_LONGEST_URL = 2_000
_HOST = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{1,62}")


@dataclass(frozen=True, slots=True)
class DescribeScenes:
    name: str = rich_targets.JOB_NAME
    service: Literal["chat"] = "chat"
    packing: None = None  # one scene a call: what one says must not reach another's description
    example: str = "catchup reprocess-videos --inline --dry-run"
    targets: tuple[Target, ...] = (rich_targets.SCENES,)

    def expects(self, row: Row, means: Means) -> tuple[str, ...]:
        return ()

    def prepare(self, row: Row, means: Means) -> Ask | Skip:
        target = means.target
        image = str(row.values.get(target.image) or "").strip() if target.image else ""
        unfit = why_not_shown(image) if image else ""
        body = "\n".join(str(row.values.get(column) or "") for column in target.text)
        reason = content.why_not_worth_asking(body, 1, 1)
        if reason and (unfit or not image):
            return Skip(row, unfit or reason)
        text, image = "" if reason else _describe(row, target), "" if unfit else image
        if means.tokens.count(text) > _READ_MOST:
            text = means.tokens.cut(text, _READ_MOST) + _CUT_MARK
        most_out = min(target.max_completion_tokens, means.price.max_output)
        request = ChatRequest(
            means.model, target.prompt, text, most_out, image, target.detail, rich_targets.SCENE_SCHEMA
        )
        return ask_for(row, request, _count(request, means))

    def pack(self, asks: Sequence[Ask]) -> Ask:
        (ask,) = asks  # one row a call: there are never more
        return ask

    def judge(self, ask: Ask, answer: ChatAnswer, means: Means) -> list[Good | Bad]:
        row = ask.rows[0]
        refused = why_refused(ask, answer, means)
        if refused is not None:
            return [refused]
        found = read_scene(answer.text or "")
        if found is None:
            return [Bad(row, "not the shape that was asked for", (answer.text or "")[:200], again=once_more(ask))]
        text = content.contain(" ".join(found["description"].split()), ask.source, means.target.max_characters)
        reason = content.why_not_worth_storing(text, ask.source, ask.request.system)
        if reason:
            return [Bad(row, reason, text)]
        if len(text) < _SHORTEST or count_sentences(text) > _SENTENCES_MOST:
            return [Bad(row, "not one or two sentences", text, again=once_more(ask))]
        entities, actions = (clean_names(found[name], ask.source) for name in ("entities", "actions"))
        more = {"entities": entities, "actions": actions, "tags": make_tags(entities, actions)}
        return [Good(row, text, more=more)]


def read_scene(text: str) -> dict[str, Any] | None:
    """The answer if it is exactly what the schema says: no compatible server can be trusted to enforce it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or set(found) != {"description", "entities", "actions"}:
        return None
    lists = (found["entities"], found["actions"])
    if not isinstance(found["description"], str) or not all(isinstance(names, list) for names in lists):
        return None
    return found if all(isinstance(name, str) for names in lists for name in names) else None


def why_not_shown(url: str) -> str:
    """The provider fetches it: only a public host over https, by name, and nothing that could end the URL early."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "thumbnail is no address"
    if parts.scheme != "https":
        return "thumbnail is not https"
    odd = len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url
    if odd or parts.username is not None or port not in (None, 443) or not _HOST.fullmatch(host):
        return "thumbnail is no address"
    return ""


def _describe(row: Row, target: Target) -> str:
    lines = []
    for column in target.text:
        value = content.clean(str(row.values.get(column) or ""))
        if value:
            lines.append(f"{_LABELS.get(column, column.replace('_', ' ').capitalize())}: {value}")
    return "\n".join(lines)


def _count(request: ChatRequest, means: Means) -> int:
    """The schema is billed as part of the prompt; of the picture the most that it can be."""
    assert request.schema is not None, "every scene is asked for in one shape"  # noqa: S101
    shape = means.tokens.count(json.dumps(request.schema.body))
    image = means.price.image_tokens(request.detail) if request.image_url else 0
    return means.tokens.count_chat(request.system, request.user) + shape + image


PART = DescribeScenes()
