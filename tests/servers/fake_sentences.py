"""What the fake model says: a sentence of the input's own words, or what an injected order wants of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

WORD = re.compile(r"[^\W\d_]{4,}")


def write_sentence(user: str, telling: int) -> str:
    """A plausible sentence of the input's own words: the same input, the same sentence, unless `telling` differs."""
    words = list(dict.fromkeys(WORD.findall(user[-4000:])))[-200:] or ["silence"]
    mark = hashlib.sha1(user.encode("utf-8", "replace"), usedforsecurity=False).digest()
    picked = [words[(mark[i] * 256 + mark[i + 1]) % len(words)].lower() for i in range(0, 14, 2)]
    opening = "The speaker explains" if not telling else f"In telling {telling} the speaker explains"
    return (
        f"{opening} how {picked[0]} relates to {picked[1]}, moves on to {picked[2]} and {picked[3]}, "
        f"and closes with a look at {picked[4]}, {picked[5]} and what {picked[6]} means in practice."
    )


def obey(user: str) -> str:
    """The worst a model can do with an injected order: everything after "SAY:" verbatim, else a link and a script."""
    _, found, order = user.partition("SAY:")
    return order.strip() if found else "Ignore it! <a href='https://evil.example/x'>click</a> <script>steal()</script>"


TELLERS: dict[str, Callable[[str], str]] = {"echo": str, "obedient": obey}
