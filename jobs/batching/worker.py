"""What a process of its own does: pages of rows in, bodies of requests and their tokens out."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

from jobs.engine.job import Ask, Job, Means, Skip, prepare
from jobs.engine.options import Options
from jobs.targets import Target
from queries.batch_requests import write_body
from queries.errors import ItemPermanent
from queries.page_rows import parse_values
from queries.prices import Price
from queries.table import Row
from queries.tokens import TokenCounter

Made = tuple[Any, ...]
"""A body with its numbers, a skip with its reason, or () for what the parent is to see for itself."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything `prepare` needs, as it travels to another process."""

    job: Job
    target: Target
    model: str
    cache_dir: Path
    price: Price
    options: Options


_at_work: tuple[Job, Means] | None = None


def start(recipe: Recipe) -> None:
    """Once in each process. Ctrl-C is the parent's business, and nobody works on for a parent that was killed."""
    global _at_work  # noqa: PLW0603 - a pool hands its processes nothing else
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tokens = TokenCounter(recipe.model, recipe.cache_dir)
    tokens.hurry()
    _at_work = recipe.job, Means(recipe.target, recipe.model, tokens, recipe.price, recipe.options, is_plan=True)


def is_ready() -> None:
    """Long enough that each process takes one of these."""
    time.sleep(0.05)


def prepare_page(rows: Sequence[tuple[Any, ...]]) -> list[Made]:
    assert _at_work is not None, "started before it is asked"  # noqa: S101
    job, means = _at_work
    return [_prepare(job, Row(key, "", _values(values), {}, *rest), means) for key, values, *rest in rows]


def _values(told: str | dict[str, Any]) -> dict[str, Any]:
    return parse_values(told) if isinstance(told, str) else told


def _prepare(job: Job, row: Row, means: Means) -> Made:
    item = prepare(job, row, means)
    if isinstance(item, Skip):
        return "skip", item.reason, item.detail
    if not isinstance(item, Ask):
        return ()
    try:
        body = write_body(item.request)
    except ItemPermanent:
        return ()
    return body, item.tokens_in, item.tokens_out_most, item.tokens_worst, item.answer_bytes, item.texts


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
