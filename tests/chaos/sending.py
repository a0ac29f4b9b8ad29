"""reprocess-videos on the stage: one message a video, in a Redis that the judge reads from outside."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from jobs.reprocess_videos import VIDEOS
from tests.chaos.judge import Finding, note
from tests.chaos.stage import Stage, mix_kinds
from tests.chaos.witness import Records, WitnessProcess
from tests.chaos.world import Truth, World
from tests.servers.message_bench import Broker
from tests.servers.redis import RedisServer, find_redis

SHARES = {"rich": 0.1, "processing": 0.1}
STATES = {"eligible": ("READY", None), "rich": ("READY", True), "processing": ("PROCESSING", None)}
SCHEMA = """
alter table public.videos add column owner_id text not null default 'owner', add column status text not null,
    add column has_rich_semantics boolean;
"""
TELLTALES = {
    "cursor-saved-on-fetch": "lost",
    "noted-before-sent": "lost",
    "sent-not-noted": "extra",
    "another-id-each-time": "misnamed",
}
BLOWS = {
    "cursor-saved-on-fetch": "mq.before:20:kill",
    "noted-before-sent": "mq.before:20:kill",
    "sent-not-noted": "mq.confirmed:20:kill",
    "another-id-each-time": "mq.published:20:kill",
}


class Sending(Stage):
    job = "reprocess-videos"
    title = "messages"
    target = VIDEOS
    cell = "status"
    source = "title"
    units_most = 1
    schema = SCHEMA
    telltales = TELLTALES
    judges_stops = False

    def __init__(self, redis: RedisServer) -> None:
        self.broker = Broker("dramatiq-redis", redis.url, "chaos")

    def words(self) -> Sequence[str]:
        return (self.job, "--yes", "--json", "--create-queue", "--db-load", "100%")

    def blow_of(self, plant: str) -> str:
        return BLOWS[plant]

    def environment(self) -> dict[str, str]:
        return {"BROKER_URL": self.broker.url}

    def settings(self) -> str:
        return f'[queue]\nlibrary = "dramatiq"\nname = "{self.broker.queue}"\n'

    def requests(self, items: int) -> int:
        """Of a provider: none is asked."""
        return 0

    def choose_kinds(self, seed: int, items: int) -> dict[str, str]:
        return mix_kinds(seed, items, "v", SHARES)

    def fill(self, dsn: str, kinds: Mapping[str, str]) -> None:
        with psycopg.connect(dsn, application_name="world") as connection:
            connection.cursor().executemany(
                "insert into videos (id, title, channel_id, status, has_rich_semantics) "
                "values (%s, 'talk', 'c1', %s, %s)",
                [(key, *STATES[kind]) for key, kind in kinds.items()],
            )

    def prepare(self, world: World, witness: WitnessProcess, *, mischief: bool, garbled: bool) -> None:
        """Nobody takes a message during a trial, so that all of them are there to be counted."""
        del world, mischief, garbled
        witness.reset()
        self.broker.take_all()

    def judge_results(
        self, finding: Finding, world: World, truth: Truth, records: Records, *, edits_done: bool
    ) -> None:
        """A kill may double the one message that was in doubt, under its own id."""
        del records, edits_done
        sent = self.broker.see_all()
        times, ids = Counter(each.video for each in sent), {(each.id, each.video) for each in sent}
        for key, kind in world.kinds.items():
            if kind == "eligible" and not times[key]:
                note(finding.lost, key)
            elif kind != "eligible" and times[key]:
                note(finding.extra, key)
        for key, many in Counter(video for _, video in ids).items():
            if many > 1:
                note(finding.misnamed, f"{key} under {many} ids")
        doubled = [key for key, many in times.items() for _ in range(many - 1)]
        if len(doubled) > len(finding.kills):
            note(finding.extra, f"{len(doubled)} doubled by {len(finding.kills)} kills")
        if truth.changes:
            note(finding.clobbered, f"{len(truth.changes)} rows")

    def changed(self, world: World, truth: Truth) -> Iterable[str]:
        """Each video that a message is out about; how many it may be is judged above."""
        del world, truth
        return {each.video for each in self.broker.see_all()}

    def asked_for(self, world: World, truth: Truth) -> Callable[[str], int]:
        del world, truth
        return lambda key: 0


@contextmanager
def open_with_redis(make: Callable[[RedisServer], Stage], _: Path) -> Iterator[list[Stage]]:
    """A Redis of the stage's own, which keeps nothing."""
    with tempfile.TemporaryDirectory(prefix="chaos-redis") as folder:
        server = RedisServer(find_redis(), Path(folder))
        server.start()
        try:
            yield [make(server)]
        finally:
            server.kill()
