"""reprocess-videos under the faults of the matrix: process, disk, time, database. The broker's are in the promises."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import reprocess_videos
from jobs.engine import fault_points
from jobs.engine.verdict import Exit
from jobs.reprocess_videos import JOB, ReprocessVideos
from queries.dsn import DsnRoad
from queries.postgrest import PostgrestRoad
from queries.publishing import Publisher
from queries.road import Road
from tests.servers.fault_proxy import HTML, Fault, FaultProxy, StartFaultProxy
from tests.servers.impaired import Impaired, file_size_limit
from tests.servers.lite import StartPostgrest
from tests.servers.message_bench import Broker, MessageBench
from tests.servers.postgres import Database
from tests.servers.shell import Shell
from tests.servers.tcp_proxy import StartTcpProxy
from tests.test_job_summaries_texts import MEMORY_MOST_MB, SAY_PEAK, StaleRoad

WRITE, PAGE = "rpc/catchup_write", "rpc/catchup_page"
TIMEOUT = '{"code":"57014","message":"canceling statement due to statement timeout","details":null,"hint":null}'
POOL = '{"code":"PGRST003","message":"Timed out acquiring connection from connection pool.","details":null,"hint":null}'
EXPIRED = '{"code":"PGRST303","message":"JWT expired","details":null,"hint":null}'
SEND = ("--yes", "--create-queue")
Proxied = tuple[MessageBench, FaultProxy, Callable[[], Road]]


@pytest.fixture
async def proxied(
    message_bench: MessageBench, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy
) -> Proxied:
    """The PostgREST road with a proxy on it that can do what gateways do."""
    server = await start_postgrest(message_bench.database)
    proxy = await start_fault_proxy(server.url)
    return message_bench, proxy, lambda: PostgrestRoad(proxy.url, server.secret_key)


@pytest.fixture
def impaired_sending(message_shell: Shell) -> Impaired:
    return Impaired(message_shell, None, JOB.name)  # type: ignore[arg-type]  # the provider is not needed


def videos_of(broker: Broker) -> list[str]:
    return sorted(sent.video for sent in broker.take_all())


# --- the process ------------------------------------------------------------------------------------------


async def test_f2_a_chain_of_kills_is_survived(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """Four kills, also during recovery and between message and ledger: none lost, at most one twice a kill."""
    ids = await message_bench.fill(90)
    for point in ("mq.published:10", "write.sent:2", "mq.confirmed:3", "mq.published:5"):
        killed = await message_shell.run("reprocess-videos", *SEND, CATCHUP_FAULTS=f"{point}:kill")
        assert killed.code == -signal.SIGKILL, (point, killed.err)
    assert (await message_shell.run("reprocess-videos", *SEND)).code == 0
    found = redis_broker.take_all()
    assert sorted({sent.video for sent in found}) == ids
    assert len({(sent.video, sent.id) for sent in found}) == len(ids)
    assert len(found) - len(ids) <= 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_f3_a_signal_stops_the_sending_and_the_same_command_goes_on(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker, number: int, code: int
) -> None:
    """Exit 130 or 143 within seconds; what was sent is not sent again."""
    ids = await message_bench.fill(100)
    child = await message_shell.start("reprocess-videos", *SEND, "--delay", "0.1s")
    async with asyncio.timeout(30):
        while await asyncio.to_thread(_depth, redis_broker) < 5:
            await asyncio.sleep(0.02)  # another process sends
    child.send_signal(number)
    await asyncio.wait_for(child.communicate(), 8)
    assert child.returncode == code
    assert 5 <= _depth(redis_broker) < 100
    assert (await message_shell.run("reprocess-videos", *SEND)).code == 0
    assert videos_of(redis_broker) == ids


async def test_f3_a_second_signal_ends_at_once_and_corrupts_nothing(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """Two signals in a row: at most the message in doubt is there twice."""
    ids = await message_bench.fill(60)
    child = await message_shell.start("reprocess-videos", *SEND, "--delay", "0.1s")
    async with asyncio.timeout(30):
        while await asyncio.to_thread(_depth, redis_broker) < 3:
            await asyncio.sleep(0.02)  # another process sends
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGINT)
    await asyncio.wait_for(child.communicate(), 8)
    assert child.returncode == 130
    assert (await message_shell.run("reprocess-videos", *SEND)).code == 0
    found = redis_broker.take_all()
    assert sorted({sent.video for sent in found}) == ids
    assert len(found) - len(ids) <= 1


@pytest.mark.parametrize("size", [100, 6_000])
async def test_f5_a_disk_full_at_byte_k_sends_nothing_it_cannot_keep(
    message_bench: MessageBench, impaired_sending: Impaired, redis_broker: Broker, size: int
) -> None:
    """Exit 10 with the reason; once there is space the same command sends the rest, and nothing twice."""
    ids = await message_bench.fill(400)
    ended = await impaired_sending.run(file_size_limit(size), *SEND)
    assert ended.code == 10, ended.out + ended.err
    assert _depth(redis_broker) < 400
    assert (await impaired_sending.run("", *SEND)).code == 0
    assert videos_of(redis_broker) == ids


@pytest.mark.parametrize("what", ["a file", "read-only"])
async def test_f6_without_a_state_directory_nothing_is_sent(
    message_bench: MessageBench, redis_broker: Broker, tmp_path: Path, what: str
) -> None:
    """Exit 10, no message. /proc stands for a read-only file system."""
    await message_bench.fill(3)
    (tmp_path / "file").write_text("not a directory")
    message_bench.state_dir = tmp_path / "file" if what == "a file" else Path("/proc/state")
    verdict = await message_bench.send(redis_broker)
    assert (verdict.exit, redis_broker.take_all()) == (Exit.REFUSED, [])


async def _killed(bench: MessageBench, shell: Shell) -> Path:
    killed = await shell.run("reprocess-videos", *SEND, CATCHUP_FAULTS="write.sent:2:kill")
    assert killed.code == -signal.SIGKILL
    (path,) = (bench.state_dir / "journals").glob("*.journal")
    return path


@pytest.mark.parametrize("harm", ["torn", "damaged", "foreign"])
async def test_f7_a_journal_that_is_not_as_it_was(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker, harm: str
) -> None:
    """A torn last line is dropped, anything else is refused; then, put right, nothing is lost or doubled."""
    ids = await message_bench.fill(30)
    path = await _killed(message_bench, message_shell)
    sound = path.read_bytes().partition(b"\0")[0]
    lines = sound.split(b"\n")
    broken = {
        "torn": sound + b'5f3c1a90 ["paid",{"n":9,"us',
        "damaged": b"\n".join([lines[0], lines[1][:-3] + b"xxx", *lines[2:]]),
        "foreign": sound,
    }
    path.write_bytes(broken[harm])
    if harm == "foreign":
        for each in path.parent.glob("*"):
            each.unlink()
        await message_bench.database.run("update catchup.checkpoints set unconfirmed = 5")
    ended = await message_shell.run("reprocess-videos", *SEND)
    if harm == "torn":
        assert ended.code == 0, ended.err
        assert "torn" in ended.err
    else:
        assert ended.code == 10, ended.out
        path.write_bytes(sound)
        words = ("--abandon-journal",) if harm == "foreign" else ()
        assert (await message_shell.run("reprocess-videos", *SEND, *words)).code == 0
    found = redis_broker.take_all()
    assert sorted({sent.video for sent in found}) == ids
    assert len({(sent.video, sent.id) for sent in found}) == len(ids)


async def test_f8_a_second_start_sends_nothing(message_bench: MessageBench, redis_broker: Broker) -> None:
    """Two crons at once: the second says who is at work, and each video gets one message."""
    ids = await message_bench.fill(60)
    first = asyncio.create_task(message_bench.send(redis_broker, delay=0.02))
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(_depth, redis_broker):
            await asyncio.sleep(0.01)  # the first has begun
    second = MessageBench(message_bench.database, message_bench.state_dir)
    verdict = await second.send(redis_broker)
    assert (verdict.exit, verdict.calls) == (Exit.LEASE_HELD, 0)
    assert (await first).exit is Exit.DONE
    assert videos_of(redis_broker) == ids


async def test_f9_a_mad_wall_clock_changes_no_message(
    message_bench: MessageBench, impaired_sending: Impaired, redis_broker: Broker
) -> None:
    """A day back and forth while it sends: intervals are monotonic, times of the ledger are the database's."""
    ids = await message_bench.fill(40)
    mad = (
        "import itertools, time\nturns, real = itertools.cycle([0, 86400, -86400]), time.time\n"
        "time.time = lambda: real() + next(turns)\n"
    )
    ended = await impaired_sending.run(mad, *SEND)
    assert ended.code == 0, ended.err
    assert (await impaired_sending.run(mad, *SEND)).code == 0
    assert videos_of(redis_broker) == ids


async def test_f10_no_screen_keeps_a_message_from_its_queue(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """Piped into head, with stdout closed, in another locale: the same messages."""
    ids = await message_bench.fill(30)
    await message_shell.run_shell("catchup reprocess-videos --yes --create-queue --limit 10 | head -1")
    await message_shell.run_shell("catchup reprocess-videos --yes --limit 10 >&-")
    await message_shell.run_shell("LANG=tr_TR LC_ALL=C catchup reprocess-videos --yes")
    assert videos_of(redis_broker) == ids


async def test_f12_a_broker_that_hangs_is_noticed(
    message_bench: MessageBench,
    redis_broker: Broker,
    start_tcp_proxy: StartTcpProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Accepted and never answered: the connection is given up after its time, and each video has its message."""
    monkeypatch.setattr("queries.dramatiq_queue._TIMEOUT_S", 0.3)
    ids = await message_bench.fill(40)
    proxy = start_tcp_proxy(redis_broker.port, b"process_video")
    sending = asyncio.create_task(message_bench.send(redis_broker.at(proxy.port), delay=0.01))
    async with asyncio.timeout(30):
        while proxy.seen < 10:
            await asyncio.sleep(0.01)  # the run goes on beside us
    proxy.hang = True
    await asyncio.sleep(0.5)  # longer than it waits for an answer
    proxy.hang = False
    verdict = await asyncio.wait_for(sending, 60)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 40)
    found = redis_broker.take_all()
    assert sorted({sent.video for sent in found}) == ids
    assert len({(sent.video, sent.id) for sent in found}) == len(ids)


async def test_f13_memory_stays_bounded(
    message_bench: MessageBench, impaired_sending: Impaired, redis_broker: Broker
) -> None:
    """A column of 200 kB beside the key is not read at all; 5,000 videos are sent in bounded memory."""
    await message_bench.fill(5_000)
    await message_bench.database.run("alter table videos alter column video_summary set storage external")
    await message_bench.database.run(
        "update videos set video_summary = repeat('x', 200000) where id in (select id from videos limit 100)"
    )
    ended = await impaired_sending.run(SAY_PEAK, *SEND)
    assert ended.code == 0, ended.err
    assert int((impaired_sending.shell.directory / "peak").read_text()) / 1024 < MEMORY_MOST_MB
    assert _depth(redis_broker) == 5_000


async def test_f14_max_runtime_ends_the_sending_in_time(message_bench: MessageBench, redis_broker: Broker) -> None:
    """Exit 4, and the same command sends the rest."""
    ids = await message_bench.fill(60)
    verdict = await message_bench.send(redis_broker, delay=0.1, max_runtime=1.0)
    assert verdict.exit is Exit.STOPPED
    assert 0 < verdict.books.wrote < 60
    assert (await message_bench.send(redis_broker)).exit is Exit.DONE
    assert videos_of(redis_broker) == ids


# --- the database -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(PAGE, "answer", nth=1, times=2, body="upstream connect error", content_type="text/plain"),
        Fault(PAGE, "cut", nth=2, times=1),
        Fault(PAGE, "answer", nth=1, times=2, status=522, body=HTML, content_type="text/html"),
        Fault(WRITE, "cut", nth=1, times=2),
        Fault(WRITE, "lost", nth=2, times=1),
        Fault(WRITE, "answer", nth=1, times=2, status=502, body=HTML, content_type="text/html"),
        Fault(WRITE, "answer", nth=1, times=1, status=504, body=POOL, headers=(("Retry-After", "1"),)),
        Fault(PAGE, "answer", nth=2, times=2, status=500, body=TIMEOUT),
        Fault("catchup_still", "lost", nth=2, times=1),
        Fault("catchup_still", "answer", nth=1, times=2, status=503, body=HTML, content_type="text/html"),
    ],
    ids=[
        "F15-page-text", "F15-page-cut", "F16-page-522", "F15-write-cut", "F15-write-lost", "F16-write-502",
        "F18-pool", "F17-page", "F15-look-lost", "F16-look-503",
    ],
)  # fmt: skip
async def test_a_passing_fault_of_the_database_sends_nothing_twice(
    proxied: Proxied, redis_broker: Broker, fault: Fault
) -> None:
    """Pages, books and the last look before a message: each video gets one message, and the run ends well."""
    bench, proxy, road = proxied
    ids = await bench.fill(120)
    proxy.inject(fault)
    verdict = await bench.send(redis_broker, road=road())
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 120), verdict.headline
    assert videos_of(redis_broker) == ids


async def test_f16_a_database_that_stays_down_loses_no_message_and_sends_none_twice(
    proxied: Proxied, redis_broker: Broker
) -> None:
    """What was sent is in the journal; the next run books it and sends the rest."""
    bench, proxy, road = proxied
    ids = await bench.fill(120)
    settings = bench.settings(redis_broker)
    short = settings.model_copy(update={"limits": settings.limits.model_copy(update={"max_outage": 0.5})})
    proxy.inject(Fault(WRITE, "answer", nth=2, times=10_000, status=521, body=HTML, content_type="text/html"))
    verdict = await bench.send(redis_broker, road=road(), settings=short)
    assert verdict.exit in (Exit.STOPPED, Exit.BREAKER)
    proxy.clear()
    assert (await bench.send(redis_broker, road=road())).exit is Exit.DONE
    assert videos_of(redis_broker) == ids


@pytest.mark.parametrize("kind", ["dsn", "postgrest"])
async def test_f19_a_key_that_sees_no_row_sends_nothing_and_says_so(
    message_bench: MessageBench, redis_broker: Broker, start_postgrest: StartPostgrest, kind: str
) -> None:
    """Row level security hides every video: never a success that claims to have sent something."""
    await message_bench.fill(5)
    server = await start_postgrest(message_bench.database) if kind == "postgrest" else None
    rest = PostgrestRoad(server.url, server.publishable_key) if server else None
    road = rest or DsnRoad(message_bench.database.dsn_as("nobody_special"))
    try:
        verdict = await message_bench.send(redis_broker, road=road)
        code, said = verdict.exit, verdict.headline
    except Exception as refused:  # before the run: which table cannot be read
        code, said = Exit.REFUSED, str(refused)
    assert code is Exit.REFUSED, said
    assert redis_broker.take_all() == []


async def test_f20_a_table_without_the_column_is_refused(message_bench: MessageBench, redis_broker: Broker) -> None:
    """Named, exit 10, nothing sent."""
    await message_bench.fill(5)
    await message_bench.database.run("alter table videos drop column has_rich_semantics")
    with pytest.raises(Exception, match="has_rich_semantics"):
        await message_bench.send(redis_broker)
    assert redis_broker.take_all() == []


async def test_f21_a_column_renamed_in_the_middle_stops_the_run_and_blames_no_video(
    message_bench: MessageBench, redis_broker: Broker
) -> None:
    """One cause, one report; put right, the same command sends the rest."""
    ids = await message_bench.fill(80)
    sending = asyncio.create_task(message_bench.send(redis_broker, delay=0.02))
    async with asyncio.timeout(30):
        while await asyncio.to_thread(_depth, redis_broker) < 5:
            await asyncio.sleep(0.01)  # the run goes on beside us
    await message_bench.database.run("alter table videos rename column has_rich_semantics to rich")
    verdict = await sending
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.REFUSED, 0)
    await message_bench.database.run("alter table videos rename column rich to has_rich_semantics")
    assert (await message_bench.send(redis_broker)).exit is Exit.DONE
    assert videos_of(redis_broker) == ids


async def test_f22_a_database_key_that_expires_in_the_middle(proxied: Proxied, redis_broker: Broker) -> None:
    """401 at a write: exit 10; what was sent is booked by the next run."""
    bench, proxy, road = proxied
    ids = await bench.fill(120)
    proxy.inject(Fault(WRITE, "answer", nth=2, times=10_000, status=401, body=EXPIRED))
    verdict = await bench.send(redis_broker, road=road())
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.REFUSED, 0)
    proxy.clear()
    assert (await bench.send(redis_broker, road=road())).exit is Exit.DONE
    assert videos_of(redis_broker) == ids


async def test_f23_videos_that_others_take_edit_or_delete_meanwhile_are_not_sent(
    message_bench: MessageBench, redis_broker: Broker
) -> None:
    """Looked at once more right before each message: they are named as changed, and the rest is sent."""
    ids = await message_bench.fill(60)
    sending = asyncio.create_task(message_bench.send(redis_broker, delay=0.03))
    async with asyncio.timeout(30):
        while await asyncio.to_thread(_depth, redis_broker) < 5:
            await asyncio.sleep(0.01)  # the run goes on beside us
    await message_bench.database.run("update videos set status = 'PROCESSING' where id = any(%s)", [ids[-5:]])
    await message_bench.database.run("delete from videos where id = any(%s)", [ids[-8:-5]])
    verdict = await sending
    assert (verdict.exit, verdict.books.wrote) == (Exit.SOME_NAMED, 52)
    assert verdict.books.changed + verdict.books.gone == 8
    assert videos_of(redis_broker) == ids[:-8]


async def test_f24_a_row_cap_below_the_page_leaves_no_video_out(
    message_bench: MessageBench, redis_broker: Broker, start_postgrest: StartPostgrest
) -> None:
    """The server cuts every list at 20 rows and says nothing."""
    ids = await message_bench.fill(150)
    server = await start_postgrest(message_bench.database, max_rows=20)
    verdict = await message_bench.send(redis_broker, road=PostgrestRoad(server.url, server.secret_key))
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 150)
    assert videos_of(redis_broker) == ids


async def test_f24_a_stale_replica_sends_nothing_twice(message_bench: MessageBench, redis_broker: Broker) -> None:
    """It still shows what was sent as not sent: the primary is asked right before each message."""
    ids = await message_bench.fill(40)
    replica = Database(message_bench.database.server, f"{message_bench.database.name}_replica")
    replica.server.run(f"create database {replica.name} template {message_bench.database.name}")
    try:
        assert (await message_bench.send(redis_broker)).books.wrote == 40
        road = StaleRoad(message_bench.database.dsn, replica.dsn)
        verdict = await message_bench.send(redis_broker, road=road)
        assert (road.stale_rows > 0, verdict.books.wrote) == (True, 0)
    finally:
        replica.server.run(f"drop database {replica.name} with (force)")
    assert videos_of(redis_broker) == ids


async def test_f25_hostile_values_are_only_values(message_bench: MessageBench, redis_broker: Broker) -> None:
    """What stands in a column travels as an argument, as it is: no screen and no frame is harmed by it."""
    await message_bench.fill(3)
    hostile = "[/b]\u001b[2J\u202e{id}\ud83d\ude00'\";drop table videos"
    await message_bench.database.run(
        "update videos set filename = %s", [hostile.encode("utf-16", "surrogatepass").decode("utf-16")]
    )
    settings = message_bench.settings(redis_broker, args=("{id}", "{filename}"))
    verdict = await message_bench.send(redis_broker, settings=settings)
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 3)
    assert "\u001b" not in json.dumps(verdict.as_json())
    assert len(redis_broker.take_all()) == 3


async def test_f26_a_database_that_redirects_is_refused(proxied: Proxied, redis_broker: Broker) -> None:
    """No key follows, and no message is sent."""
    bench, proxy, road = proxied
    await bench.fill(5)
    proxy.inject(Fault(PAGE, "answer", times=100, status=307, headers=(("Location", "http://127.0.0.1:1/x"),)))
    verdict = await bench.send(redis_broker, road=road())
    assert (verdict.exit, redis_broker.take_all()) == (Exit.REFUSED, [])


# --- the books --------------------------------------------------------------------------------------------


async def test_f48_no_pending_video_is_zero_and_says_so(message_bench: MessageBench, redis_broker: Broker) -> None:
    """Nothing to do is exit 0, in words."""
    await message_bench.fill(3, rich=True)
    verdict = await message_bench.send(redis_broker)
    assert (verdict.exit, verdict.books.selected) == (Exit.DONE, 0)
    assert "nothing to do" in verdict.headline


async def test_f48_pending_videos_and_not_one_message_is_exit_1(
    message_bench: MessageBench, redis_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted bug: verdicts are forgotten. The books do not balance, so it is no success."""
    await message_bench.fill(20)

    class Forgetful(ReprocessVideos):
        def judge(self, ask, answer, means):  # type: ignore[no-untyped-def]
            return super().judge(ask, answer, means)[:-1]

    monkeypatch.setattr(reprocess_videos, "JOB", Forgetful())
    verdict = await message_bench.send(redis_broker)
    assert verdict.exit is Exit.UNEXPECTED


@pytest.mark.parametrize("faulty", [False, True], ids=["sound", "under faults"])
async def test_f50_a_dry_run_only_reads_whatever_happens(
    proxied: Proxied, redis_broker: Broker, *, faulty: bool
) -> None:
    """Only GETs to the database, nothing in the queue, nothing on the disk."""
    bench, proxy, road = proxied
    await bench.fill(30)
    if faulty:
        proxy.inject(Fault(PAGE, "cut", nth=1, times=1))
        proxy.inject(Fault(PAGE, "answer", nth=2, times=1, status=522, body=HTML, content_type="text/html"))
    verdict = await bench.send(redis_broker, road=road(), dry_run=True)
    assert verdict.exit is Exit.DONE, verdict.headline
    assert {request.method for request in proxy.requests} == {"GET"}
    assert redis_broker.take_all() == []
    assert not bench.state_dir.exists()


def test_the_named_points_of_a_message_are_known() -> None:
    """What a kill can be aimed at is in the list of points."""
    assert {"mq.before", "mq.published", "mq.confirmed"} <= set(fault_points.POINTS)
    assert Publisher.is_local is False


def _depth(broker: Broker) -> int:
    import redis  # noqa: PLC0415 - an extra

    client = redis.Redis.from_url(broker.url)
    return int(client.llen(f"dramatiq:{broker.queue}"))  # type: ignore[arg-type]  # not awaitable here
