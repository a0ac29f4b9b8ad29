"""The one door for text that is not ours: titles, answers, and the words of services."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

# Bidirectional controls can make a line read as something else (CVE-2021-42574); tags and fillers hide text.
_HIDES = frozenset("\u061c\u115f\u1160\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u2060\u3164\ufeff\uffa0") | {
    *(chr(code) for code in range(0x202A, 0x202F)),
    *(chr(code) for code in range(0x2066, 0x206A)),
    *(chr(code) for code in range(0xE0000, 0xE0080)),
}


def clean(value: object, at_most: int = 200) -> str:
    """One printable line: no control characters of either set, no direction marks, no lone surrogates."""
    line = " ".join(keep_printable(str(value)[: at_most * 4]).split())
    return line if len(line) <= at_most else line[: at_most - 1] + "…"


def keep_printable(text: str) -> str:
    """The same without touching the spaces: what every laid out line passes through, trusted or not."""
    return "".join(" " if char.isspace() else char for char in text if _is_shown(char))


def _is_shown(char: str) -> bool:
    if char in "\t\n\r":
        return True
    return char not in _HIDES and unicodedata.category(char) not in ("Cc", "Cs", "Cn", "Co")


def inert(value: object, at_most: int = 200, style: str = "") -> Text:
    """The same as rich text: never markup, whatever brackets it holds."""
    from rich.text import Text

    return Text(clean(value, at_most), style=style, no_wrap=True, overflow="ellipsis")


def clean_json(value: Any, check: Callable[[str], str]) -> Any:
    """JSON for machines keeps every character, escaped; each text passes `check`, and odd values become text."""
    if isinstance(value, dict):
        return {check(str(name)): clean_json(item, check) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(item, check) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float | None) else check(str(value))
