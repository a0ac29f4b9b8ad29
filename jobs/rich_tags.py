"""From names as a model writes them to tags that are the same for the same thing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from jobs import content

NAMES_MOST = 12
NAME_LONGEST = 80
TAGS_MOST = 24
TAG_LONGEST = 40
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_SPACES = re.compile(r"\s+")
_ARTICLE = re.compile(r"^(?:a|an|the) (?=\S)")


def clean_names(names: Iterable[str], source: str) -> tuple[str, ...]:
    """As they are shown: plain text, each once, as many as were asked for."""
    found: dict[str, str] = {}
    for name in names:
        text = _SPACES.sub(" ", content.contain(name, source, NAME_LONGEST)).strip()
        if any(c.isalnum() for c in text):
            found.setdefault(text.casefold(), text)
    return tuple(found.values())[:NAMES_MOST]


def make_tags(*lists: Iterable[str]) -> tuple[str, ...]:
    """Small letters, one form of each character, no article: `The Red Crane` and `red crane` are one tag."""
    found = dict.fromkeys(tag for names in lists for name in names if (tag := normalise(name)))
    return tuple(found)[:TAGS_MOST]


def normalise(name: str) -> str:
    """Empty where nothing is left, or more than a tag: a sentence is none."""
    text = unicodedata.normalize("NFKC", content.clean(name)).casefold()
    text = _EDGES.sub("", _SPACES.sub(" ", text))
    text = unicodedata.normalize("NFC", _ARTICLE.sub("", text))
    return text if len(text) <= TAG_LONGEST else ""
