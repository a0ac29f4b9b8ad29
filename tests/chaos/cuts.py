"""python -m tests.chaos.cuts: the connection to the broker is cut at the n-th message, before or after its arrival."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from jobs.reprocess_videos import JOB
from tests.servers.message_bench import KINDS, TASK, Broker, Kind, MessageBench
from tests.servers.postgres import Database, Server, running_server
from tests.servers.rabbitmq import running_rabbit
from tests.servers.redis import RedisServer, find_redis
from tests.servers.tcp_proxy import TcpProxy, When

VIDEOS = 200


@dataclass(frozen=True, slots=True)
class Cut:
    """What lay in the queue after a run whose connection was cut: videos without a message, and messages too many."""

    number: int
    when: When
    lost: int
    doubled: int
    other_ids: int
    exit: int
    attempts: int

    @property
    def is_right(self) -> bool:
        """A cut may double the one message that was in doubt, under its own id; a message that never left is not.

        One more attempt than messages says that the cut fell at all.
        """
        most = 1 if self.when == "after" else 0
        is_cut = self.attempts > VIDEOS
        return is_cut and self.lost == 0 and self.doubled <= most and self.other_ids == 0 and self.exit == 0


async def cut_at(bench: MessageBench, broker: Broker, number: int, when: When) -> Cut:
    """One whole run over what is pending; the ledger forgets first what it sent before."""
    await bench.database.run("truncate catchup.provenance, catchup.verdicts")
    wanted = await bench.pending()
    proxy = TcpProxy(("127.0.0.1", broker.port), TASK.encode(), {number: when})
    proxy.start()
    try:
        verdict = await bench.send(broker.at(proxy.port))
    finally:
        proxy.stop()
    found = await asyncio.to_thread(broker.take_all)
    videos = Counter(sent.video for sent in found)
    ids = {(sent.id, sent.video) for sent in found}
    lost = len(set(wanted) - videos.keys()) + len(videos.keys() - set(wanted))
    doubled = sum(videos.values()) - len(videos)
    return Cut(number, when, lost, doubled, len(ids) - len(videos), int(verdict.exit), proxy.seen)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, action="append", help="one of them only; may be repeated")
    parser.add_argument("--step", type=int, default=1, help="each so-many-th message only")
    parser.add_argument("--first", type=int, default=1, help="from this message on, for a run in slices")
    parser.add_argument("--last", type=int, default=VIDEOS, help="up to this message")
    return parser.parse_args()


async def judge(kind: Kind, url: str, server: Server, numbers: range, folder: Path) -> list[Cut]:
    database = Database(server, f"cuts_{kind.replace('-', '_')}")
    database.server.run(f"create database {database.name}")
    await database.load("scenes.sql")
    await database.migrate(JOB.targets)
    bench = MessageBench(database, folder / kind)
    await bench.fill(VIDEOS)
    broker = Broker(kind, url, f"q{uuid.uuid4().hex[:12]}")
    broker.declare()
    cuts = []
    for number in numbers:
        for when in ("before", "after"):
            cut = await cut_at(bench, broker, number, when)  # type: ignore[arg-type]  # the two words of When
            cuts.append(cut)
            if not cut.is_right:
                print(f"BROKEN  {kind}: {cut}", flush=True)
    _say(kind, cuts)
    return cuts


def _say(kind: Kind, cuts: list[Cut]) -> None:
    print(
        f"{kind}: {len(cuts)} cuts at messages {cuts[0].number} to {cuts[-1].number} of {VIDEOS}, "
        f"{sum(cut.lost for cut in cuts)} lost, {sum(cut.doubled for cut in cuts)} doubled "
        f"(most at one cut: {max(cut.doubled for cut in cuts)}), {sum(cut.other_ids for cut in cuts)} with another id, "
        f"{sum(not cut.is_right for cut in cuts)} wrong",
        flush=True,
    )


async def judge_all(
    kinds: Sequence[Kind], urls: Mapping[str, str], server: Server, numbers: range, folder: Path
) -> list[Cut]:
    """All kinds side by side: most of a cut is waiting until it is tried again."""
    found = await asyncio.gather(*(judge(kind, urls[_program(kind)], server, numbers, folder) for kind in kinds))
    return [cut for cuts in found for cut in cuts]


def _program(kind: Kind) -> str:
    return "redis" if kind.endswith("redis") else "rabbit"


def main() -> int:
    options = read_options()
    kinds = options.kind or KINDS
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cuts")))
        urls = {}
        if "redis" in map(_program, kinds):
            (folder / "redis").mkdir()
            redis = RedisServer(find_redis(), folder / "redis")
            redis.start()
            stack.callback(redis.kill)
            urls["redis"] = redis.url
        if "rabbit" in map(_program, kinds):
            urls["rabbit"] = stack.enter_context(running_rabbit()).url
        numbers = range(options.first, options.last + 1, options.step)
        cuts = asyncio.run(judge_all(kinds, urls, server, numbers, folder))
    return 0 if all(cut.is_right for cut in cuts) else 1


if __name__ == "__main__":
    sys.exit(main())
