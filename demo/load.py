"""The sample in a table as DOMAIN's first system has it, and a look at what became of it."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg

SAMPLE = Path(__file__).with_name("sample.jsonl")
TABLE = """
create table if not exists videos (
    id text primary key,
    title text not null,
    description text,
    channel_id text not null,
    channel_name text,
    published_at timestamptz,
    view_count bigint,
    like_count bigint,
    comment_count bigint,
    duration text,
    thumbnail_url text,
    metadata jsonb,
    updated_at timestamptz not null default now(),
    llm_summary text,
    llm_summary_generated_at timestamptz,
    llm_summary_model text,
    llm_summary_embedding_synced boolean default false,
    pinecone_embedded boolean default false,
    embedding_thumbnail_synced boolean default false
);
create index if not exists videos_llm_summary_pending on videos (id) where llm_summary is null;
"""
INSERT = """
insert into videos (id, title, channel_id, channel_name, description, published_at)
values (%(id)s, %(title)s, %(channel_id)s, %(channel_name)s, %(description)s, %(published_at)s)
on conflict do nothing
"""


def load_sample(dsn: str) -> int:
    """Adds the rows that are not there; what is done stays done. Returns how many were new."""
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    with psycopg.connect(dsn, options="-c client_min_messages=warning") as connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
        before = _count(cursor, "select count(*) from videos")
        cursor.executemany(INSERT, rows)
        after = _count(cursor, "select count(*) from videos")
    return after - before


def count_rows(dsn: str) -> tuple[int, int]:
    """All rows, and those with a summary."""
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        return _count(cursor, "select count(*) from videos"), _count(cursor, "select count(llm_summary) from videos")


def show_some(dsn: str, most: int = 4) -> list[tuple[str, str]]:
    """A few titles with their summaries, the same ones each time."""
    chosen = "select title, llm_summary from videos where llm_summary is not null order by md5(id) limit %s"
    with psycopg.connect(dsn) as connection:
        return [(str(title), str(summary)) for title, summary in connection.execute(chosen, (most,)).fetchall()]


def _count(cursor: psycopg.Cursor[tuple[object, ...]], question: str) -> int:
    found = cursor.execute(question.encode()).fetchone()
    return int(str(found[0])) if found else 0
