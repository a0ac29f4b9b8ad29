"""The sample in a table as DOMAIN's first system has it, and a look at what became of it."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg

SAMPLE = Path(__file__).with_name("sample.jsonl")
TABLE = Path(__file__).with_name("videos.sql")
# Both are an operator's own decision: `catchup migrate` prints them, and runs neither.
INDEX = "create index if not exists videos_llm_summary_pending on videos (id) where llm_summary is null"
EXTENSION = "create extension if not exists vector"
INSERT = """
insert into videos (id, title, channel_id, channel_name, description, published_at)
values (%(id)s, %(title)s, %(channel_id)s, %(channel_name)s, %(description)s, %(published_at)s)
on conflict do nothing
"""


def load_sample(dsn: str) -> int:
    """Adds the rows that are not there; what is done stays done. Returns how many were new."""
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    with psycopg.connect(dsn, options="-c client_min_messages=warning") as connection, connection.cursor() as cursor:
        for statement in (TABLE.read_bytes(), INDEX, EXTENSION):
            cursor.execute(statement)
        before = _count(cursor, "select count(*) from videos")
        cursor.executemany(INSERT, rows)
        after = _count(cursor, "select count(*) from videos")
    return after - before


def count_rows(dsn: str) -> tuple[int, int, int]:
    """All rows, those with a summary, and those whose summary has its vector."""
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        return (
            _count(cursor, "select count(*) from videos"),
            _count(cursor, "select count(llm_summary) from videos"),
            _count(cursor, "select count(*) from videos where llm_summary_embedding_synced"),
        )


def show_some(dsn: str, most: int = 4) -> list[tuple[str, str]]:
    """A few titles with their summaries, the same ones each time."""
    chosen = "select title, llm_summary from videos where llm_summary is not null order by md5(id) limit %s"
    with psycopg.connect(dsn) as connection:
        return [(str(title), str(summary)) for title, summary in connection.execute(chosen, (most,)).fetchall()]


def _count(cursor: psycopg.Cursor[tuple[object, ...]], question: str) -> int:
    found = cursor.execute(question.encode()).fetchone()
    return int(str(found[0])) if found else 0
