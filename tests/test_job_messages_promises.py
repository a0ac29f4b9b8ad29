"""reprocess-videos: what is promised of the messages, whatever the network, the broker and the workers do."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from jobs.engine.verdict import Exit
from queries.dramatiq_queue import open_dramatiq
from queries.errors import Misconfigured
from queries.messages import Message, PublishRequest, Seen
from queries.publishing import Publisher
from queries.sent_record import SentRecord
from tests.chaos.cuts import VIDEOS, cut_at
from tests.servers.message_bench import OWNERS, Broker, MessageBench, open_broker
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.servers.tcp_proxy import StartTcpProxy

TASK = b"process_video"


# --- which videos, and that each gets one message ---------------------------------------------------------


async def test_a_second_run_sends_nothing_while_the_first_ones_wait(
    message_bench: MessageBench, redis_broker: Broker
) -> None:
    """The same video is not enqueued while its message still waits: its state says so, not the queue."""
    await message_bench.fill(30)
    assert (await message_bench.send(redis_broker)).books.wrote == 30
    assert len(redis_broker.take_all()) == 30  # an emptied queue is no proof that anything was done
    again = await message_bench.send(redis_broker)
    assert (again.exit, again.books.selected, again.calls) == (Exit.DONE, 0, 0)
    assert redis_broker.take_all() == []


async def test_a_changed_state_makes_a_video_a_candidate_again(
    message_bench: MessageBench, redis_broker: Broker
) -> None:
    """Whoever has been taken, failed and was set to READY with another flag is sent once more, under another id."""
    ids = await message_bench.fill(3)
    await message_bench.send(redis_broker)
    first = {sent.video: sent.id for sent in redis_broker.take_all()}
    await message_bench.database.run("update videos set has_rich_semantics = false where id = %s", [ids[1]])
    assert (await message_bench.send(redis_broker)).books.wrote == 1
    [again] = redis_broker.take_all()
    assert again.video == ids[1]
    assert again.id not in first.values()


async def test_resend_after_counts_from_the_end_of_the_run_that_sent(
    message_bench: MessageBench, redis_broker: Broker
) -> None:
    """--resend-after sends what waits longer than that, under an id that no worker has seen; no other."""
    await message_bench.fill(4)
    await message_bench.send(redis_broker)
    first = {sent.id for sent in redis_broker.take_all()}
    assert (await message_bench.send(redis_broker, resend_after=3600.0)).books.wrote == 0
    await message_bench.database.run("update catchup.runs set updated_at = now() - interval '2 hours'")
    assert (await message_bench.send(redis_broker, resend_after=3600.0)).books.wrote == 4
    assert not first & {sent.id for sent in redis_broker.take_all()}


async def test_an_id_follows_from_the_video_and_its_state(message_bench: MessageBench, redis_broker: Broker) -> None:
    """What the ledger never heard of is sent under the same id by any later run, from any machine."""
    await message_bench.fill(5)
    await message_bench.send(redis_broker)
    first = {sent.video: sent.id for sent in redis_broker.take_all()}
    await message_bench.database.run("truncate catchup.provenance")
    message_bench.state_dir = message_bench.state_dir / "elsewhere"
    await message_bench.send(redis_broker)
    assert {sent.video: sent.id for sent in redis_broker.take_all()} == first


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        pytest.param({"owner_id": OWNERS[1]}, 10, id="one owner"),
        pytest.param({"limit": 7}, 7, id="limit"),
        pytest.param({"status": "FAILED"}, 4, id="another status"),
        pytest.param({}, 30, id="all that are READY"),
    ],
)
async def test_selection(
    message_bench: MessageBench, redis_broker: Broker, flags: dict[str, object], expected: int
) -> None:
    """Exactly what was asked for is sent."""
    await message_bench.fill(30)
    await message_bench.fill(4, status="FAILED")
    await message_bench.fill(4, rich=True)
    verdict = await message_bench.send(redis_broker, **flags)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, expected)
    assert len({sent.video for sent in redis_broker.take_all()}) == expected


async def test_a_worker_may_be_faster_than_our_books(message_bench: MessageBench, redis_broker: Broker) -> None:
    """What its worker has taken before we write it down counts as sent; what was taken before that is not sent."""
    await message_bench.fill(20)
    await message_bench.database.run(
        "create function eager() returns trigger language plpgsql as $$ begin "
        "update public.videos set status = 'PROCESSING'; return null; end $$; "
        "create trigger eager after insert on catchup.writes for each statement execute function eager()"
    )
    verdict = await message_bench.send(redis_broker)
    assert (verdict.exit, verdict.books.wrote, verdict.books.changed) == (Exit.SOME_NAMED, 1, 19)
    assert len(redis_broker.take_all()) == 1


async def test_a_dry_run_only_reads(message_bench: MessageBench, redis_broker: Broker) -> None:
    """It says how many are sent for whom, and leaves queue, ledger and disk as they were."""
    await message_bench.fill(30)
    verdict = await message_bench.send(redis_broker, dry_run=True)
    assert (verdict.exit, verdict.books.selected) == (Exit.DONE, 30)
    [plan] = message_bench.view.plans
    assert plan.facts["by_owner"] == dict.fromkeys(OWNERS, 10)
    assert plan.facts["by_status"] == {"READY": 30}
    assert redis_broker.take_all() == []
    assert not message_bench.state_dir.exists()
    assert (await message_bench.database.run("select count(*) from catchup.runs"))[0][0] == 0


# --- queues that are not there ----------------------------------------------------------------------------


async def test_a_queue_that_does_not_exist_is_refused(message_bench: MessageBench, any_broker: Broker) -> None:
    """A typo in the queue's name: exit 10, nothing is claimed, nothing is made."""
    await message_bench.fill(5)
    typo = Broker(any_broker.kind, any_broker.url, f"{any_broker.queue}x")
    verdict = await message_bench.send(typo, create_queue=False)
    assert (verdict.exit, verdict.calls, verdict.books.wrote) == (Exit.REFUSED, 0, 0)
    assert typo.queue in verdict.headline
    assert (await message_bench.send(any_broker)).books.wrote == 5


async def test_a_queue_that_vanishes_during_the_run_stops_it(
    message_bench: MessageBench, request: pytest.FixtureRequest
) -> None:
    """The broker returns what no queue takes: the run ends with exit 10, and claims what was confirmed."""
    import pika  # noqa: PLC0415 - an extra

    broker = open_broker(request, "celery-classic")
    await message_bench.fill(300)
    passed = threading.Event()

    def delete() -> None:
        passed.wait(30)
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            connection.channel().queue_delete(broker.queue)

    threading.Thread(target=delete, daemon=True).start()
    asyncio.get_running_loop().call_later(1.0, passed.set)
    verdict = await message_bench.send(broker, delay=0.05)
    assert verdict.exit == Exit.REFUSED
    assert 0 < verdict.books.wrote < 300


# --- connections and brokers that end ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 77, 101, VIDEOS])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cut_connection_loses_none_and_doubles_at_most_one(
    message_bench: MessageBench, redis_broker: Broker, number: int, when: Literal["before", "after"]
) -> None:
    """The connection ends at the n-th message: one message at most is there twice, with one id (all: make cuts)."""
    await message_bench.fill(VIDEOS)
    cut = await cut_at(message_bench, redis_broker, number, when)
    assert cut.is_right, cut
    assert cut.doubled == (1 if when == "after" else 0)


async def test_a_cut_is_harmless_on_every_kind_of_queue(message_bench: MessageBench, any_broker: Broker) -> None:
    """The answer to the 57th message is lost: it is there twice, with one id, and no other is."""
    await message_bench.fill(VIDEOS)
    cut = await cut_at(message_bench, any_broker, 57, "after")
    assert cut.is_right, cut


async def test_a_killed_redis_that_syncs_always_loses_nothing(
    message_bench: MessageBench, durable_redis: RedisServer
) -> None:
    """SIGKILL to the broker in the middle: what it had confirmed is there when it is back, and the rest follows."""
    await message_bench.fill(120)
    broker = Broker("dramatiq-redis", durable_redis.url, "durable")
    sending = asyncio.create_task(message_bench.send(broker, delay=0.005))
    await _until_sent(message_bench, 40)
    await asyncio.to_thread(durable_redis.kill)
    await asyncio.to_thread(durable_redis.start)
    verdict = await sending
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 120)
    assert len({sent.video for sent in broker.take_all()}) == 120


async def test_a_killed_rabbitmq_loses_no_confirmed_message(
    message_bench: MessageBench, request: pytest.FixtureRequest, rabbit_server: RabbitServer
) -> None:
    """The same for a durable queue of RabbitMQ, whose node is killed and started again."""
    broker = open_broker(request, "dramatiq-rabbitmq")
    await message_bench.fill(120)
    settings = message_bench.settings(broker)
    patient = settings.model_copy(update={"limits": settings.limits.model_copy(update={"max_outage": 60.0})})
    sending = asyncio.create_task(message_bench.send(broker, delay=0.005, settings=patient))
    await _until_sent(message_bench, 40)
    await asyncio.to_thread(rabbit_server.kill)
    await asyncio.to_thread(rabbit_server.start)
    verdict = await sending
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 120)
    assert len({sent.video for sent in broker.take_all()}) == 120


async def test_a_broker_that_stays_away_ends_the_run_in_time(
    message_bench: MessageBench, redis_broker: Broker, start_tcp_proxy: StartTcpProxy
) -> None:
    """After --max-outage the run ends with exit 4; the same command sends the rest, and nothing twice."""
    await message_bench.fill(60)
    proxy = start_tcp_proxy(redis_broker.port, TASK)
    settings = message_bench.settings(redis_broker.at(proxy.port))
    short = settings.model_copy(update={"limits": settings.limits.model_copy(update={"max_outage": 0.5})})
    sending = asyncio.create_task(message_bench.send(redis_broker, delay=0.01, settings=short))
    await _until_sent(message_bench, 20)
    proxy.stop()
    verdict = await sending
    assert verdict.exit == Exit.STOPPED
    assert 0 < verdict.books.wrote < 60
    redis_broker_now = start_tcp_proxy(redis_broker.port, TASK)
    verdict = await message_bench.send(redis_broker.at(redis_broker_now.port))
    assert verdict.exit == Exit.REFUSED  # another address is another run
    assert (await message_bench.send(redis_broker, fresh=True)).exit == Exit.DONE
    found = redis_broker.take_all()
    assert len({sent.video for sent in found}) == 60
    assert len(found) - 60 <= 1


async def test_a_broker_that_is_not_there_at_the_start(message_bench: MessageBench, redis_broker: Broker) -> None:
    """Nothing is claimed of a broker that nobody reached: exit 4, and the password is in no word of it."""
    await message_bench.fill(3)
    nowhere = Broker("dramatiq-redis", "redis://someone:s3ntinel-pw@127.0.0.1:1/0", "q")
    settings = message_bench.settings(nowhere)
    short = settings.model_copy(update={"limits": settings.limits.model_copy(update={"max_outage": 0.2})})
    verdict = await message_bench.send(nowhere, settings=short)
    assert (verdict.exit, verdict.calls) == (Exit.STOPPED, 0)
    assert "s3ntinel" not in str(verdict.as_json())


async def test_a_request_that_was_given_up_half_way_is_remembered(redis_broker: Broker, tmp_path: Path) -> None:
    """A stop does not wait for a slow broker: what it had confirmed by then is in no journal, and not sent twice."""
    messages = tuple(Message(str(uuid.UUID(int=n)), (f"v{n}",)) for n in range(10))
    request = PublishRequest(messages, tuple(((f"v{n}",), "") for n in range(10)))
    third, goes_on = threading.Event(), threading.Event()
    reached: Counter[str] = Counter()

    def reach(point: str) -> None:
        reached[point] += 1
        if reached["mq.confirmed"] == 3 and not third.is_set():
            third.set()
            goes_on.wait(30)

    async def still(seen: Sequence[Seen]) -> frozenset[int]:
        return frozenset(range(len(seen)))

    def open_publisher() -> Publisher:
        queue = open_dramatiq(redis_broker.url, redis_broker.queue, TASK.decode(), "dramatiq")
        return Publisher(queue, SentRecord(tmp_path / "sent.ids"), still, reach)

    first = open_publisher()
    asking = asyncio.create_task(first.ask(request))
    await asyncio.to_thread(third.wait, 30)
    asking.cancel()
    closing = asyncio.create_task(first.close())
    await asyncio.sleep(0)
    goes_on.set()
    await closing
    assert len(redis_broker.see_all()) == 3
    second = open_publisher()
    assert len((await second.ask(request)).sent) == 10
    await second.close()
    assert sorted(sent.video for sent in redis_broker.take_all()) == [f"v{n}" for n in range(10)]


# --- pace -------------------------------------------------------------------------------------------------


async def test_no_more_wait_than_max_depth_allows(message_bench: MessageBench, redis_broker: Broker) -> None:
    """While more than N wait nothing is sent; as they are taken, the rest follows."""
    await message_bench.fill(60)
    sending = asyncio.create_task(message_bench.send(redis_broker, max_depth=10))
    taken: list[str] = []
    most = 0
    while not sending.done():
        waiting = await asyncio.to_thread(_depth, redis_broker)
        most = max(most, waiting)
        if waiting > 10:
            taken += [sent.video for sent in await asyncio.to_thread(redis_broker.take_all)]
        await asyncio.sleep(0.02)  # another program's queue
    taken += [sent.video for sent in redis_broker.take_all()]
    assert (await sending).books.wrote == 60
    assert sorted(taken) == await message_bench.pending()
    assert most <= 12  # what was allowed, and one small request


async def test_a_broker_that_is_away_while_its_depth_is_asked_for_is_waited_for(
    message_bench: MessageBench, redis_broker: Broker, start_tcp_proxy: StartTcpProxy
) -> None:
    """Most of a run with --max-depth is asking how many wait: a restart of the broker then is no end of the run."""
    await message_bench.fill(20)
    proxy = start_tcp_proxy(redis_broker.port, TASK)
    sending = asyncio.create_task(message_bench.send(redis_broker.at(proxy.port), max_depth=5))
    async with asyncio.timeout(30):
        while message_bench.view.last is None or "workers" not in message_bench.view.last.waiting_for:
            await asyncio.sleep(0.01)  # the run goes on beside us
        proxy.cut(refuse=True)
        while not sending.done() and "not reached" not in message_bench.view.last.waiting_for:
            await asyncio.sleep(0.01)
    proxy.refuse = False
    taken: list[str] = []
    while not sending.done():
        taken += [sent.video for sent in await asyncio.to_thread(redis_broker.take_all)]
        await asyncio.sleep(0.02)
    taken += [sent.video for sent in redis_broker.take_all()]
    verdict = await sending
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 20), verdict.headline
    assert sorted(taken) == await message_bench.pending()


def _depth(broker: Broker) -> int:
    import redis  # noqa: PLC0415 - an extra

    client = redis.Redis.from_url(broker.url)
    return int(client.llen(f"dramatiq:{broker.queue}"))  # type: ignore[arg-type]  # not awaitable here


async def _until_sent(bench: MessageBench, messages: int) -> None:
    """Counted by the run's own books, which another task moves."""
    async with asyncio.timeout(60):
        while bench.running is None or bench.running.books.selected < messages:
            await asyncio.sleep(0.01)  # the run goes on beside us


# --- what the operator must set ---------------------------------------------------------------------------


async def test_without_a_broker_both_ways_on_are_named(message_bench: MessageBench, redis_broker: Broker) -> None:
    """No broker and no --inline: exit 10, and the sentence says what to set and what to say instead."""
    settings = message_bench.settings(redis_broker).model_copy(update={"broker_url": None})
    with pytest.raises(Misconfigured) as refused:
        await message_bench.send(redis_broker, settings=settings)
    assert "BROKER_URL" in refused.value.fix
    assert "--inline" in refused.value.fix


async def test_a_library_that_is_not_installed(
    message_bench: MessageBench, redis_broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A missing extra is exit 10 with the line that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "dramatiq", None)
    with pytest.raises(Misconfigured) as refused:
        await message_bench.send(redis_broker)
    assert "pip install 'catchup[dramatiq]'" in refused.value.fix


async def test_a_quorum_queue_without_a_way_out_is_warned_of(
    message_bench: MessageBench, request: pytest.FixtureRequest
) -> None:
    """RabbitMQ 4 drops what is redelivered too often: said before anything is sent, unless there is somewhere to go."""
    await message_bench.fill(1)
    broker = open_broker(request, "celery-quorum")
    with_way_out = Broker(broker.kind, broker.url, f"{broker.queue}.safe")
    with_way_out.declare(**{"x-dead-letter-exchange": "dlx"})
    for each, expected in ((broker, True), (with_way_out, False), (open_broker(request, "celery-classic"), False)):
        message_bench.view.plans.clear()
        await message_bench.send(each, dry_run=True)
        [plan] = message_bench.view.plans
        assert any("dead-letter" in note for note in plan.notes) is expected, each.queue


def _configure(broker: Broker, **settings: str) -> None:
    import redis  # noqa: PLC0415 - an extra

    client: Any = redis.Redis.from_url(broker.url)
    for name, value in settings.items():
        client.config_set(name.replace("_", "-"), value)


@pytest.fixture
def tunable(redis_broker: Broker) -> Iterator[Broker]:
    """The session's Redis with whatever limits a test sets, and none afterwards."""
    yield redis_broker
    _configure(redis_broker, maxmemory="0", maxmemory_policy="noeviction")


async def test_a_redis_that_is_full_is_waited_for(
    message_bench: MessageBench, tunable: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers will empty it: the screen says why nothing moves, and then the rest is sent."""
    monkeypatch.setattr("queries.queue_errors._FULL_WAIT_S", 0.05)
    await message_bench.fill(5)
    _configure(tunable, maxmemory="1")
    sending = asyncio.create_task(message_bench.send(tunable))
    async with asyncio.timeout(30):
        while (last := message_bench.view.last) is None or "full" not in last.waiting_for:
            await asyncio.sleep(0.01)  # the run goes on beside us
    _configure(tunable, maxmemory="0")
    verdict = await sending
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 5)
    assert len(tunable.take_all()) == 5


@pytest.mark.parametrize("kind", ["dramatiq-redis", "celery-redis"])
async def test_a_redis_that_throws_away_keys_is_warned_of(
    message_bench: MessageBench, tunable: Broker, kind: Any, request: pytest.FixtureRequest
) -> None:
    """A cache is no broker: what it has confirmed may be gone, without a word, when it is full."""
    await message_bench.fill(1)
    broker = open_broker(request, kind)
    for policy, expected in (("allkeys-lru", True), ("volatile-lru", False)):
        _configure(tunable, maxmemory="100mb", maxmemory_policy=policy)
        message_bench.view.plans.clear()
        await message_bench.send(broker, dry_run=True)
        [plan] = message_bench.view.plans
        assert any("throws away" in note for note in plan.notes) is expected, plan.notes


async def test_a_delay_is_our_own_waiting_on_every_kind_of_queue(
    message_bench: MessageBench, any_broker: Broker
) -> None:
    """No ETA and no countdown is ever sent: a message that is there may be worked on at once (Q4, Q5)."""
    await message_bench.fill(3)
    verdict = await message_bench.send(any_broker, delay=0.2)
    assert verdict.seconds >= 0.4
    assert len(any_broker.take_all()) == 3
    assert verdict.calls == 3
