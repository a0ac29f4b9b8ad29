"""What only `catchup refresh-views` asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cli import quantities
from cli.flags import RunFlags, option


def read_tiers(text: str) -> str:
    parts = text.split(",")
    if not all(part in ("0", "1", "2", "3", "4") for part in parts):
        raise ValueError(f"{text!r} are not tiers: 0 to 4, such as 0 or 0,1")
    return ",".join(sorted(set(parts)))


@dataclass(frozen=True, kw_only=True)
class ViewsFlags(RunFlags):
    """Which videos instead of those that are due, how much of the quota, and what follows."""

    stale: Annotated[
        float | None,
        option(
            read=quantities.read_duration_s, metavar="TIME", help="Instead of due ones: not asked for this long, 24h."
        ),
    ] = None
    tier: Annotated[str | None, option(read=read_tiers, metavar="N,N", help="Only videos of these tiers, 0 to 4.")] = (
        None
    )
    channel: Annotated[str | None, option(metavar="ID", help="Only videos of this channel.")] = None
    all: Annotated[bool, option("--all", help="Every video, due or not.")] = False
    quota: Annotated[
        int | None, option(min=1, metavar="UNITS", help="What the key has a day, for all runs together (10,000).")
    ] = None
    quota_reserve: Annotated[
        int | None, option(min=0, metavar="UNITS", help="Of that, kept for the application (0).")
    ] = None
    rollups: Annotated[
        bool, option("--rollups", help="Then refresh the materialized views that depend on what changed.")
    ] = False
    since_run: Annotated[
        str | None,
        option(metavar="RUN", help="Ask nothing: list what has changed since that run began; --json for programs."),
    ] = None
