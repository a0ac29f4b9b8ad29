"""What may be asked about and what may be stored: checks on texts, before and after the money."""

from __future__ import annotations

import re

_REFUSAL = re.compile(
    r"^\W*(i'?m sorry|i am sorry|sorry, (but )?i|i can('t|not) (help|assist|provide|summari[sz]e|comply|do)|"
    r"i'?m (unable|not able) to|i am (unable|not able) to|as an ai\b|unfortunately, i (can|am)|"
    r"i (do not|don't) have (enough|sufficient|access)|there is (no|not enough) (information|content|description))",
    re.IGNORECASE,
)
_LINK = re.compile(r"(?:https?://|www\.)[^\s<>\"')\]]+", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_BASE64 = re.compile(r"[A-Za-z0-9+/=\r\n]+")
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u9fff\uac00-\ud7af]")
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_PLAIN_ASCII = bytes((9, 10, *range(32, 127)))
_CLOSING = ".,;:!?"
_CONTROL_SHARE_MOST = 0.05
# a whole terminal sequence, so that no "[31m" is left of it
_TERMINAL = re.compile("(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?")
# control characters but newline and tab, lone surrogates, and the characters that change the direction of text
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def clean(text: str) -> str:
    """Text a database and a terminal can both hold: no NUL, surrogate, control or direction-changing character."""
    if is_plain(text):  # nothing in it that the patterns could find: 0.3 us of 300 characters against 8
        return text.strip()
    return _UNSAFE.sub("", _TERMINAL.sub("", text)).strip()


def is_plain(text: str) -> bool:
    """Printable, but for new lines and tabs."""
    if text.isascii():  # a third of the time, and every text is looked at twice
        return not text.encode().translate(None, _PLAIN_ASCII)
    return text.isprintable() or text.replace("\n", "").replace("\t", "").isprintable()


def why_not_worth_asking(text: str, min_characters: int, min_words: int, *, known_plain: bool = False) -> str:
    """The reason to skip this content unasked; empty when it is fine."""
    text = text.strip()
    if not text:
        return "empty"
    if is_binary(text, known_plain=known_plain):
        return "binary"
    if len(text) < min_characters:
        return f"under {min_characters} characters"
    if len(text.split(None, min_words)) < min_words and not _is_unspaced(text):
        return f"under {min_words} words"
    return ""


def is_binary(text: str, *, known_plain: bool = False) -> bool:
    """Bytes that were once forced into a text column: control or replacement characters, or base64 by the yard."""
    head = text[:4096]
    is_odd = "\ufffd" in head or not (known_plain or is_plain(head))
    if is_odd and len(_ODD.findall(head)) > _CONTROL_SHARE_MOST * len(head):
        return True
    return len(head) >= 200 and _BASE64.fullmatch(head) is not None and max(map(len, head.split())) > 60


def _is_unspaced(text: str) -> bool:
    """Chinese, Japanese and Thai write without spaces: their words cannot be counted by them."""
    letters = [c for c in text if c.isalpha()]
    wide = sum(
        1 for c in letters if "\u0e00" <= c <= "\u0e7f" or "\u3040" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7af"
    )
    return bool(letters) and wide > 0.5 * len(letters)


def why_not_worth_storing(answer: str, source: str, prompt: str) -> str:
    """The reason this answer is no result; empty when it may be stored."""
    if not answer.strip() or not any(c.isalnum() for c in answer):
        return "empty answer"
    if _REFUSAL.search(answer.replace("\u2019", "'")):
        return "refusal"
    if _is_echo(answer, prompt):
        return "echo of the prompt"
    if _is_copy(answer, source):
        return "echo of the input"
    return ""


def _is_echo(answer: str, prompt: str) -> bool:
    said, asked = " ".join(answer.lower().split()), " ".join(prompt.lower().split())
    if len(said) < 20:
        return False
    return said in asked or asked[:60] in said


def _is_copy(answer: str, source: str) -> bool:
    """The whole input, labels and all, is no summary of it; a sentence copied from it may be one."""
    said, given = " ".join(answer.lower().split()), " ".join(source.lower().split())
    return said[:200] == given[:200] or (len(given) > 400 and len(said) > 0.9 * len(given))


def contain(answer: str, source: str, most: int) -> str:
    """Keeps an obedient model harmless: plain text of bounded length, no markup, no address the source lacks."""
    text = _TAG.sub("", clean(answer))
    known = {link.rstrip(_CLOSING) for link in _LINK.findall(source)}
    text = _LINK.sub(lambda found: found.group() if found.group().rstrip(_CLOSING) in known else "", text)
    text = re.sub(r"[ \t]{2,}", " ", text).strip()
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0].rstrip(" ,;:") + "…"
