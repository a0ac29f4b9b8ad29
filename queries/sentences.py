"""From a description as people type it to sentences worth quoting. Every pattern is linear: texts may be hostile."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

SHORTEST, LONGEST = 30, 340
LONGEST_WORD = 80  # longer runs are encoded data

_URL = re.compile(r"(?:https?://|www\.)[^\s<>()\[\]]+", re.IGNORECASE)
_MAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,63}")
_MARKDOWN_LINK = re.compile(r"!?\[([^\[\]\n]{0,200})\]\([^()\s]{0,400}\)")
_RST_LINK = re.compile(r"`([^`<\n]{1,200})<[^<>\n]{1,400}>`_{0,2}")
_ROLE = re.compile(r":[a-z]{1,20}(?::[a-z]{1,20})?:`[~!]?([^`\n]{1,200})`")
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,200}>")
_MARKS = re.compile(r"\*\*|__(?=\w)|(?<=\w)__|`+|(?<!\w)\*(?=\w)|(?<=[\w.,])\*(?!\w)|^#{1,6} |^> |\|", re.M)
_EMPTY_BRACKETS = re.compile(r"\(\s{0,3}[,;:]?\s{0,3}\)|\[\s{0,3}\]")
_SPACES = re.compile(r"\s+")
_BULLET = re.compile(r"(?:[-*•–—►▶✓]|\d{1,2}[.)])\s")
_LABEL = re.compile(r"(?:Seen|Said|Scene \d{1,4}[.:]|Abstract:|Description:|Summary:|Talk:|About:?)\s{0,3}:?\s{0,3}")
_TIMESTAMP = re.compile(r"(?:^|\s)\(?\d{1,2}:\d{2}(?::\d{2})?\b")
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]+")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|etc|vs|cf|Dr|Mr|Mrs|Ms|Prof|St|No|Fig|approx|al|Inc|Ltd|Jr|Sr|U\.S|[A-Z])\.$",
    re.IGNORECASE,
)
_PROMOTION = re.compile(
    r"\b(subscrib\w*|follow (?:us|me)|like and share|sign up|click (?:here|the)|link in|check out|help us|"
    r"join (?:us|me|my|our)|caption & translate|"
    r"patreon|sponsor\w*|promo code|discount|coupon|use code|% off|giveaway|merch|donat\w+|buy (?:now|my|our)|"
    r"free trial|newsletter|instagram|twitter|facebook|tiktok|linkedin|discord|telegram|slides? (?:are|is|at|can)|"
    r"affiliate|copyright|all rights reserved|licen[sc]ed under|business inquir\w+|contact (?:us|me)|"
    r"visit (?:us|our|my)|"
    r"produced by|recorded (?:at|on|in|by)|filmed (?:at|by)|thanks? (?:to|for)|brought to you|available (?:at|on) )",
    re.IGNORECASE,
)
_GREETING = re.compile(
    r"^\W*(?:hi|hey|hello|welcome|greetings|good (?:morning|evening)|what'?s up|thanks?|thank you|enjoy|bonjour|hola|"
    r"hallo|ciao|cheers|see you|bye)\b(?! world)",
    re.IGNORECASE,
)
_PERSON = re.compile(
    r"\b(?:speakers?:|bio:|(?:is|was) an? (?:\w+[ -]){0,4}(?:developer|engineer|professor|student|author|consultant|"
    r"founder|researcher|speaker|scientist|manager|director)\b|(?:he|she) (?:is|was|has|works|holds|lives)\b|"
    r"works at\b)",
    re.IGNORECASE,
)
_LEANS = re.compile(
    r"^(?:however|but|and|or|so|also|then|thus|therefore|moreover|furthermore|finally|it|they|these|those|he|she|"
    r"for example|in addition|otherwise|instead|see|note|that|this(?! \w+ (?:talk|tutorial|module|class|function|"
    r"session|workshop)| talk| tutorial| module| class| function| session| workshop| lecture| course| presentation))\b",
    re.IGNORECASE,
)
_MINE = re.compile(r"\b(?:I|I'm|I've|my|me)\b")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u9fff]")
_STOP_WORDS = """
a about after all also an and any are as at be because been before being between both but by can could did do does each
for from get had has have he her here his how if in into is it its just like may me more most my no not of on one only
or other our out over same she should so some such than that the their them then there these they this those through to
too up use used using very was we were what when where which while who will with would you your
der die das und ist ein eine mit von für auf le la les des un une et est en pour que qui dans el los las es por
"""
_STOP = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True, slots=True)
class Sentence:
    """`doubt` counts against it; one that is not usable still tells what the text is about."""

    text: str
    words: tuple[str, ...]
    usable: bool
    doubt: float


def words_of(text: str) -> tuple[str, ...]:
    """Content words, lower case, roughly stemmed; pairs of characters where words are not spaced."""
    words: list[str] = []
    for word in _WORD.findall(text.lower()):
        if _UNSPACED.match(word):
            words += [word[n : n + 2] for n in range(min(len(word), 200) - 1)]
        elif len(word) > 2 and word not in _STOP:
            words.append(_stem(word))
    return tuple(words)


def split_sentences(text: str) -> list[Sentence]:
    """In order, without duplicates: cleaned of links and markup, otherwise copied."""
    seen: set[str] = set()
    sentences = []
    for piece in _cut(text):
        if piece not in seen:
            seen.add(piece)
            sentences.append(_judge(piece))
    return sentences


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "es", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 3:
            return word[: -len(ending)]
    return word


def count_sentences(text: str) -> int:
    """Of a text on one line, as somebody wrote it: nothing is left out."""
    return sum(1 for _ in _divide(text))


def _cut(text: str) -> Iterator[str]:
    for block in _blocks(text):
        yield from _divide(block)


def _divide(block: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(block):
        at, following = end.start(), block[end.end() : end.end() + 2].lstrip()[:1]
        shortened = block[at] == "." and following and _ABBREVIATION.search(block, max(0, at - 12), at + 1)
        if shortened or following.islower():
            continue
        yield block[start : end.end()].strip()
        start = end.end()
    rest = block[start:].strip()
    if rest:
        yield rest


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs: hard-wrapped lines are joined; bullets, headings and advertisements stand alone."""
    held: list[str] = []
    for raw in _strip(text).split("\n"):
        line = raw.strip()
        noise, bullet = not line or _is_noise(line), _BULLET.match(line)
        heading = held and held[-1][-1] not in ".,;:!?" and len(held[-1]) < 40 and line[:1].isupper()
        if held and (noise or bullet or heading):
            yield " ".join(held)
            held = []
        if not noise:
            held.append(line[bullet.end() :] if bullet else line)
    if held:
        yield " ".join(held)


def _strip(text: str) -> str:
    text = html.unescape(text.replace("\r\n", "\n"))
    for pattern in (_MARKDOWN_LINK, _RST_LINK, _ROLE):
        text = pattern.sub(r"\1", text)
    for pattern in (_TAG, _URL, _MAIL, _MARKS):
        text = pattern.sub("", text)
    text = _EMPTY_BRACKETS.sub("", text)
    return "\n".join(_SPACES.sub(" ", line) for line in text.split("\n"))


def _is_noise(line: str) -> bool:
    """Lines of hashtags, chapter marks, rulers, calls to action."""
    words = line.split()
    tags = sum(word[0] in "#@" for word in words)
    short = len(line) < 90 and (_PROMOTION.search(line) or _GREETING.match(line))
    return bool(tags * 2 > len(words) or _TIMESTAMP.match(line) or short or not any(c.isalnum() for c in line))


def _judge(piece: str) -> Sentence:
    """Whether it may be quoted, and how much speaks against it."""
    text = _LABEL.sub("", piece, count=1) if _LABEL.match(piece) else piece
    if len(text) > LONGEST:
        text = _shorten(text)
    words = words_of(text)
    letters = sum(c.isalpha() or c == " " for c in text)
    few = len(text.split()) < 5 and len(_UNSPACED.findall(text[:200])) < 10
    odd = letters < 0.75 * len(text) or any(
        len(word) > LONGEST_WORD for word in text.split() if not _UNSPACED.search(word)
    )
    noise = _PROMOTION.search(text) or _GREETING.match(text) or _TIMESTAMP.search(text) or text.lstrip()[:1] in "#@"
    shortest = SHORTEST if not _UNSPACED.search(text) else SHORTEST // 2
    usable = not (few or odd or noise or len(text) < shortest or len(set(words)) < 3)
    doubt = 0.35 * bool(_LEANS.match(text)) + 0.6 * bool(_PERSON.search(text)) + 0.3 * ("?" in text[-2:])
    doubt += 0.15 * bool(_MINE.search(text)) + 0.3 * (text[-1:] not in '.!?…。！？"”)') + 0.3 * (text[-1:] == ":")
    return Sentence(text, words, usable, doubt + 0.2 * text[:1].islower())


def _shorten(text: str) -> str:
    """A sentence too long to quote ends at a clause, and shows it."""
    head = text[: LONGEST - 1]
    for mark in ("; ", ", ", " "):
        at = head.rfind(mark, LONGEST // 3)
        if at > 0:
            return head[:at].rstrip(",;: ") + "…"
    return head[: LONGEST - 1] + "…"
