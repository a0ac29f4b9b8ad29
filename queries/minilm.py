"""Embeddings without an account: all-MiniLM-L6-v2 on this machine's own cores, free of charge and of any network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from queries.embed import EmbedAnswer, EmbedRequest
from queries.errors import Misconfigured, Transient
from queries.minilm_model import DIMENSIONS, WINDOW, Model, check_installed, load_model, load_vocabulary, usable_cores
from queries.wordpiece import Pieces

NAME = "minilm-l6-v2"
BATCH_PIECES = 256  # padding included; at 1,024 texts of 300 characters were a sixth slower and took 150 MB more
BATCH_TEXTS = 32
NOTHING_KNOWN = "nothing in this text is in the model's vocabulary"


class LocalEmbed:
    """One thread for each core, and batches handed to whichever is free: the event loop never waits."""

    name = NAME
    is_local = True

    def __init__(self) -> None:
        check_installed()
        self.cut_texts = 0
        self._threads = ThreadPoolExecutor(max_workers=usable_cores(), thread_name_prefix=NAME)
        self._loading = threading.Lock()
        self._model: Model | None = None

    @property
    def note(self) -> str:
        """What an operator should know about texts that are longer than the model reads; empty if there were none."""
        if not self.cut_texts:
            return ""
        return (
            f"{self.cut_texts} texts were longer than the {WINDOW} word pieces {NAME} reads: "
            "their vectors stand for their beginnings; smaller chunks would keep the rest"
        )

    async def ask(self, request: EmbedRequest) -> EmbedAnswer:
        """Always NAME's vectors, whatever model was asked for; the first call also loads the model."""
        if request.dimensions != DIMENSIONS:
            raise Misconfigured(
                f"{NAME} gives vectors of {DIMENSIONS} dimensions, and the space has {request.dimensions}",
                code="dimensions",
                fix=f"choose a space of {DIMENSIONS} dimensions, or the model that this one was filled with",
            )
        loop = asyncio.get_running_loop()
        read = await loop.run_in_executor(self._threads, self._read, request.texts)
        bad = {n: NOTHING_KNOWN for n, text in enumerate(read) if not text.known}
        batches = [
            loop.run_in_executor(self._threads, self._encode, batch, [read[n].ids for n in batch])
            for batch in pack(read)
        ]
        vectors = [b""] * len(read)
        try:
            for done in await asyncio.gather(*batches):
                for number, vector in done:
                    vectors[number] = vector
        finally:  # of a request that was given up, nothing more is begun
            for waiting in batches:
                waiting.cancel()
        self.cut_texts += sum(not text.whole for text in read)
        tokens = sum(len(text.ids) for text in read if text.known)
        return EmbedAnswer(tuple(vectors), NAME, tokens, bad)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, texts: Sequence[str]) -> list[Pieces]:
        pieces = self._loaded().pieces
        return [pieces.read(text, WINDOW) for text in texts]

    def _encode(self, numbers: Sequence[int], texts: Sequence[tuple[int, ...]]) -> list[tuple[int, bytes]]:
        model = self._loaded()
        try:
            vectors = model.encode(texts)
        except model.failures as error:  # memory, as far as a verified model can fail
            raise Transient(f"{NAME} could not compute a batch: {error}", service=NAME) from error
        return [(number, vector.tobytes()) for number, vector in zip(numbers, vectors, strict=True)]

    def _loaded(self) -> Model:
        with self._loading:
            if self._model is None:
                self._model = load_model()
            return self._model


def count_pieces(text: str) -> int:
    """Tokens of `text` as this model counts them, its two marks not included."""
    return load_vocabulary().count(text)


def pack(read: Sequence[Pieces]) -> Iterator[list[int]]:
    """Numbers of the texts worth a vector, those of like length together: the shorter are padded to the longest."""
    batch: list[int] = []
    for number in sorted((n for n, text in enumerate(read) if text.known), key=lambda n: len(read[n].ids)):
        longest = len(read[number].ids)
        if batch and ((len(batch) + 1) * longest > BATCH_PIECES or len(batch) == BATCH_TEXTS):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
