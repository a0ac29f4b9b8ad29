"""vectorize: embeddings for every row that has none, stored in Pinecone or pgvector and seen there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jobs import content, default_targets
from jobs.chunking import Chunk, chunk_segments, chunk_text
from jobs.chunking_segments import Segment, read_segments
from jobs.embedding import ID_MOST, Embedding
from jobs.engine.job import Ask, Bad, Good, Keep, Means, Packing, Skip
from jobs.targets import Target
from queries.embed import TEXT_TOKENS_MOST, TEXTS_MOST, TOKENS_MOST, EmbedAnswer, EmbedRequest
from queries.table import Row
from queries.vector_column import as_text
from queries.vectors import VectorRecord

_BYTES_PER_TOKEN = 4  # English; where it is wrong the server says so unpaid, and the request is halved
_PACKING = Packing(TEXTS_MOST, TOKENS_MOST * 4 // 5)
_VECTOR_BYTES = 4 * 4 // 3 + 1  # a float32 as base64 in the journal
_ALIKE_TEXTS = 8


@dataclass(frozen=True, slots=True)
class Vectorize:
    name: str = "vectorize"
    service: Literal["embed"] = "embed"
    packing: Packing = _PACKING
    example: str = "catchup vectorize --dry-run"
    targets: tuple[Target, ...] = tuple(t for t in default_targets.DEFAULTS if t.job == "vectorize")

    def expects(self, row: Row, means: Means) -> tuple[str, ...]:
        known, embedding = row.known, _embedding(means)
        only = means.options.only
        if known is None and only is not None and row.key in only.free:  # adopted
            return embedding.ids_of(row.key, _count_parts(row, means))
        if known is None or not known.same_text or embedding.into == "column":
            return ()
        if (known.model, known.prompt_hash) != (means.model, means.target.prompt_hash):
            return ()
        return embedding.ids_of(row.key, known.parts)

    def prepare(self, row: Row, means: Means) -> Ask | Skip | Keep:
        if row.is_kept:
            return Keep(row, row.known.parts if row.known else _count_parts(row, means))
        try:
            chunks = _chunks(row, means)
        except ValueError as odd:
            return Skip(row, "unreadable segments", str(odd))
        texts, tokens = tuple([chunk.text for chunk in chunks]), sum([chunk.tokens for chunk in chunks])
        why, detail = _why_skip(row, texts, tokens, _embedding(means))
        return Skip(row, why, detail) if why else _ask_for([row], texts, means, tokens, chunks)

    def pack(self, asks: Sequence[Ask]) -> Ask:
        if len(asks) == 1:
            return asks[0]
        first = asks[0]
        return Ask(
            rows=tuple(ask.rows[0] for ask in asks),
            request=replace(first.request, texts=tuple(text for ask in asks for text in ask.request.texts)),
            tokens_in=sum(ask.tokens_in for ask in asks),
            source=first.source,
            tokens_worst=sum(ask.tokens_worst for ask in asks),
            answer_bytes=sum(ask.answer_bytes for ask in asks),
            texts=sum(ask.texts for ask in asks),
            parts=tuple(asks),
        )

    def judge(self, ask: Ask, answer: EmbedAnswer, means: Means) -> list[Good | Bad]:
        """Vector i belongs to text i; a row is good when all of its vectors are."""
        parts = ask.parts or (ask,)
        if _are_alike(ask.request.texts, answer):
            return [Bad(part.rows[0], "same vector for many texts") for part in parts]
        verdicts: list[Good | Bad] = []
        start = 0
        for part in parts:
            end = start + part.texts
            why = next((answer.bad[n] for n in range(start, end) if n in answer.bad), "") if answer.bad else ""
            if why:
                verdicts.append(Bad(part.rows[0], why, again=None if part.is_again else replace(part, is_again=True)))
            else:
                verdicts.append(_good(part, answer.vectors[start:end], means))
            start = end
        return verdicts


def _count_parts(row: Row, means: Means) -> int:
    """How many vectors a row has that was embedded from its text of now; none where it would be skipped."""
    if not _embedding(means).has_many:
        return 1
    try:
        return len(_chunks(row, means))
    except ValueError:
        return 0


def _embedding(means: Means) -> Embedding:
    assert means.target.embedding is not None, "a target of vectorize says how it is embedded"  # noqa: S101
    return means.target.embedding


def _chunks(row: Row, means: Means) -> list[Chunk]:
    """The row's text in as many pieces as its target wants; short whole texts are not counted, or later."""
    target, chunking = means.target, _embedding(means).chunking
    if chunking.kind == "segments":
        return chunk_segments(_segments(row, target), chunking, means.tokens.count)
    text = content.clean("\n".join([str(value) for name in target.text if (value := row.values.get(name))]))
    size = len(text) if text.isascii() else len(text.encode())
    if chunking.kind == "whole" and size < TEXT_TOKENS_MOST and (means.counts_later or not means.is_plan):
        return [Chunk(text, 0 if means.counts_later else size // _BYTES_PER_TOKEN + 1)] if text else []
    return chunk_text(text, chunking, means.tokens.count)


def _why_skip(row: Row, texts: Sequence[str], tokens: int, embedding: Embedding) -> tuple[str, str]:
    if not texts:
        return "empty", ""
    if content.is_binary(texts[0]):
        return "binary", ""
    if len(texts) > 1 and not embedding.has_many:  # the others would have the first one's id, or no place at all
        return "too long", f"{tokens:,} tokens are no single vector: give the target chunks"
    if len(embedding.id_of(row.key, len(texts))) > ID_MOST:
        return "id too long", f"an id has at most {ID_MOST} characters"
    return "", ""


def _segments(row: Row, target: Target) -> list[Segment]:
    if target.spec.joined is not None:
        return read_segments(row.joined, *target.spec.joined.columns)
    return read_segments(row.values.get(target.text[0]))


def _ask_for(rows: Sequence[Row], texts: tuple[str, ...], means: Means, tokens: int, chunks: list[Chunk]) -> Ask:
    embedding = _embedding(means)
    return Ask(
        rows=tuple(rows),
        request=EmbedRequest(means.model, texts, embedding.dimensions),
        tokens_in=tokens,
        source=texts[0],
        tokens_worst=max(tokens, sum([len(text) if text.isascii() else len(text.encode()) for text in texts])),
        answer_bytes=4_096 + len(texts) * embedding.dimensions * _VECTOR_BYTES,
        texts=len(texts),
        about=chunks,
        uncounted=() if tokens else texts,
    )


def _good(part: Ask, vectors: Sequence[bytes], means: Means) -> Good:
    row, embedding = part.rows[0], _embedding(means)
    if embedding.into == "column":
        return Good(row, as_text(vectors[0]))
    described = zip(vectors, embedding.describe_chunks(row, part.about), strict=True)
    records = tuple(
        VectorRecord(embedding.id_of(row.key, number), values, metadata)
        for number, (values, metadata) in enumerate(described)
    )
    before = row.known.parts if row.known else 0
    return Good(row, "", records, embedding.ids_of(row.key, before, start=len(records)))


def _are_alike(texts: Sequence[str], answer: EmbedAnswer) -> bool:
    """Half of the different texts without a vector of their own: the provider is not working.

    Those it gave none that can be stored have a reason of their own, unless that are all: it is not their neighbours'.
    """
    kept = [n for n in range(len(texts)) if n not in answer.bad]
    if len(kept or texts) < _ALIKE_TEXTS:
        return False
    return 2 * len({answer.vectors[n] for n in kept}) <= len({texts[n] for n in kept})


JOB = Vectorize()
