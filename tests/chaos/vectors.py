"""vectorize on the stage: texts packed into requests, vectors put where they belong, then the row's flag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from jobs import content
from jobs.chunking import Chunking, chunk_text
from jobs.default_targets import SUMMARIES
from queries.tokens import TokenCounter
from tests.chaos import vectors_judge
from tests.chaos.judge import Finding
from tests.chaos.shelves import LAG_S, PineconeShelf, Shelf, TableShelf, mark_of, run_pinecone
from tests.chaos.stage import Stage, any_of, mix_kinds
from tests.chaos.witness import Records, WitnessProcess
from tests.chaos.world import Truth, World
from tests.servers.fake_embeddings import fake_vector
from tests.servers.fake_script import rule

WORKERS = 3
ROWS_MOST = 4
"""Of one request: few, so that forty rows are several requests, groups and writes."""
PARTS = 4
GROUP_MOST = 8
PAST = 1 / 4  # of all rows
SHARES = {
    "empty": 0.05, "refused": 0.07, "flaky": 0.07, "edited": 0.07, "shortened": 0.07, "deleted": 0.05,
}  # fmt: skip
PAST_KINDS = ("kept", "shrunk", "grown", "unflagged", "shrunk", "kept", "grown", "shrunk", "unflagged", "kept")
# What the world does to a row while the provider is being asked about it.
MISCHIEF = {
    "edited": "update videos set llm_summary = 'Edited meanwhile. ' || llm_summary where id = %s",
    "shortened": "update videos set llm_summary = 'All that is left of ' || id where id = %s",
    "deleted": "delete from videos where id = %s",
}
# What happened to a row since an earlier run had done it.
SINCE = {
    "shrunk": "update videos set llm_summary = 'Only this sentence is left of ' || id where id = any(%s)",
    "grown": "update videos set llm_summary = llm_summary || E'\\n\\nMore of ' || id || ' and again of ' || id "
    "where id = any(%s)",
    "unflagged": "update videos set llm_summary_embedding_synced = null where id = any(%s)",
}
CHUNKS = Chunking(kind="paragraphs", tokens_most=48)
TELLTALES = {
    "flag-before-put": "unbacked",
    "put-not-seen": "unbacked",
    "journal-without-vectors": "lost",
    "pairing-shifted": "mispaired",
    "drop-before-put": "unbacked",
    "stale-chunks-kept": "extra",
    "booked-after-send": "ledger",
}


class Vectors(Stage):
    job = "vectorize"
    telltales = TELLTALES
    target = SUMMARIES
    cell = "llm_summary_embedding_synced"
    source = "llm_summary"
    schema = "create extension vector;"

    def __init__(self, shelf: Shelf, count: Callable[[str], int], *, chunked: bool) -> None:
        self.shelf, self.chunked, self._count = shelf, chunked, count
        self.texts_most = ROWS_MOST * (PARTS if chunked else 1)
        self.units_most = WORKERS * self.texts_most
        self.title = f"{'chunks' if chunked else 'whole texts'} in {shelf.store}"

    def words(self) -> Sequence[str]:
        words = (self.job, "--yes", "--json", "--target", "summaries", "--store", self.shelf.store)
        return (*words, "--create-namespace", "--concurrency", str(WORKERS), "--db-load", "100%")

    def environment(self) -> dict[str, str]:
        return self.shelf.environment() | {"CHAOS_SMALL": f"{self.texts_most} {GROUP_MOST}"}

    def settings(self) -> str:
        if not self.chunked:
            return ""
        return f'[targets.summaries.chunks]\nkind = "{CHUNKS.kind}"\ntokens_most = {CHUNKS.most}\n'

    def requests(self, items: int) -> int:
        return items // ROWS_MOST

    def choose_kinds(self, seed: int, items: int) -> dict[str, str]:
        return mix_kinds(seed, items, "v", SHARES)

    def past_kinds(self, items: int) -> dict[str, str]:
        return {f"w{n:06d}": PAST_KINDS[n % len(PAST_KINDS)] for n in range(round(items * PAST))}

    def age(self, world: World) -> None:
        self.shelf.keep(world.dsn)
        with psycopg.connect(world.dsn, autocommit=True, application_name="world") as connection:
            for kind, statement in SINCE.items():
                connection.execute(statement.encode(), [world.of(kind)])

    def fill(self, dsn: str, kinds: Mapping[str, str]) -> None:
        rows = [(key, f"Talk {key}", "  " if kind == "empty" else write_text(key)) for key, kind in kinds.items()]
        with psycopg.connect(dsn, application_name="world") as connection:
            connection.cursor().executemany(
                "insert into videos (id, title, channel_id, llm_summary) values (%s, %s, 'c1', %s)", rows
            )

    def prepare(self, world: World, witness: WitnessProcess, *, mischief: bool, garbled: bool) -> None:
        self.shelf.reset()
        witness.reset()
        once = [rule("null_one", on={"item": any_of([key]), "times": int(garbled)}) for key in world.of("flaky")]
        witness.script(rule("null_one", on={"item": any_of(world.of("refused"))}), *once)
        if mischief:
            statements = {key: MISCHIEF[kind] for key, kind in world.kinds.items() if kind in MISCHIEF}
            witness.interfere(world.dsn, statements)

    def judge_results(
        self, finding: Finding, world: World, truth: Truth, records: Records, *, edits_done: bool
    ) -> None:
        del records
        there = self.shelf.contents(world.dsn)
        vectors_judge.judge_space(finding, world, truth, self.expect, there, edits_done=edits_done)
        history = vectors_judge.History(self.expect, self.before(world), self.shelf.moves(world.dsn))
        vectors_judge.judge_flags(finding, world, truth, history)

    def claimed(self, world: World, truth: Truth) -> Iterable[str]:
        """Of a row that changed meanwhile the ledger remembers the vectors that had been put for it."""
        return truth.provenance - set(world.of(*MISCHIEF))

    def asked_for(self, world: World, truth: Truth) -> Callable[[str], int]:
        """Each text once for each time its row had to be embedded: twice if it was edited meanwhile."""
        wanted: Counter[str] = Counter()
        for key, kind in world.kinds.items():
            texts = [] if kind in ("kept", "unflagged") else [truth.sources.get(key)]
            texts += [write_text(key)] if kind in MISCHIEF else []
            wanted.update(text for version in texts for text in self.cut(version))
        return lambda text: wanted[text]

    def before(self, world: World) -> dict[str, str]:
        """The texts of the rows that an earlier run had done."""
        return {key: write_text(key) for key in world.of(*PAST_KINDS)}

    def cut(self, text: str | None) -> list[str]:
        if not text or not text.strip():
            return []
        return (
            [chunk.text for chunk in chunk_text(text, CHUNKS, self._count)] if self.chunked else [content.clean(text)]
        )

    def expect(self, key: str, text: str | None) -> dict[str, str]:
        """The ids of a row with this text, and the mark of the vector that belongs to each."""
        assert self.target.embedding is not None
        texts = self.cut(text)
        model, size = self.target.model, self.target.embedding.dimensions
        ids = [f"{key}#{n}" for n in range(len(texts))] if self.chunked else [key]
        return {id_: mark_of(fake_vector(each, model, size)) for id_, each in zip(ids, texts, strict=False)}


def write_text(key: str) -> str:
    """Paragraphs that no other row has; the provider finds the row by its mark."""
    about = (
        f"of {key} tells how the harbour cranes of the old port were built, moved and finally restored by volunteers"
    )
    return "\n\n".join(f"[[item:{key}]] Part {n} {about} in the year {1900 + n}." for n in range(PARTS))


@contextmanager
def open_stages(vocabularies: Path) -> Iterator[list[Stage]]:
    count = TokenCounter(SUMMARIES.model, vocabularies).count
    assert SUMMARIES.embedding is not None
    with run_pinecone(lag_s=LAG_S, dimension=SUMMARIES.embedding.dimensions) as process:
        yield [
            Vectors(shelf, count, chunked=chunked)
            for chunked in (True, False)
            for shelf in (PineconeShelf(process), TableShelf())
        ]
