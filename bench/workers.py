"""How much faster four `catchup worker` processes are than one, against a provider that takes its time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.world import CATCHUP, World
from jobs.reprocess_videos import JOB
from tests.servers.bench import KEY
from tests.servers.fake_process import run_fake_openai
from tests.servers.message_bench import Broker, MessageBench
from tests.servers.redis import RedisServer, find_redis
from tests.servers.rich_bench import SCENES_SQL, TARGETS, VIDEOS_SQL

SCENES = 6
LATENCY_S = 1.0


def measure(world: World, *, videos: int) -> dict[str, Any]:
    """The same number of videos for each; the time begins when the first one is done, for all have started then."""
    pace: dict[int, float] = {}
    twice = 0
    with tempfile.TemporaryDirectory(prefix="catchup-bench-") as folder:
        server = RedisServer(find_redis(), Path(folder))
        server.start()
        try:
            with run_fake_openai(latency=LATENCY_S, jitter=0.2) as fake:
                for many in (1, 4):
                    fake.reset()
                    pace[many] = _work(world, server, fake.url, many, videos)
                    twice += fake.stats()["paid_twice"]
        finally:
            server.kill()
    return {
        "videos": videos,
        "scenes": SCENES,
        "one_per_min": round(60 * pace[1], 1),
        "four_per_min": round(60 * pace[4], 1),
        "times": round(pace[4] / pace[1], 2),
        "paid_twice": twice,
    }


def _work(world: World, server: RedisServer, url: str, many: int, videos: int) -> float:
    """Videos a second."""
    broker = Broker("dramatiq-redis", server.url, f"bench{many}")
    asyncio.run(_fill(world, broker, videos))
    folder = Path(tempfile.mkdtemp(dir=world.folder))
    (folder / "catchup.toml").write_text(f'[queue]\nlibrary = "dramatiq"\nname = "{broker.queue}"\n')
    env = {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "PATH": os.environ["PATH"],
        "DATABASE_URL": world.database.dsn,
        "CATCHUP_STATE_DIR": str(folder / "state"),
        "BROKER_URL": broker.url,
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": url,
    }
    command = [*CATCHUP, "worker", "--quiet"]
    with (folder / "log").open("w") as log:
        crew = [subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log) for _ in range(many)]
        try:
            return asyncio.run(_watch(world, videos))
        finally:
            for child in crew:
                child.send_signal(signal.SIGTERM)
            for child in crew:
                child.wait(30)


async def _fill(world: World, broker: Broker, videos: int) -> None:
    database = world.database
    await database.run("drop schema if exists catchup cascade; drop table if exists video_scenes, videos cascade")
    await database.run("drop type if exists video_status; drop function if exists touch_updated_at")
    await database.load("scenes.sql")
    await database.migrate([*TARGETS, *JOB.targets])
    await database.run(VIDEOS_SQL, ["READY", 1, videos])
    await database.run(SCENES_SQL, [1, videos, SCENES - 1])
    await MessageBench(database, Path(tempfile.mkdtemp(dir=world.folder))).send(broker)


async def _watch(world: World, videos: int) -> float:
    first: tuple[float, int] | None = None
    while True:
        rows = await world.database.run("select count(*) from videos where has_rich_semantics and status = 'READY'")
        done = int(rows[0][0])
        if first is None and done:
            first = time.monotonic(), done
        if first is not None and done == videos:
            return (videos - first[1]) / (time.monotonic() - first[0])
        await asyncio.sleep(0.05)
