"""A whole run of messages in one process, with real brokers: the five ways in which people have queues."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr

from cli.queue_table import QueueTable
from cli.reprocess_flags import ReprocessFlags
from cli.sending import make_sending
from cli.settings import Limits, Settings
from jobs.engine.run import Run
from jobs.engine.verdict import Verdict
from jobs.reprocess_videos import JOB
from queries.dsn import DsnRoad
from queries.road import Road
from tests.servers.bench import Memory
from tests.servers.postgres import Database
from tests.servers.shell import ROOT, Shell, bare_environment

Kind = Literal["dramatiq-redis", "dramatiq-rabbitmq", "celery-redis", "celery-classic", "celery-quorum"]
KINDS: tuple[Kind, ...] = ("dramatiq-redis", "dramatiq-rabbitmq", "celery-redis", "celery-classic", "celery-quorum")
OWNERS = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(3)]
TASK = "process_video"


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as it lies in the queue: its id, and the video that it names."""

    id: str
    video: str


@dataclass(frozen=True, slots=True)
class Broker:
    """One queue of one kind. `declare` does what a worker does at its start."""

    kind: Kind
    url: str
    queue: str

    @property
    def library(self) -> str:
        return self.kind.partition("-")[0]

    @property
    def on_redis(self) -> bool:
        return self.kind.endswith("redis")

    def at(self, port: int) -> Broker:
        """The same behind a proxy."""
        scheme, _, rest = self.url.partition("://")
        before, _, after = rest.rpartition(":")
        return replace(self, url=f"{scheme}://{before}:{port}/{after.partition('/')[2]}")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])

    def declare(self, **arguments: Any) -> None:
        """On Redis a queue is there as soon as something has used it; nothing is to be done."""
        if self.on_redis:
            return
        import pika  # noqa: PLC0415 - an extra

        own: dict[Kind, dict[str, Any]] = {
            "dramatiq-rabbitmq": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{self.queue}.XQ"},
            "celery-quorum": {"x-queue-type": "quorum"},
        }
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            declared = {**own.get(self.kind, {}), **arguments}
            connection.channel().queue_declare(self.queue, durable=True, arguments=declared)

    def take_all(self) -> list[Sent]:
        """Everything that waits, in order, taken out and acknowledged."""
        return [self._read(body, headers) for body, headers in (self._from_redis() if self.on_redis else self._get())]

    def see_all(self) -> list[Sent]:
        """The same, left where it is; of Dramatiq on Redis."""
        return [self._read(body, headers) for body, headers in self._from_redis(leave=True)]

    def _get(self) -> list[tuple[bytes, dict[str, Any]]]:
        import pika  # noqa: PLC0415 - an extra

        found = []
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            channel = connection.channel()
            while (got := channel.basic_get(self.queue, auto_ack=True))[0] is not None:
                found.append((got[2], got[1].headers or {}))
        return found

    def _from_redis(self, *, leave: bool = False) -> list[tuple[bytes, dict[str, Any]]]:
        import redis  # noqa: PLC0415 - an extra

        # In one transaction: a message that came between the look and the removal would be lost by us.
        queue = f"dramatiq:{self.queue}" if self.library == "dramatiq" else self.queue
        at_once: Any = redis.Redis.from_url(self.url).pipeline(transaction=True)
        at_once.lrange(queue, 0, -1).hgetall(f"{queue}.msgs")
        if not leave:
            at_once.delete(queue, f"{queue}.msgs")
        waiting, bodies, *_ = at_once.execute()
        if self.library == "dramatiq":
            return [(bodies[id_], {}) for id_ in waiting]
        whole = [json.loads(each) for each in reversed(waiting)]
        return [(each["body"].encode(), each["headers"]) for each in whole]

    def _read(self, body: bytes, headers: dict[str, Any]) -> Sent:
        if self.library == "dramatiq":
            frame = json.loads(body)
            return Sent(frame["message_id"], frame["args"][0])
        return Sent(headers["id"], json.loads(headers["argsrepr"].replace("'", '"'))[0])


@dataclass
class Spectator(Memory):
    """A view that remembers."""

    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    def finish(self, verdict: Verdict) -> None:
        """Nothing is shown."""

    def dismiss(self) -> None:
        """There is no question here."""

    def abandon(self) -> None:
        """There is nothing to restore."""


@dataclass
class MessageBench:
    database: Database
    state_dir: Path
    view: Spectator = field(default_factory=Spectator)
    running: Run | None = None

    async def fill(self, rows: int, *, status: str = "READY", rich: bool | None = None) -> list[str]:
        """Videos of three owners in turn; their ids in the order of the key."""
        found = await self.database.run(
            "insert into videos (owner_id, storage_path, status, has_rich_semantics) select "
            "('00000000-0000-0000-0000-00000000000' || n %% 3)::uuid, 's3/' || n, %s::video_status, %s "
            "from generate_series(1, %s) n returning id::text",
            [status, rich, rows],
        )
        return sorted(row[0] for row in found)

    def settings(self, broker: Broker, **more: Any) -> Settings:
        table = QueueTable(library=broker.library, name=broker.queue, task=TASK, **more)  # type: ignore[arg-type]
        return Settings(
            database_url=SecretStr(self.database.dsn),
            broker_url=SecretStr(broker.url),
            queue=table,
            state_dir=self.state_dir,
            limits=Limits(max_outage=20.0, db_load=1.0),
        )

    async def send(
        self, broker: Broker, *, road: Road | None = None, settings: Settings | None = None, **flags: Any
    ) -> Verdict:
        """What the command does, without the command line; the queue is meant to be there."""
        road = road or DsnRoad(self.database.dsn)
        wanted = ReprocessFlags(**{"yes": True, "create_queue": broker.on_redis, **flags})
        settings = settings or self.settings(broker)
        try:
            work = await make_sending(JOB.name, wanted, "catchup reprocess-videos", settings, self.view, road)
            try:
                self.running = Run(work)
                return await self.running.go()
            finally:
                await work.service.close()
        finally:
            await road.close()

    async def pending(self) -> list[str]:
        rows = await self.database.run(
            "select id::text from videos where status = 'READY' and has_rich_semantics is not true"
        )
        return sorted(row[0] for row in rows)


@pytest.fixture
async def message_bench(database: Database, tmp_path: Path) -> MessageBench:
    """The schema of DOMAIN.md (5), migrated, with no rows yet."""
    await database.load("scenes.sql")
    await database.migrate(JOB.targets)
    return MessageBench(database, tmp_path / "state")


@pytest.fixture(params=KINDS)
def any_broker(request: pytest.FixtureRequest) -> Broker:
    """Each of the five in turn; its queue is declared where there is such a thing."""
    return open_broker(request, request.param)


def open_broker(request: pytest.FixtureRequest, kind: Kind) -> Broker:
    name = f"q{uuid.uuid4().hex[:12]}"
    server = request.getfixturevalue("redis_server" if kind.endswith("redis") else "rabbit_server")
    broker = Broker(kind, server.url, name)
    broker.declare()
    return broker


@pytest.fixture
def redis_broker(request: pytest.FixtureRequest) -> Broker:
    """The quick one: Dramatiq on Redis."""
    return open_broker(request, "dramatiq-redis")


@pytest.fixture
def message_shell(shell: Shell, message_bench: MessageBench, redis_broker: Broker) -> Shell:
    """The real command line with this database and this queue."""
    shell.env |= {
        "DATABASE_URL": message_bench.database.dsn,
        "BROKER_URL": redis_broker.url,
        "CATCHUP_STATE_DIR": str(message_bench.state_dir),
    }
    write_queue(shell, redis_broker)
    return shell


def write_queue(shell: Shell, broker: Broker) -> None:
    lines = ("[queue]", f'library = "{broker.library}"', f'name = "{broker.queue}"', f'task = "{TASK}"', "")
    (shell.directory / "catchup.toml").write_text("\n".join(lines))


@asynccontextmanager
async def running_worker(broker: Broker, folder: Path, **more: str) -> AsyncIterator[Path]:
    """The library's own worker program with an unmodified worker; yields the file of what it received."""
    received = folder / "received"
    received.touch()
    env = {
        **bare_environment(folder),
        "BROKER_URL": broker.url,
        "QUEUE": broker.queue,
        "RECEIVED": str(received),
        **more,
    }
    env["PATH"], env["PYTHONPATH"] = os.environ["PATH"], str(ROOT)
    if broker.kind == "celery-quorum":
        env["QUORUM"] = "1"
    if broker.library == "dramatiq":
        words = ["dramatiq", "tests.servers.workers.with_dramatiq", "--processes", "1", "--threads", "2"]
    else:
        app = "tests.servers.workers.with_celery"
        words = [
            "celery",
            "-A",
            app,
            "worker",
            "-P",
            "solo",
            "-Q",
            broker.queue,
            "--without-gossip",
            "--without-mingle",
        ]
    with (folder / "worker.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *words, cwd=ROOT, env=env, stdout=log, stderr=log
        )
    try:
        yield received
    finally:
        child.terminate()
        try:
            await asyncio.wait_for(child.wait(), 10)
        except TimeoutError:
            child.kill()
            await child.wait()


async def wait_for_lines(file: Path, lines: int, seconds: float = 60) -> list[str]:
    async with asyncio.timeout(seconds):
        while len(found := _read(file).split()) < lines:
            await asyncio.sleep(0.05)  # another program's file
    return found


def _read(file: Path) -> str:
    return file.read_text()
