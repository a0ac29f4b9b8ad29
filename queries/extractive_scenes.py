"""Scenes without a model: a description copied from what is said, names and actions found by their form."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable

from queries.sentences import Sentence, count_sentences, split_sentences, words_of

DESCRIPTION_LONGEST = 400
ENOUGH_ALONE = 140
NAMES_MOST, ACTIONS_MOST = 6, 4
SENTENCES_LEAST, SENTENCES_MOST = 3, 5
_LABEL = re.compile(r"^(?:Seen|Said): ", re.MULTILINE)
_SCENE = re.compile(r"^Scene \d+\. ", re.MULTILINE)
_NAMES = re.compile(r" \([^()]*\)$", re.MULTILINE)
_PROPER = re.compile(r"(?<![.!?:\n] )(?<!^)\b[A-Z][\w-]{2,30}(?: [A-Z][\w-]{2,30}){0,2}", re.MULTILINE)
_WORD = re.compile(r"\b[a-z]{4,24}\b")
_ACTION = re.compile(r"\b[a-z]{2,20}ing\b")
_ENDS = (".", "!", "?", "…", '."', '?"', '!"')
_NO_ACTION = frozenset(("being", "during", "everything", "nothing", "something", "anything", "string", "following"))


def describe(user: str) -> str:
    """The answer to a scene's request, in the shape that it asks for; empty when there is nothing to copy."""
    body = _LABEL.sub("", user)
    chosen = _first_whole(split_sentences(body))
    if not chosen:
        return ""
    entities = list(dict.fromkeys(_PROPER.findall(body)))[:NAMES_MOST]
    frequent = Counter(word for word in _WORD.findall(body) if words_of(word) and not word.endswith("ing"))
    entities += [word for word, times in frequent.most_common(NAMES_MOST) if times > 1][: NAMES_MOST - len(entities)]
    actions = [word for word in dict.fromkeys(_ACTION.findall(body)) if word not in _NO_ACTION][:ACTIONS_MOST]
    return json.dumps({"description": chosen, "entities": entities, "actions": actions})


def _first_whole(sentences: list[Sentence]) -> str:
    """One sentence, or two if they are short: those that may be quoted, else whatever there is."""
    usable = [s.text for s in sentences if s.usable] or [s.text for s in sentences][:1]
    if not usable:
        return ""
    both = _join(usable[:2])
    is_short = len(usable[0]) < ENOUGH_ALONE and len(both) <= DESCRIPTION_LONGEST and count_sentences(both) <= 2
    return both if is_short else _join([usable[0][:DESCRIPTION_LONGEST]])


def is_of_scenes(user: str) -> bool:
    return _SCENE.match(user) is not None


def roll_up(user: str) -> str:
    """Three to five sentences of a recording's scenes, spread over all of it, in order."""
    scenes = [split_sentences(_NAMES.sub("", scene)) for scene in _SCENE.split(user) if scene.strip()]
    firsts = [(n, 0, found[0].text) for n, found in enumerate(scenes) if found]
    rest = [(n, m, each.text) for n, found in enumerate(scenes) for m, each in enumerate(found[1:], start=1)]
    step = max(1.0, len(firsts) / SENTENCES_MOST)
    spread = [firsts[int(step * k)] for k in range(min(SENTENCES_MOST, len(firsts)))]
    chosen = {text: (n, m) for n, m, text in reversed(spread)}
    for n, m, text in rest:
        if count_sentences(_join(chosen)) >= SENTENCES_LEAST:
            break
        chosen.setdefault(text, (n, m))
    texts = sorted(chosen, key=lambda text: chosen[text])
    while len(texts) > 1 and count_sentences(_join(texts)) > SENTENCES_MOST:
        texts.pop()
    return _join(texts)


def _join(texts: Iterable[str]) -> str:
    """Each begins and ends as a sentence does, or it would be read as a part of the one before."""
    return " ".join(text[:1].upper() + text[1:] + ("" if text.endswith(_ENDS) else ".") for text in texts)
