"""Targets of vectorize in catchup.toml: what is taken, what is filled in, and every refusal with its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.choices import targets_of
from cli.settings import load
from jobs import backfill_summaries, vectorize
from jobs.chunking import Chunking
from jobs.embedding import Embedding
from jobs.targets import Target
from queries.errors import Misconfigured
from queries.table import TableSpec
from tests.servers.bench import Bench
from tests.servers.shell import Shell

NOTES: dict[str, Any] = {
    "job": "vectorize",
    "table": "notes",
    "key": ["id"],
    "read": ["body"],
    "pending": ["is_embedded is not true"],
    "cells": {"is_embedded": "true"},
    "model": "text-embedding-3-small",
    "store": "pinecone",
    "index": "notes-prod",
    "dimensions": 512,
}


def toml(name: str, table: dict[str, Any]) -> str:
    """As an operator writes it; inner tables stand on a line of their own."""

    def value(given: Any) -> str:
        if isinstance(given, dict):
            return "{ " + ", ".join(f"{inner} = {value(one)}" for inner, one in given.items()) + " }"
        if isinstance(given, list):
            return "[" + ", ".join(map(value, given)) + "]"
        return f'"{given}"' if isinstance(given, str) else str(given).lower()

    return f"[targets.{name}]\n" + "".join(f"{key} = {value(given)}\n" for key, given in table.items())


def read(directory: Path, text: str, name: str = "notes") -> Target:
    """The target as the command vectorize sees it."""
    (directory / "catchup.toml").write_text(text)
    return targets_of(vectorize.JOB, load({}, directory))[name]


def embedding_of(target: Target) -> Embedding:
    assert target.embedding is not None
    return target.embedding


def test_a_new_target_of_vectors_needs_no_prompt_and_gets_its_defaults(tmp_path: Path) -> None:
    """Ten lines are a target; the rest is what is usual."""
    target = read(tmp_path, toml("notes", NOTES))
    assert target.spec == TableSpec("notes", ("id",), ("body",), ("is_embedded",), target.spec.pending)
    assert target.embedding == Embedding("pinecone", 512, index="notes-prod")
    assert (target.text, target.prompt, target.job) == (("body",), "", "vectorize")


def test_a_column_kept_beside_a_vector_is_read_along_and_guards_nothing(tmp_path: Path) -> None:
    """Metadata names columns; those that are not embedded come to `beside` by themselves, each once."""
    more = {"beside": ["likes"], "metadata": {"title": "title", "likes": "likes", "text": "body", "head": "title"}}
    target = read(tmp_path, toml("notes", NOTES | more))
    assert (target.spec.read, target.spec.beside) == (("body",), ("likes", "title"))
    assert embedding_of(target).metadata == more["metadata"]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param({"kind": "paragraphs"}, Chunking("paragraphs"), id="kind alone"),
        pytest.param({"kind": "fixed", "tokens_most": 300, "overlap_share": "10%"}, Chunking("fixed", 300, 16, 0.1)),
        pytest.param({"kind": "fixed", "overlap_share": 0}, Chunking("fixed", overlap_share=0.0), id="no overlap"),
        pytest.param(
            {"kind": "segments", "seconds_least": "20s", "seconds_most": "1m30s", "tokens_least": 8},
            Chunking("segments", tokens_least=8, seconds_least=20, seconds_most=90),
            id="segments",
        ),
    ],
)
def test_chunks_are_a_table_of_their_own_and_number_the_ids(
    tmp_path: Path, chunks: dict[str, Any], expected: Chunking
) -> None:
    """Durations and shares are written as everywhere else."""
    embedding = embedding_of(read(tmp_path, toml("notes", NOTES) + toml("notes.chunks", chunks)))
    assert (embedding.chunking, embedding.vector_id) == (expected, "{key}#{n}")


def test_a_default_target_is_changed_key_by_key(tmp_path: Path) -> None:
    """Who has another index names the index, and nothing else."""
    target = read(tmp_path, toml("summaries", {"index": "mine", "dimensions": 256}), "summaries")
    embedding = embedding_of(target)
    assert (embedding.index, embedding.dimensions, embedding.namespace) == ("mine", 256, "llm-summaries")
    assert target.spec.cells == ("llm_summary_embedding_synced",)


def test_a_job_sees_its_own_targets_only(tmp_path: Path) -> None:
    """One file describes the targets of every job."""
    text = toml("notes", NOTES) + toml("titles", {"model": "text-embedding-3-large"})
    read(tmp_path, text)
    assert list(targets_of(backfill_summaries.JOB, load({}, tmp_path))) == ["video-summaries", "scene-rollup"]


CHUNKED = {"chunks": {"kind": "paragraphs"}}
SEGMENTED = {"chunks": {"kind": "segments"}}
JOINED = {"table": "scenes", "on": "note_id", "columns": ["words"], "order_by": "n"}
COLUMN = {"store": "column", "index": None, "cells": {"embedding": "answer"}, "pending": ["embedding is null"]}
REFUSED = [
    pytest.param({"index": None}, ["lacks index"], id="pinecone without an index"),
    pytest.param({"store": None, "dimensions": None}, ["lacks store, dimensions"], id="no place"),
    pytest.param({"model": None, "key": None}, ["lacks key, model"], id="no key"),
    pytest.param({"job": None}, ["lacks job", 'job = "vectorize"'], id="no job"),
    pytest.param({"job": "vectorise"}, ["'vectorise'", 'job = "vectorize"'], id="no such job"),
    pytest.param({"prompt": "Say what this is about."}, ["prompt", "mean nothing to vectorize"], id="a prompt"),
    pytest.param({"store": "qdrant"}, ["[targets.notes] store", "'pinecone', 'pgvector' or 'column'"], id="store"),
    pytest.param({"index": "Notes_Prod"}, ["[targets.notes] index", "1 to 45 small letters"], id="index name"),
    pytest.param({"namespace": "Übung"}, ["[targets.notes] namespace", "printable ASCII"], id="namespace"),
    pytest.param({"dimensions": 0}, ["[targets.notes] dimensions", "greater than or equal to 1"], id="0 dimensions"),
    pytest.param({"dimensions": 20_001}, ["[targets.notes] dimensions", "20000"], id="dimensions of nobody"),
    pytest.param({"store": "pgvector", "dimensions": 16_001}, ["not from 1 to 16000"], id="dimensions of pgvector"),
    pytest.param({"store": "pgvector", "namespace": "n" * 129}, ["at most 128 characters"], id="name of a space"),
    pytest.param({"metadata": {"a-b": "title"}}, ["metadata] a-b", "plain name"], id="metadata name"),
    pytest.param({"metadata": {"title": "ti tle"}}, ["metadata] title", "plain name"], id="metadata column"),
    pytest.param({"vector_id": "{id}"}, ["vector_id", "one {key}"], id="no key in the id"),
    pytest.param({"vector_id": "{key}{title}"}, ["vector_id", "one {key}"], id="another brace"),
    pytest.param({"vector_id": "{n}-{key}", **CHUNKED}, ["vector_id", "{n} behind it"], id="number first"),
    pytest.param({"vector_id": "{key}{n}", **CHUNKED}, ["vector_id", "{n} behind it"], id="nothing between"),
    pytest.param({"vector_id": "{key}1{n}", **CHUNKED}, ["vector_id", "{n} behind it"], id="a digit between"),
    pytest.param({"vector_id": "{key}", **CHUNKED}, ["overwrite each other"], id="chunks under one id"),
    pytest.param({"chunks": {"kind": "verses"}}, ["[targets.notes.chunks] kind", "'paragraphs'"], id="kind"),
    pytest.param({"chunks": {"tokens_most": 9}}, ["[targets.notes.chunks] kind", "missing"], id="no kind"),
    pytest.param(
        {"chunks": {"kind": "fixed", "tokens_moost": 9}}, ["tokens_moost", "did you mean tokens_most"], id="typo"
    ),
    pytest.param({"chunks": {"kind": "fixed", "tokens_most": 9_000}}, ["chunks", "not from 8 to"], id="too large"),
    pytest.param({"chunks": {"kind": "fixed", "overlap_share": 0.7}}, ["chunks", "0 to 0.5"], id="overlap"),
    pytest.param({"chunks": {"kind": "segments", "seconds_most": "10s"}}, ["chunks", "seconds_least"], id="seconds"),
    pytest.param({"chunks": {"kind": "segments", "seconds_most": "soon"}}, ["seconds_most", "30s"], id="no duration"),
    pytest.param({"metadata": {"text": "body"}, **CHUNKED}, ["metadata: text", "another name"], id="chunk's own"),
    pytest.param({"text": ["title"]}, ["text: title is not among read"], id="text that is not read"),
    pytest.param({"cells": {"vector": "answer"}}, ["vector cannot be", "pinecone"], id="answer beside pinecone"),
    pytest.param(COLUMN | {"cells": {"at": "now", "v": "answer"}}, ["comes first"], id="column not first"),
    pytest.param(COLUMN | {"cells": {"at": "now"}}, ["comes first"], id="column without one"),
    pytest.param(COLUMN | CHUNKED, ["one vector"], id="column with chunks"),
    pytest.param({"joined": JOINED}, ['kind "segments" only'], id="joined without segments"),
    pytest.param({"joined": JOINED, **SEGMENTED}, ["start, end, text"], id="joined without times"),
    pytest.param({"read": ["title", "body"], **SEGMENTED}, ["come from one column"], id="segments of two columns"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_cannot_work_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], said: list[str]) -> None:
    """Before a database is asked anything, and with what to write instead."""
    table = {key: value for key, value in (NOTES | changes).items() if value is not None}
    with pytest.raises(Misconfigured) as refused:
        read(tmp_path, toml("notes", table))
    words = f"{refused.value.what}; {refused.value.fix}"
    assert [part for part in said if part not in words] == [], words


def test_what_does_not_fit_together_is_said_at_once(tmp_path: Path) -> None:
    """Four slips, one start."""
    changes = {
        "store": "pgvector",
        "dimensions": 17_000,
        "vector_id": "{id}",
        "text": ["title"],
        "cells": {"v": "answer"},
    }
    with pytest.raises(Misconfigured) as refused:
        read(tmp_path, toml("notes", NOTES | changes))
    assert all(part in refused.value.what for part in ("dimensions:", "vector_id:", "text:", "cells:"))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("video-summaries", {"dimensions": 512}, "mean nothing to backfill-summaries"),
        ("video-summaries", {"job": "vectorize"}, "is a default target of backfill-summaries"),
    ],
)
def test_a_default_target_keeps_its_job(tmp_path: Path, name: str, changes: dict[str, Any], said: str) -> None:
    """A key that its job does not look at would be believed to do something."""
    (tmp_path / "catchup.toml").write_text(toml(name, changes))
    with pytest.raises(Misconfigured, match=said):
        targets_of(backfill_summaries.JOB, load({}, tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"dimensions": 2_000}, "gives at most 1536", id="too many"),
        pytest.param({"model": "text-embedding-ada-002"}, "gives 1536 and no other", id="not cut"),
        pytest.param({"model": "gpt-4o-mini"}, "does not embed", id="a model that writes"),
        pytest.param({"model": "text-embedding-4"}, "price", id="unknown model"),
    ],
)
async def test_dimensions_a_model_does_not_give_exit_10_before_anything_is_paid(
    wired: Shell, bench: Bench, changes: dict[str, Any], said: str
) -> None:
    """Even for a dry run, which would price what cannot be done."""
    (wired.directory / "catchup.toml").write_text(toml("summaries", {"store": "pgvector", **changes}))
    ended = await wired.run("vectorize", "--target", "summaries", "--dry-run")
    assert (ended.code, bench.fake.world.requests) == (10, 0)
    assert said in ended.err + ended.out
