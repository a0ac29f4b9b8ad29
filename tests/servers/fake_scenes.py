"""What the fake OpenAI knows of pictures and of answers in a shape: as little as a scene and its video need."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

IMAGE_TOKENS = 85  # of a picture in low detail
_WORD = re.compile(r"[^\W\d_]{4,}")
_OFTEN = 3


def read_content(message: Mapping[str, Any]) -> str:
    """The text of a message, a picture's address among it: it is part of what was asked."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] if part["type"] == "text" else part["image_url"]["url"] for part in content)


def count_images(body: Mapping[str, Any]) -> int:
    parts = [
        part for message in body["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    return sum(part["type"] == "image_url" for part in parts)


def as_asked(sentence: str, body: Mapping[str, Any]) -> str:
    """The sentence as an answer of the shape, or of the number of sentences, that the request asks for."""
    if "response_format" in body:
        words = list(dict.fromkeys(_WORD.findall(sentence)))
        return json.dumps({"description": sentence, "entities": words[3:6], "actions": [f"{words[1]} it"]})
    if "three to five plain sentences" in read_content(body["messages"][0]):
        return " ".join(f"{sentence.removesuffix('.')}, in part {number}." for number in range(1, _OFTEN + 1))
    return sentence
