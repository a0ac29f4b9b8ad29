"""Secrets out of any text: the configured ones in every form they travel in, and whatever looks like a key."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, quote_plus

MARK = "[redacted]"
SHORTEST = 4
"""A configured secret shorter than this is a word; replacing it would only garble the message."""
SHORTEST_ENCODED = 8

# Shapes of keys, so that somebody else's key is caught too. `*` belongs to the class: a 401 body echoes "sk-ab****yz".
_SHAPES = re.compile(
    r"""(?xi)
      \b(?:sk|rk|pk|sess)-[\w*-]{6,}              # OpenAI and its imitators
    | \bsb_(?:secret|publishable)_[\w*-]{4,}      # Supabase
    | \bpcsk_[\w*-]{6,}                           # Pinecone
    | \bAIza[\w*-]{20,}                           # Google
    | \beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?      # a JWT: Supabase's legacy keys
    | (?<=Bearer\s)[^\s"',;]{8,}
    | (?<=Basic\s)[\w+/=-]{8,}
    | (?<=API\skey\sprovided:\s)[^\s"']+?(?=\.?(?:\s|$|"))
    | (?<=[?&]key=)[^&\s"']+
    | (?<=api_key=)[^&\s"']+
    | (?<=apikey=)[^&\s"']+
    | (?<=token=)[^&\s"']+
    | (?<=password=)[^&\s"']+
    | (?<=://)[^\s/@:]*:[^\s/@]+(?=@)             # user:password in a URL
    """
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without any of `secrets`, as written, URL-encoded or in base64, and without anything key-shaped."""
    known = _forms(tuple(secrets))
    if known is not None:
        text = known.sub(MARK, text)
    return _SHAPES.sub(MARK, text)


@lru_cache(maxsize=16)
def _forms(secrets: tuple[str, ...]) -> re.Pattern[str] | None:
    found: set[str] = set()
    for secret in secrets:
        if len(secret) < SHORTEST:
            continue
        found.add(secret)
        found.add(secret.encode("unicode_escape").decode("ascii"))
        if len(secret) >= SHORTEST_ENCODED:
            found.update((quote(secret, safe=""), quote(secret), quote_plus(secret)))
            found.update(_base64_forms(secret.encode("utf-8", "surrogatepass")))
    if not found:
        return None
    # Longest first, or a secret that begins another would leave the other's tail behind.
    return re.compile("|".join(re.escape(form) for form in sorted(found, key=len, reverse=True)), re.IGNORECASE)


def _base64_forms(secret: bytes) -> set[str]:
    """The part of base64 text that is the same whatever stands before and after: one form for each alignment."""
    forms = set()
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + secret).decode().rstrip("=")
        first = (0, 2, 3)[shift]
        last = len(whole) - (0 if (shift + len(secret)) % 3 == 0 else 1)
        forms.add(whole[first:last])
        forms.add(whole[first:last].replace("+", "-").replace("/", "_"))
    return forms
