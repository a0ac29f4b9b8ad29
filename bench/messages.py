"""10,000 messages: the bare client library in a loop, and the command over as many videos, on the same broker."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.world import CATCHUP, World
from jobs.reprocess_videos import JOB
from tests.servers.message_bench import KINDS, TASK, Broker, Kind, MessageBench
from tests.servers.postgres import Database, running_server
from tests.servers.rabbitmq import running_rabbit
from tests.servers.redis import RedisServer, find_redis

# As their documentation shows: an actor's message for each, with confirms where the broker has them.
DRAMATIQ = """
import sys, time, dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.rabbitmq import RabbitmqBroker
url, queue, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
broker = RedisBroker(url=url) if url.startswith("redis") else RabbitmqBroker(url=url, confirm_delivery=True)
dramatiq.set_broker(broker)
process_video = dramatiq.actor(lambda id: None, actor_name="process_video", queue_name=queue)
process_video.send("00000000-0000-0000-0000-000000000000")
began = time.monotonic()
for n in range(rows):
    process_video.send(f"00000000-0000-0000-0000-{n:012d}")
print(time.monotonic() - began)
"""
CELERY = """
import sys, time
from celery import Celery
url, queue, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
app = Celery("bare", broker=url)
app.conf.broker_transport_options = {"confirm_publish": True} if url.startswith("amqp") else {}
from kombu import Queue
to = Queue(queue, no_declare=True)
app.send_task("process_video", ["00000000-0000-0000-0000-000000000000"], queue=to, declare=[])
began = time.monotonic()
for n in range(rows):
    app.send_task("process_video", [f"00000000-0000-0000-0000-{n:012d}"], queue=to, declare=[])
print(time.monotonic() - began)
"""


def measure(rows: int, say: Callable[[str, Mapping[str, Any]], None], kinds: tuple[Kind, ...] = KINDS) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        redis = RedisServer(find_redis(), folder)
        redis.start()
        stack.callback(redis.kill)
        rabbit = stack.enter_context(running_rabbit())
        for kind in kinds:
            broker = Broker(kind, (redis if kind.endswith("redis") else rabbit).url, f"q{uuid.uuid4().hex[:12]}")
            broker.declare()
            server.run(f"create database bench_{kind.replace('-', '_')}")
            database = Database(server, f"bench_{kind.replace('-', '_')}")
            say(f"messages, {kind}", _measure_kind(database, broker, rows, folder))


def _measure_kind(database: Database, broker: Broker, rows: int, folder: Path) -> dict[str, Any]:
    """The bare loop before and after, since others use this machine too."""
    bench = MessageBench(database, folder / broker.kind)
    asyncio.run(_fill(bench, rows))
    first = _run_bare(broker, rows)
    broker.take_all()
    lines = ("[queue]", f'library = "{broker.library}"', f'name = "{broker.queue}"', f'task = "{TASK}"', "")
    command = [*CATCHUP, "reprocess-videos", "--yes", "--json", "--create-queue"]
    finished = World(database, folder).run(command, {"BROKER_URL": broker.url}, "\n".join(lines))
    sent = len({each.id for each in broker.take_all()})
    again = _run_bare(broker, rows)
    bare = min(first, again)
    verdict = finished.verdict
    return {
        "rows": rows,
        "sent": sent,
        "bare_per_s": round(rows / bare),
        "ours_per_s": round(rows / verdict["seconds"]),
        "share": round(bare / verdict["seconds"], 2),
        "bare_s": [round(first, 2), round(again, 2)],
        "ours_s": round(verdict["seconds"], 2),
        "whole_command_s": round(finished.seconds, 2),
        "cpu_s": round(finished.cpu_s, 2),
    }


async def _fill(bench: MessageBench, rows: int) -> None:
    await bench.database.load("scenes.sql")
    await bench.database.migrate(JOB.targets)
    await bench.fill(rows)
    await bench.database.run("analyze")


def _run_bare(broker: Broker, rows: int) -> float:
    code = DRAMATIQ if broker.library == "dramatiq" else CELERY
    words = [sys.executable, "-c", code, broker.url, broker.queue, str(rows)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
