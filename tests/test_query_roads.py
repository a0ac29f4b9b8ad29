"""What can happen on the way to the database: gateways, redirects, lost answers, broken connections, wrong hosts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from queries.dsn import DsnRoad
from queries.errors import (
    CatchupError,
    Misconfigured,
    StatementTimeout,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.ledger import Ledger
from queries.postgrest import PostgrestRoad, check_home
from tests.servers.fault_proxy import HTML, Fault, FaultProxy, StartFaultProxy
from tests.servers.lite import StartPostgrest
from tests.servers.postgres import Database, free_port
from tests.servers.roads import VIDEOS, batch_of, begin, filled, query_of


@dataclass(frozen=True, slots=True)
class Way:
    """A ledger behind the fault proxy, with one video to write."""

    ledger: Ledger
    proxy: FaultProxy
    database: Database
    secret: str


@pytest.fixture
async def way(
    database: Database, start_postgrest: StartPostgrest, start_fault_proxy: StartFaultProxy
) -> AsyncIterator[Way]:
    await database.load("videos.sql")
    await database.migrate([VIDEOS])
    await database.run("insert into videos (id, title, channel_id) values ('v1', 't', 'c')")
    server = await start_postgrest(database)
    proxy = await start_fault_proxy(server.url)
    road = PostgrestRoad(proxy.url, server.secret_key)
    yield Way(Ledger(road), proxy, database, server.secret_key)
    await road.close()


def answer(status: int, code: str, **more: object) -> Fault:
    body = json.dumps({"code": code, "message": f"words about {code}", "details": None, "hint": None})
    return Fault("/rpc/", status=status, body=body, **more)  # type: ignore[arg-type]  # fields of Fault by name


# the fault, then what it means for a read and for a write
FAULTS = [
    pytest.param(answer(500, "57014"), StatementTimeout, StatementTimeout, id="57014"),
    pytest.param(answer(504, "PGRST003", headers=(("Retry-After", "9"),)), Throttle, Throttle, id="pool-exhausted"),
    pytest.param(answer(503, "PGRST001"), Unreachable, Unreachable, id="database-down"),
    pytest.param(answer(401, "PGRST303"), Misconfigured, Misconfigured, id="key-expired"),
    pytest.param(Fault("/rpc/", status=502, body=HTML, content_type="text/html"), Transient, Transient, id="502-html"),
    pytest.param(Fault("/rpc/", status=522, body=HTML, content_type="text/html"), Transient, Transient, id="522-html"),
    pytest.param(Fault("/rpc/", body=HTML, content_type="text/html"), Transient, UnknownOutcome, id="200-html"),
    pytest.param(Fault("/rpc/", body="upstream connect error"), Transient, UnknownOutcome, id="200-text"),
    pytest.param(Fault("/rpc/", body="[1]"), Transient, UnknownOutcome, id="200-other-json"),
    pytest.param(Fault("/rpc/", body="{}"), Transient, UnknownOutcome, id="200-empty-object"),
    pytest.param(Fault("/rpc/", "cut"), Transient, UnknownOutcome, id="cut-json"),
    pytest.param(Fault("/rpc/", "reset"), Transient, UnknownOutcome, id="reset"),
    pytest.param(Fault("/rpc/", "lost"), Transient, UnknownOutcome, id="answer-lost"),
]


@pytest.mark.parametrize(("fault", "reading", "writing"), FAULTS)
async def test_a_fault_on_the_way_is_told_and_nothing_is_tried_twice(
    way: Way, fault: Fault, reading: type[CatchupError], writing: type[CatchupError]
) -> None:
    """S8-S11: one request, one error; whether it may be repeated is the engine's decision."""
    lease = await begin(way.ledger, VIDEOS)
    [row] = await way.ledger.page(query_of(VIDEOS))
    way.proxy.requests.clear()
    way.proxy.inject(fault)
    with pytest.raises(CatchupError) as told:
        await way.ledger.page(query_of(VIDEOS))
    assert type(told.value) is reading
    way.proxy.clear()
    way.proxy.inject(fault)
    with pytest.raises(CatchupError) as told:
        await way.ledger.write(batch_of(VIDEOS, lease, [filled(row, "s")]))
    assert type(told.value) is writing
    assert [request.method for request in way.proxy.requests] == ["GET", "POST"]
    assert way.secret not in str(told.value)


async def test_the_servers_wait_is_passed_on(way: Way) -> None:
    """S9: the client library ignores Retry-After; the engine must not."""
    way.proxy.inject(answer(504, "PGRST003", headers=(("Retry-After", "9"),)))
    with pytest.raises(Throttle) as told:
        await way.ledger.runs()
    assert told.value.retry_after_s == 9.0


async def test_a_lost_answer_is_asked_for_again_under_the_same_write_id(way: Way) -> None:
    """DECISIONS 7: the write happened; repeating it confirms it and changes nothing more."""
    lease = await begin(way.ledger, VIDEOS)
    [row] = await way.ledger.page(query_of(VIDEOS))
    batch = batch_of(VIDEOS, lease, [filled(row, "s")])
    way.proxy.inject(Fault("/rpc/catchup_write", "lost"))
    with pytest.raises(UnknownOutcome):
        await way.ledger.write(batch)
    assert (await way.ledger.write(batch)).wrote == {0}
    [run] = await way.ledger.runs()
    assert run.books["wrote"] == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_never_followed(way: Way, start_fault_proxy: StartFaultProxy, status: int) -> None:
    """S18, G22: the key would be sent along, and on 302 a write would become a read that "succeeds"."""
    thief = await start_fault_proxy(way.proxy.upstream)
    way.proxy.inject(Fault("/rpc/", status=status, times=2, headers=(("Location", f"{thief.url}/rest/v1/rpc/x"),)))
    for attempt in (way.ledger.runs(), way.ledger.ask_cancel("run")):
        with pytest.raises(Misconfigured, match="redirect"):
            await attempt
    assert thief.requests == []


async def test_reads_go_by_get_and_writes_by_post(way: Way) -> None:
    """X14: a dry run's wire shows nothing but GETs."""
    lease = await begin(way.ledger, VIDEOS)
    way.proxy.requests.clear()
    await way.ledger.hello(VIDEOS.spec, VIDEOS.name)
    await way.ledger.facts(VIDEOS.spec)
    await way.ledger.page(query_of(VIDEOS))
    await way.ledger.read_back(VIDEOS.spec, [(f"{i:011}",) for i in range(500)])
    await way.ledger.road.peek("videos", ("id",), key=("id",))
    assert {request.method for request in way.proxy.requests} == {"GET"}
    assert max(len(request.path) for request in way.proxy.requests) < 8_000
    await way.ledger.beat(lease)
    assert way.proxy.requests[-1].method == "POST"


async def test_a_host_that_does_not_answer_is_unreachable() -> None:
    """R15: an outage of the network fails no item."""
    road = PostgrestRoad(f"http://127.0.0.1:{free_port()}", "sb_secret_x")
    with pytest.raises(Unreachable):
        await Ledger(road).runs()
    await road.close()


HOSTS = [
    pytest.param("https://abcd.supabase.co", (), None, id="supabase"),
    pytest.param("http://127.0.0.1:54321", (), None, id="loopback"),
    pytest.param("http://localhost:54321", (), None, id="localhost"),
    pytest.param("https://db.example.org", ("db.example.org",), None, id="allowed"),
    pytest.param("https://db.example.org", (), "no host of Supabase's", id="unknown-host"),
    pytest.param("http://abcd.supabase.co", (), "must be https", id="plain-http"),
    pytest.param("http://db.example.org", ("db.example.org",), "must be https", id="allowed-but-plain"),
    pytest.param("http://169.254.169.254", (), "must be https", id="metadata-service"),
    pytest.param("https://supabase.co.evil.example", (), "no host of Supabase's", id="suffix-trick"),
    pytest.param("https://127.0.0.1.evil.example", (), "no host of Supabase's", id="prefix-trick"),
    pytest.param("https://abcd.supabase.co@evil.example", (), "no host of Supabase's", id="userinfo-trick"),
    pytest.param("https://evilsupabase.co", (), "no host of Supabase's", id="no-dot"),
    pytest.param("abcd.supabase.co", (), "must be https", id="no-scheme"),
    pytest.param("", (), "must be https", id="empty"),
]


@pytest.mark.parametrize(("url", "allowed", "refusal"), HOSTS)
def test_a_key_goes_only_home(url: str, allowed: tuple[str, ...], refusal: str | None) -> None:
    """G22, DECISIONS 3: https to a known host, http to this machine, anything else only by name."""
    if refusal is None:
        check_home(url, allowed)
        return
    with pytest.raises(Misconfigured, match=refusal):
        PostgrestRoad(url, "sb_secret_x", allow_hosts=allowed)


REFUSED = [
    pytest.param("{port}", "nobody_here", "postgres", Misconfigured, id="role"),
    pytest.param("{port}", "postgres", "nowhere", Misconfigured, id="database"),
    pytest.param("{closed}", "postgres", "postgres", Unreachable, id="port"),
]


@pytest.mark.parametrize(("port", "user", "name", "expected"), REFUSED)
async def test_a_dsn_that_leads_nowhere(
    database: Database, port: str, user: str, name: str, expected: type[CatchupError]
) -> None:
    """A wrong name stops the run; a closed port is an outage."""
    number = port.format(port=database.server.port, closed=free_port())
    road = DsnRoad(f"postgresql://{user}:secret-word@127.0.0.1:{number}/{name}")
    with pytest.raises(expected) as told:
        await Ledger(road).runs()
    assert "secret-word" not in str(told.value) + road.where


def test_a_dsn_that_is_none_is_refused_without_repeating_it() -> None:
    """G21: what stands in DATABASE_URL may be a password in the wrong place."""
    with pytest.raises(Misconfigured) as told:
        DsnRoad("secret-word and nonsense")
    assert "secret-word" not in str(told.value)


async def test_a_connection_killed_under_a_write_leaves_the_outcome_open(database: Database) -> None:
    """57P01 in the middle of a statement: nobody knows, so it is asked again under the same write id."""
    ledger, road = await dsn_ledger(database)
    lease = await begin(ledger, VIDEOS)
    [row] = await ledger.page(query_of(VIDEOS))
    batch = batch_of(VIDEOS, lease, [filled(row, "s")])
    async with await database.connect() as other, other.transaction():
        await other.execute("select 1 from videos for update")
        writing = asyncio.create_task(ledger.write(batch))
        await kill_waiting(database)
        with pytest.raises(UnknownOutcome):
            await writing
    assert (await ledger.write(batch)).wrote == {0}
    await road.close()


async def test_a_connection_lost_while_idle_is_replaced(database: Database) -> None:
    """A pooler's idle timeout costs one passing error at most, and reads and writes go on."""
    ledger, road = await dsn_ledger(database)
    await ledger.runs()
    await database.run(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and application_name = 'catchup'"
    )
    with pytest.raises(Transient):
        await ledger.runs()
    assert await ledger.runs() == []
    await road.close()


async def test_a_silent_server_is_given_up(database: Database) -> None:
    """R16: a statement that never answers ends by our own clock; the connection is not used again."""
    await database.load("videos.sql")
    await database.migrate([VIDEOS])
    road = DsnRoad(database.dsn, answer_s=0.3)
    ledger = Ledger(road)
    async with await database.connect() as other, other.transaction():
        await other.execute("lock table catchup.runs")
        with pytest.raises(UnknownOutcome):
            await ledger.ask_cancel("run")
        with pytest.raises(Transient):
            await ledger.runs()
    assert await ledger.runs() == []
    await road.close()


async def test_no_session_state_is_left_behind(database: Database) -> None:
    """Through a transaction pooler the next statement may run elsewhere: nothing prepared, no SET, no lock stays."""
    ledger, road = await dsn_ledger(database)
    await begin(ledger, VIDEOS)
    for _ in range(8):
        await ledger.page(query_of(VIDEOS))
        await ledger.runs()
    [connection] = road._idle
    for query in (
        "select count(*) from pg_prepared_statements",
        "select count(*) from pg_locks where locktype = 'advisory'",
    ):
        cursor = await connection.execute(query.encode())
        assert await cursor.fetchone() == (0,)
    cursor = await connection.execute(
        "select current_setting('transaction_read_only'), current_setting('lock_timeout')"
    )
    assert await cursor.fetchone() == ("off", "0")
    await road.close()


async def dsn_ledger(database: Database) -> tuple[Ledger, DsnRoad]:
    await database.load("videos.sql")
    await database.migrate([VIDEOS])
    await database.run("insert into videos (id, title, channel_id) values ('v1', 't', 'c')")
    road = DsnRoad(database.dsn)
    return Ledger(road), road


async def kill_waiting(database: Database) -> None:
    for _ in range(200):
        killed = await database.run(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and wait_event_type = 'Lock'"
        )
        if killed:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nobody waits")


@pytest.mark.parametrize("conforming", ["on", "off"])
async def test_a_read_cannot_write_whatever_it_is_told(database: Database, conforming: str) -> None:
    """A read is one message of two statements: the first makes it read only, and no text can end the second."""
    await database.run(f"alter database {database.name} set standard_conforming_strings = {conforming}")
    await database.run("create table w (x text)")
    await database.run(
        "create function catchup_w(p text) returns jsonb language plpgsql as $$ begin insert into w values (p); "
        "return '{}'; end $$; create function catchup_r(p text) returns jsonb language sql stable as "
        "$$ select jsonb_build_object('told', p) $$"
    )
    road = DsnRoad(database.dsn)
    with pytest.raises(Misconfigured, match="25006"):
        await road.read("catchup_w", {"a": 1})
    for told in (
        "'); insert into w values ('x'); select ('{}",
        "\\'; drop table w; --",
        "\\\\'",
        "é\x00'%s {}",
        "\ud800'",
    ):
        answer = await road.read("catchup_r", {"a": told})
        assert json.loads(answer["told"]) == [{"a": told}]
    assert await database.run("select count(*) from w") == [(0,)]
    await road.close()
