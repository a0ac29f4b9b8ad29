"""A few recordings in scenes, made from the same sample: what an app has before anybody described them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from demo.load import SAMPLE

TABLES = Path(__file__).with_name("scenes.sql")
VIDEOS, SCENES_MOST = 8, 6
_LONG_ENOUGH, _SECONDS_A_WORD = 900, 0.4
_OURS = uuid.UUID("6f0f5c1e-6f55-5d0e-8f0a-3d3c2b1a0f9e")
VIDEO = "insert into videos (id, owner_id, filename, storage_path) values (%s, %s, %s, %s) on conflict do nothing"
SCENE = """
insert into video_scenes (id, video_id, index, start_s, end_s, transcript_segment) values (%s, %s, %s, %s, %s, %s)
on conflict do nothing
"""


def load_scenes(dsn: str) -> None:
    """Adds the rows that are not there; what is done stays done."""
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    with psycopg.connect(dsn, options="-c client_min_messages=warning") as connection:
        connection.execute(TABLES.read_bytes())
        for row in _long_ones(rows):
            video = uuid.uuid5(_OURS, row["id"])
            owner = uuid.uuid5(_OURS, row["channel_id"])
            connection.execute(VIDEO, (video, owner, f"{row['title']}.mp4", f"videos/{row['id']}"))
            at = 0.0
            for index, said in enumerate(_cut(row["description"])):
                ends = at + _SECONDS_A_WORD * len(said.split())
                connection.execute(SCENE, (uuid.uuid5(video, str(index)), video, index, at, ends, said))
                at = ends


def has_columns(dsn: str) -> bool:
    """Whether an earlier demo has added them."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "select from pg_attribute where attrelid = 'videos'::regclass and attname = 'has_rich_semantics'"
        )
        return found.fetchone() is not None


def show_scenes(dsn: str) -> tuple[str, list[tuple[str, str]], str]:
    """One recording: its name, its first scenes with their tags, its summary."""
    video = "select id, filename, video_summary from videos where has_rich_semantics order by id limit 1"
    scenes = (
        "select visual_description, array_to_string(tags[1:6], ', ') from video_scenes where video_id = %s "
        "order by index limit 2"
    )
    with psycopg.connect(dsn) as connection:
        found = connection.execute(video).fetchone()
        if found is None:
            return "", [], ""
        rows = connection.execute(scenes, (found[0],)).fetchall()
        return str(found[1]), [(str(text), str(tags)) for text, tags in rows], str(found[2])


def _long_ones(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    long = [row for row in rows if _LONG_ENOUGH < len(row["description"] or "") < 4 * _LONG_ENOUGH]
    return [row for row in long if "--" not in row["description"]][:VIDEOS]  # prose, and no tables


def _cut(text: str) -> Iterator[str]:
    """Paragraphs, short ones with the next: about what is said between two cuts."""
    held = ""
    scenes = 0
    for part in re.split(r"\n\s*\n", text):
        held = f"{held}\n{part}".strip()
        if len(held) > _LONG_ENOUGH / 6 and scenes < SCENES_MOST - 1:
            yield held
            held, scenes = "", scenes + 1
    if held:
        yield held
