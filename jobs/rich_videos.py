"""The summary of a video from its scenes, and the flag, in one write. Run by `catchup reprocess-videos --inline`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs import content, rich_targets
from jobs.engine.job import Ask, Bad, Good, Means, Skip
from jobs.rich_asking import LONGER, ask_for, once_more, why_refused
from jobs.targets import Target
from queries.chat import ChatAnswer, ChatRequest
from queries.sentences import count_sentences
from queries.table import Row

_LEAST, _MOST = 3, 5  # sentences
_NOT_YET = "A scene of the recording, whose description will be about as long as these two sentences. " * 2


@dataclass(frozen=True, slots=True)
class SummariseScenes:
    name: str = rich_targets.JOB_NAME
    service: Literal["chat"] = "chat"
    packing: None = None
    example: str = "catchup reprocess-videos --inline --dry-run"
    targets: tuple[Target, ...] = (rich_targets.SUMMARY, rich_targets.STATUS)

    def expects(self, row: Row, means: Means) -> tuple[str, ...]:
        return ()

    def prepare(self, row: Row, means: Means) -> Ask | Skip:
        if not row.joined:
            return Skip(row, "no scenes")
        scenes = [_say(scene, means.target) for scene in row.joined]
        missing = [number for number, said in enumerate(scenes, start=1) if not said]
        if missing and not means.is_plan:
            which = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
            return Skip(row, "not every scene is described", f"{len(missing)} of {len(scenes)}: scene {which}")
        text = _fit([said or _NOT_YET for said in scenes], means)
        most_out = min(means.target.max_completion_tokens, means.price.max_output)
        request = ChatRequest(means.model, means.target.prompt, text, most_out)
        return ask_for(row, request, means.tokens.count_chat(request.system, request.user))

    def pack(self, asks: Sequence[Ask]) -> Ask:
        (ask,) = asks
        return ask

    def judge(self, ask: Ask, answer: ChatAnswer, means: Means) -> list[Good | Bad]:
        row = ask.rows[0]
        refused = why_refused(ask, answer, means)
        if refused is not None:
            return [refused]
        text = content.contain(" ".join((answer.text or "").split()), ask.source, means.target.max_characters)
        # of few scenes a good summary is as long as they are, so only the very same text is a copy
        reason = content.why_not_worth_storing(text, "", ask.request.system)
        if not reason and text.split() == ask.source.split():
            reason = "echo of the input"
        if reason:
            return [Bad(row, reason, text)]
        least = min(_LEAST, count_sentences(" ".join(_text(scene, means.target) for scene in row.joined)))
        if not least <= count_sentences(text) <= _MOST:
            return [Bad(row, "not three to five sentences", text, again=once_more(ask))]
        return [Good(row, text)]


def _text(scene: Mapping[str, Any], target: Target) -> str:
    return content.clean(str(scene.get(_columns(target)[1]) or ""))


def _say(scene: Mapping[str, Any], target: Target) -> str:
    """The description, and who and what is in it; empty as long as there is no description."""
    said = _text(scene, target)
    lists = [value for column in _columns(target)[2:] if isinstance(value := scene.get(column), list)]
    names = [content.clean(str(name)) for names in lists for name in names]
    return f"{said} ({', '.join(names)})" if said and names else said


def _columns(target: Target) -> tuple[str, ...]:
    """The place of a scene, its description, then lists of names and what the scene was described from."""
    assert target.spec.joined is not None, "checked with the pair of targets"  # noqa: S101
    return target.spec.joined.columns


def _fit(scenes: Sequence[str], means: Means) -> str:
    """All scenes in order; of a recording too long for the model the beginning of each, rather than the first ones."""
    room = (
        means.price.window - means.target.max_completion_tokens * LONGER - means.tokens.count(means.target.prompt) - 64
    )
    text = "\n".join(f"Scene {number}. {said}" for number, said in enumerate(scenes, start=1))
    if means.tokens.count(text) <= room:
        return text
    each = max(8, room // len(scenes) - 8)
    text = "\n".join(f"Scene {number}. {means.tokens.cut(said, each)}" for number, said in enumerate(scenes, start=1))
    return means.tokens.cut(text, room)


PART = SummariseScenes()
