"""python -m tests.chaos.cuts: the connection to the broker is cut at the n-th message, before or after its arrival."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import uuid
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from jobs.reprocess_videos import JOB
from tests.servers.message_bench import KINDS, TASK, Broker, Kind, MessageBench
from tests.servers.postgres import Database, running_server
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
        """A cut may double the one message that was in doubt, under its own id; a message that never left is not."""
        most = 1 if self.when == "after" else 0
        return self.lost == 0 and self.doubled <= most and self.other_ids == 0 and self.exit == 0


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
    found = broker.take_all()
    videos = Counter(sent.video for sent in found)
    ids = {(sent.id, sent.video) for sent in found}
    lost = len(set(wanted) - videos.keys()) + len(videos.keys() - set(wanted))
    doubled = sum(videos.values()) - len(videos)
    return Cut(number, when, lost, doubled, len(ids) - len(videos), int(verdict.exit), proxy.seen)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, action="append", help="one of them only; may be repeated")
    parser.add_argument("--step", type=int, default=1, help="each so-many-th message only")
    return parser.parse_args()


async def judge(kind: Kind, url: str, server: object, step: int, folder: Path) -> list[Cut]:
    database = Database(server, f"cuts_{kind.replace('-', '_')}")  # type: ignore[arg-type]  # as postgres.py makes it
    database.server.run(f"create database {database.name}")
    await database.load("scenes.sql")
    await database.migrate(JOB.targets)
    bench = MessageBench(database, folder / kind)
    await bench.fill(VIDEOS)
    broker = Broker(kind, url, f"q{uuid.uuid4().hex[:12]}")
    broker.declare()
    cuts = []
    for number in range(1, VIDEOS + 1, step):
        for when in ("before", "after"):
            cut = await cut_at(bench, broker, number, when)  # type: ignore[arg-type]  # the two words of When
            cuts.append(cut)
            if not cut.is_right:
                print(f"BROKEN  {kind}: {cut}", flush=True)
    return cuts


def main() -> int:
    options = read_options()
    kinds = options.kind or KINDS
    broken = 0
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cuts")))
        urls = {}
        if any(kind.endswith("redis") for kind in kinds):
            (folder / "redis").mkdir()
            redis = RedisServer(find_redis(), folder / "redis")
            redis.start()
            stack.callback(redis.kill)
            urls["redis"] = redis.url
        if any(not kind.endswith("redis") for kind in kinds):
            urls["rabbit"] = stack.enter_context(running_rabbit()).url
        for kind in kinds:
            url = urls["redis" if kind.endswith("redis") else "rabbit"]
            cuts = asyncio.run(judge(kind, url, server, options.step, folder))
            wrong = [cut for cut in cuts if not cut.is_right]
            broken += len(wrong)
            print(
                f"{kind}: {len(cuts)} cuts at messages 1 to {VIDEOS}, {sum(cut.lost for cut in cuts)} lost, "
                f"{sum(cut.doubled for cut in cuts)} doubled (most at one cut: {max(cut.doubled for cut in cuts)}), "
                f"{sum(cut.other_ids for cut in cuts)} with another id, {len(wrong)} wrong",
                flush=True,
            )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
