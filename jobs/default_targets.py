"""The tables our operators have (their real names), each as one job fills it. `catchup.toml` changes or adds."""

from __future__ import annotations

from jobs.embedding import Embedding
from jobs.targets import Target
from queries.table import Condition, Joined, TableSpec

_SMALL = "text-embedding-3-small"
_BESIDE_A_VECTOR = {
    "title": "title",
    "channel": "channel_name",
    "view_count": "view_count",
    "published_at": "published_at",
}

SUMMARY_PROMPT = (
    "Summarise what this recording shows or teaches in one or two plain sentences. "
    "Name the concrete subject. Use only what the text says. No promotion, no greetings, no links, "
    "and do not use the words 'video' or 'channel'. Answer with the summary alone."
)
ROLLUP_PROMPT = (
    "These are the scenes of one recording in order. Write a summary of the whole in three to five plain sentences. "
    "Use only what the scenes say. Answer with the summary alone."
)

VIDEO_SUMMARIES = Target(
    name="video-summaries",
    job="backfill-summaries",
    spec=TableSpec(
        table="videos",
        key=("id",),
        read=("title", "channel_name", "description"),
        cells=("llm_summary", "llm_summary_generated_at", "llm_summary_model"),
        pending=(Condition("llm_summary", "is null"),),
        filters=("channel_id",),
    ),
    cells={"llm_summary": "answer", "llm_summary_generated_at": "now", "llm_summary_model": "model"},
    prompt=SUMMARY_PROMPT,
    model="gpt-4o-mini",
    text=("title", "channel_name", "description"),
)
SCENE_ROLLUP = Target(
    name="scene-rollup",
    job="backfill-summaries",
    spec=TableSpec(
        table="videos",
        key=("id",),
        read=("filename",),
        cells=("video_summary",),
        pending=(Condition("video_summary", "is null"), Condition("status", "=", "READY")),
        filters=("owner_id",),
        joined=Joined("video_scenes", "video_id", ("visual_summary", "transcript_segment"), "index"),
    ),
    cells={"video_summary": "answer"},
    prompt=ROLLUP_PROMPT,
    model="gpt-4o-mini",
    text=(),
    max_completion_tokens=320,
    max_characters=4_000,
)
SUMMARIES = Target(
    name="summaries",
    job="vectorize",
    spec=TableSpec(
        table="videos",
        key=("id",),
        read=("llm_summary",),
        beside=("title", "channel_name", "view_count", "published_at"),
        cells=("llm_summary_embedding_synced",),
        pending=(
            Condition("llm_summary_embedding_synced", "is not true"),
            Condition("llm_summary", "is not null"),
        ),
        filters=("channel_id",),
    ),
    cells={"llm_summary_embedding_synced": "true"},
    prompt="",
    model=_SMALL,
    text=("llm_summary",),
    max_completion_tokens=0,
    embedding=Embedding(
        into="pinecone",
        dimensions=512,
        index="youtube-titles-prod",
        namespace="llm-summaries",
        metadata={**_BESIDE_A_VECTOR, "summary": "llm_summary"},
    ),
    is_first=True,
)
TITLES = Target(
    name="titles",
    job="vectorize",
    spec=TableSpec(
        table="videos",
        key=("id",),
        read=("title",),
        beside=("channel_name", "view_count", "published_at"),
        cells=("pinecone_embedded",),
        pending=(Condition("pinecone_embedded", "is not true"),),
        filters=("channel_id",),
    ),
    cells={"pinecone_embedded": "true"},
    prompt="",
    model=_SMALL,
    text=("title",),
    max_completion_tokens=0,
    embedding=Embedding(into="pinecone", dimensions=512, index="youtube-titles-prod", metadata=_BESIDE_A_VECTOR),
)
CHUNKS = Target(
    name="chunks",
    job="vectorize",
    spec=TableSpec(
        table="chunks",
        key=("id",),
        read=("embedding_text",),
        beside=("video_id", "chunk_title", "start_timestamp", "end_timestamp"),
        cells=("is_indexed", "indexed_at"),
        pending=(Condition("is_indexed", "is not true"), Condition("embedding_text", "is not null")),
        filters=("video_id",),
    ),
    cells={"is_indexed": "true", "indexed_at": "now"},
    prompt="",
    model=_SMALL,
    text=("embedding_text",),
    max_completion_tokens=0,
    embedding=Embedding(
        into="pinecone",
        dimensions=384,
        index="transcripts",
        namespace="chunks",
        metadata={
            "video_id": "video_id",
            "title": "chunk_title",
            "start_s": "start_timestamp",
            "end_s": "end_timestamp",
            "text": "embedding_text",
        },
    ),
)
JOB_POSTINGS = Target(
    name="job-postings",
    job="vectorize",
    spec=TableSpec(
        table="jobs",
        key=("id",),
        read=("title", "company", "location", "description"),
        cells=("embedding",),
        pending=(Condition("embedding", "is null"), Condition("is_active", "is true")),
    ),
    cells={"embedding": "answer"},
    prompt="",
    model=_SMALL,
    text=("title", "company", "location", "description"),
    max_completion_tokens=0,
    embedding=Embedding(into="column", dimensions=1536, metadata={"title": "title", "company": "company"}),
)

DEFAULTS: tuple[Target, ...] = (VIDEO_SUMMARIES, SCENE_ROLLUP, SUMMARIES, TITLES, CHUNKS, JOB_POSTINGS)
