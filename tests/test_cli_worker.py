"""catchup worker as a process, at real brokers: every kind of queue, stopped and killed with a message in hand."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobs.reprocess_videos import JOB
from tests.servers.bench import KEY
from tests.servers.message_bench import KINDS, Broker, MessageBench, open_broker, write_queue
from tests.servers.rich_bench import TARGETS, RichBench, video_id
from tests.servers.shell import Shell
from tests.servers.tcp_proxy import StartTcpProxy

REDELIVERED_S = 2
"""At Redis. A broken connection to RabbitMQ gives the message back at once."""


@dataclass
class Workers:
    rich: RichBench
    shell: Shell

    async def send(self, broker: Broker, videos: int, scenes: int) -> None:
        await self.rich.database.migrate([*TARGETS, *JOB.targets])
        await self.rich.fill(videos, scenes)
        write_queue(self.shell, broker)
        self.shell.env["BROKER_URL"] = broker.url
        verdict = await MessageBench(self.rich.database, self.rich.state_dir).send(broker)
        assert verdict.books.wrote == videos, verdict.headline

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await self.shell.start("worker", "--json", "--db-load", "100%", *words)

    async def finish(self, videos: int) -> dict[str, Any]:
        child = await self.start("--max-videos", str(videos))
        out, err = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode == 0, err.decode()
        return dict(json.loads(out.decode().splitlines()[-1]))

    async def wait_for_calls(self, calls: int) -> None:
        async with asyncio.timeout(40):
            while self.rich.fake.world.paid.total() < calls:
                await asyncio.sleep(0.02)  # another process


@pytest.fixture
def workers(rich: RichBench, shell: Shell) -> Workers:
    shell.env |= {
        "DATABASE_URL": rich.database.dsn,
        "OPENAI_BASE_URL": rich.fake.url,
        "OPENAI_API_KEY": KEY,
        "CATCHUP_STATE_DIR": str(rich.state_dir),
    }
    return Workers(rich, shell)


async def test_a_worker_takes_what_was_sent_to_any_kind_of_queue(workers: Workers, any_broker: Broker) -> None:
    """Each video once, and nothing is left in the queue."""
    await workers.send(any_broker, 3, 2)
    verdict = await workers.finish(3)
    assert (verdict["exit"], verdict["messages"]) == (0, 3)
    assert await workers.rich.rich() == [1, 2, 3]
    assert set(workers.rich.fake.world.paid.values()) == {1}
    assert any_broker.take_all() == []
    states = await workers.rich.database.run("select distinct status::text from videos")
    assert states == [("READY",)]


async def test_a_stopped_worker_gives_back_the_message_in_hand(workers: Workers, any_broker: Broker) -> None:
    """SIGTERM: exit 143 within the grace; another worker goes on, and nothing is paid twice."""
    await workers.send(any_broker, 2, 6)
    workers.rich.fake.configure(latency=0.3)
    child = await workers.start("--concurrency", "1")
    await workers.wait_for_calls(2)
    child.send_signal(signal.SIGTERM)
    await asyncio.wait_for(child.communicate(), 20)
    assert child.returncode == 143
    workers.rich.fake.configure(latency=0.0)
    await workers.finish(2)
    assert await workers.rich.rich() == [1, 2]
    assert set(workers.rich.fake.world.paid.values()) == {1}


async def test_a_worker_stopped_while_the_database_is_away_keeps_no_message(
    workers: Workers, redis_broker: Broker, start_tcp_proxy: StartTcpProxy
) -> None:
    """SIGTERM does not wait for the outage to end: the message is back in the queue, and in no dead-letter queue."""
    await workers.send(redis_broker, 1, 6)
    parts = urlsplit(workers.rich.database.dsn)
    proxy = start_tcp_proxy(int(parts.port or 0), b"never sent")
    workers.shell.env["DATABASE_URL"] = parts._replace(netloc=f"postgres@127.0.0.1:{proxy.port}").geturl()
    workers.rich.fake.configure(latency=0.3)
    child = await workers.start("--concurrency", "1")
    await workers.wait_for_calls(2)
    proxy.cut(refuse=True)
    child.send_signal(signal.SIGTERM)
    out, err = await asyncio.wait_for(child.communicate(), 50)
    assert child.returncode == 143, out.decode() + err.decode()
    assert [sent.video for sent in redis_broker.take_all()] == [video_id(1)]


@pytest.mark.parametrize("kind", KINDS)
async def test_f47_a_worker_killed_with_a_message_in_hand_loses_nothing(
    workers: Workers, kind: Any, request: pytest.FixtureRequest
) -> None:
    """The broker delivers it again; paid twice is at most what was in flight."""
    broker = open_broker(request, kind)
    await workers.send(broker, 2, 6)
    with (workers.shell.directory / "catchup.toml").open("a") as file:
        file.write(f'redelivered_after = "{REDELIVERED_S}s"\n')
    workers.rich.fake.configure(latency=0.3)
    child = await workers.start()
    await workers.wait_for_calls(2)
    child.kill()
    await child.communicate()
    if broker.on_redis:
        await asyncio.sleep(REDELIVERED_S)  # the libraries compare the wall clock, in another process
    workers.rich.fake.configure(latency=0.0)
    await workers.finish(2)
    assert await workers.rich.rich() == [1, 2]
    assert await workers.rich.undescribed() == 0
    twice = sum(times - 1 for times in workers.rich.fake.world.paid.values())
    assert twice <= workers.rich.fake.world.max_open <= 6


async def test_a_message_that_names_no_video_is_refused_before_any_is_taken(
    workers: Workers, redis_broker: Broker
) -> None:
    """Which argument is the video's id is configuration, and half of it is none."""
    write_queue(workers.shell, redis_broker)
    with (workers.shell.directory / "catchup.toml").open("a") as file:
        file.write('args = ["{owner_id}"]\n')
    ended = await workers.shell.run("worker", BROKER_URL=redis_broker.url)
    assert ended.code == 10
    assert "no argument is {id}" in ended.err


async def test_without_a_broker_a_worker_says_what_to_set(workers: Workers) -> None:
    """Exit 10, both ways on."""
    ended = await workers.shell.run("worker")
    assert ended.code == 10
    assert "BROKER_URL" in ended.err
