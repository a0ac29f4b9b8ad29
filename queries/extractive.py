"""The local provider: sentences copied from the text itself. It has no model, invents nothing, and its name says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from math import log, sqrt

from queries.chat import ChatAnswer, ChatRequest
from queries.extractive_scenes import describe, is_of_scenes, roll_up
from queries.sentences import Sentence, split_sentences, words_of

NAME = "extractive-v1"
LONGEST = 360  # what DOMAIN's vector metadata keeps of a summary
READ_AT_MOST = 20_000  # characters: what a text is about stands early, and hostile ones are long
SENTENCES_AT_MOST = 60
ENOUGH_ALONE = 170  # a first sentence of this length needs no second
Vector = dict[str, float]


class LocalChat:
    """Chat without a model. One thread: more would only fight for the interpreter's lock."""

    name = NAME
    is_local = True
    note = ""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="extractive")

    async def ask(self, request: ChatRequest) -> ChatAnswer:
        """Never fails and costs nothing; text is None when no sentence is worth copying."""
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(self._thread, _answer, request)
        return ChatAnswer(text or None, "stop", None, NAME, 0, 0)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _answer(request: ChatRequest) -> str:
    user = request.user[:READ_AT_MOST]
    if request.schema is not None:
        return describe(user)
    return roll_up(user) if is_of_scenes(user) else summarise(user)


def summarise(user: str) -> str:
    """The one or two sentences nearest to all the others, in the order they stand; empty when none will do."""
    title, body = read_request(user[:READ_AT_MOST])
    sentences = split_sentences(body)[:SENTENCES_AT_MOST]
    if not sentences:
        return ""
    vectors = _weigh(sentences)
    scores = _score(sentences, vectors, set(words_of(title)))
    usable = [n for n in range(len(sentences)) if sentences[n].usable and not _repeats(sentences[n], title)]
    if not usable:
        return ""
    first = max(usable, key=lambda n: (scores[n], -n))
    chosen = [first]
    room = LONGEST - len(sentences[first].text) - 1
    others = [n for n in usable if n != first and len(sentences[n].text) <= room]
    if len(sentences[first].text) < ENOUGH_ALONE and others:
        # the next one must add something: what it shares with the first counts against it
        chosen.append(
            max(others, key=lambda n: (scores[n] - _dot(vectors[n], vectors[first]) - abs(n - first) / 20, -n))
        )
    return " ".join(sentences[n].text for n in sorted(chosen))


def read_request(user: str) -> tuple[str, str]:
    """The title and the long text of "Title: …", "Channel: …", an empty line, then the text; leniently."""
    title, lines = "", user.split("\n")
    body: list[str] = []
    for number, line in enumerate(lines):
        label, colon, value = line.partition(": ")
        if not line.strip() and number:
            return title, "\n".join([*body, *lines[number:]])
        if colon and label.istitle() and " " not in label and number < 8:
            title = value if label in ("Title", "Filename") else title
        else:
            body.append(line)
    return title, "\n".join(body)


def _weigh(sentences: list[Sentence]) -> list[Vector]:
    """TF-IDF within this text, each vector of length 1."""
    found_in = Counter(word for sentence in sentences for word in set(sentence.words))
    vectors = []
    for sentence in sentences:
        counts = Counter(sentence.words)
        vector = {word: n * (1.0 + log(len(sentences) / found_in[word])) for word, n in counts.items()}
        length = sqrt(sum(weight * weight for weight in vector.values())) or 1.0
        vectors.append({word: weight / length for word, weight in vector.items()})
    return vectors


def _score(sentences: list[Sentence], vectors: list[Vector], title: set[str]) -> list[float]:
    """Centrality as LexRank's degree (the cosines to all others, summed in linear time), place, and title words."""
    whole: Vector = {}
    for vector in vectors:
        for word, weight in vector.items():
            whole[word] = whole.get(word, 0.0) + weight
    central = [_dot(vector, whole) for vector in vectors]
    most = max(central) or 1.0
    scores = []
    for n, sentence in enumerate(sentences):
        shared = len(title & set(sentence.words)) / (len(title) or 1)
        scores.append(central[n] / most + 0.5 * shared + 0.5 / (1 + n) - sentence.doubt)
    return scores


def _repeats(sentence: Sentence, title: str) -> bool:
    """The title again, or nearly: it would tell the reader nothing."""
    said, known = set(sentence.words), set(words_of(title))
    return len(said - known) <= 1 and len(said) <= len(known) + 1


def _dot(one: Vector, other: Vector) -> float:
    return sum(weight * other.get(word, 0.0) for word, weight in one.items())
