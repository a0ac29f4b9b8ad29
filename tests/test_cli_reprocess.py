"""catchup reprocess-videos as it is typed: lists of ids, stuck videos, watching, kills, refusals."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.servers.message_bench import Broker, MessageBench, running_worker, write_queue
from tests.servers.shell import Shell

SEND = ("reprocess-videos", "--yes", "--create-queue")
MISSING = "99999999-9999-4999-9999-999999999999"


def last_json(out: str) -> dict[str, object]:
    verdict: dict[str, object] = json.loads(out.splitlines()[-1])
    return verdict


# --- a list of ids ----------------------------------------------------------------------------------------


async def test_only_the_listed_videos_are_sent(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """Ids in any spelling; those that are not in the table, or not to be sent, are named."""
    ids = await message_bench.fill(130)
    [done] = await message_bench.fill(1, rich=True)
    lines = ["# the first of them", *[id_.upper() for id_ in ids[:100]], "", ids[0], MISSING, done]
    (message_shell.directory / "ids.txt").write_text("\n".join(lines))
    ended = await message_shell.run(*SEND, "--ids-from", "ids.txt")
    assert ended.code == 0, ended.err
    assert f"1 not in the table: {MISSING}" in ended.err
    assert done in ended.err
    assert sorted(sent.video for sent in redis_broker.take_all()) == ids[:100]


async def test_a_list_from_standard_input(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """`-` is standard input, so that psql or a text tool can make the list."""
    ids = await message_bench.fill(5)
    ended = await message_shell.run_shell(f"echo {ids[2]} | catchup {' '.join(SEND)} --ids-from -")
    assert ended.code == 0, ended.err
    assert [sent.video for sent in redis_broker.take_all()] == [ids[2]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("not-an-id\n", "line 1: 'not-an-id'", id="no uuid"),
        pytest.param(f"{MISSING}\n\n{MISSING},x\n", f"line 3: '{MISSING},x'", id="two columns"),
        pytest.param("", "holds no id", id="empty"),
    ],
)
async def test_a_bad_list_is_refused_by_line(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker, text: str, said: str
) -> None:
    """Nothing is sent of a list with a bad line; the line is named."""
    await message_bench.fill(3)
    (message_shell.directory / "ids.txt").write_text(text)
    ended = await message_shell.run(*SEND, "--ids-from", "ids.txt")
    assert ended.code == 10
    assert said in ended.err
    assert redis_broker.take_all() == []


# --- stuck videos -----------------------------------------------------------------------------------------


async def _age(bench: MessageBench, ids: list[str], minutes: int) -> None:
    await bench.database.run(
        "alter table videos disable trigger videos_touch; "
        f"update videos set updated_at = now() - interval '{minutes} minutes' where id = any('{{{','.join(ids)}}}'); "
        "alter table videos enable trigger videos_touch"
    )


async def test_stuck_videos_are_put_back_and_sent(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """Only what has sat in PROCESSING longer than said, each named with how long; then it is sent like any other."""
    stuck = await message_bench.fill(3, status="PROCESSING")
    busy = await message_bench.fill(2, status="PROCESSING")
    await _age(message_bench, stuck, 45)
    dry = await message_shell.run(*SEND, "--reset-stuck", "30m", "--dry-run")
    assert "would put back 3 videos" in dry.err
    assert await message_bench.pending() == []
    ended = await message_shell.run(*SEND, "--reset-stuck", "30m")
    assert ended.code == 0, ended.err
    assert all(f"put back {id_}" in ended.err for id_ in stuck)
    assert not any(id_ in ended.err for id_ in busy)
    assert sorted(sent.video for sent in redis_broker.take_all()) == sorted(stuck)


async def test_what_was_sent_and_got_stuck_is_sent_once_more(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """A message whose video came back from PROCESSING was taken, so it does not count as waiting; its id is new."""
    ids = await message_bench.fill(4)
    await message_shell.run(*SEND)
    first = {sent.video: sent.id for sent in redis_broker.take_all()}
    await message_bench.database.run("update videos set status = 'PROCESSING' where id = %s", [ids[1]])
    await _age(message_bench, [ids[1]], 45)
    assert (await message_shell.run(*SEND, "--reset-stuck", "30m")).code == 0
    [again] = redis_broker.take_all()
    assert again.video == ids[1]
    assert again.id != first[ids[1]]


async def test_nothing_is_put_back_for_a_queue_that_is_not_there(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """The queue is looked at first."""
    stuck = await message_bench.fill(2, status="PROCESSING")
    await _age(message_bench, stuck, 45)
    ended = await message_shell.run("reprocess-videos", "--yes", "--reset-stuck", "30m")
    assert ended.code == 10
    assert "there is no queue" in ended.err
    assert await message_bench.pending() == []


async def test_an_update_that_touches_no_row_is_refused(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """Row level security, or the wrong key: 0 rows affected of a row that nobody changed is exit 10, not success."""
    stuck = await message_bench.fill(2, status="PROCESSING")
    await _age(message_bench, stuck, 45)
    await message_bench.database.run(
        "create function no() returns trigger language plpgsql as 'begin return null; end'; "
        "create trigger aaa_no before update on videos for each row execute function no()"
    )
    ended = await message_shell.run(*SEND, "--reset-stuck", "30m")
    assert ended.code == 10
    assert "affected 0 rows" in ended.err


# --- watching ---------------------------------------------------------------------------------------------


async def test_follow_watches_the_videos_to_their_end(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker, tmp_path: Path
) -> None:
    """With a worker at work: sent, waiting, ready; it ends when all videos are done, by their own state."""
    await message_bench.fill(12)
    async with running_worker(redis_broker, tmp_path, DATABASE_URL=message_bench.database.dsn):
        ended = await message_shell.run(*SEND, "--follow", "--json", "--max-runtime", "50s")
    assert ended.code == 0, ended.out
    looks = [json.loads(line) for line in ended.out.splitlines() if '"follow"' in line]
    assert (looks[-1]["sent"], looks[-1]["ready"], looks[-1]["done"]) == (12, 12, True)
    assert await message_bench.pending() == []


async def test_follow_names_what_failed(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """Failed videos are named with the application's own words, and the exit code says so."""
    ids = await message_bench.fill(3)
    await message_shell.run(*SEND)
    await message_bench.database.run(
        "update videos set status = 'FAILED', error_message = 'no sound' where id = %s", ids[:1]
    )
    await message_bench.database.run("update videos set has_rich_semantics = true where id = %s", ids[1:2])
    watching = await message_shell.start(*SEND, "--follow", "--json")
    assert watching.stdout is not None
    async for line in watching.stdout:
        if b'"follow"' in line:
            look = json.loads(line)
            break
    assert (look["waiting"], look["queue"]) == (1, 3)
    await message_bench.database.run(
        "update videos set status = 'FAILED', error_message = 'no picture' where id = %s", ids[2:]
    )
    out, _ = await asyncio.wait_for(watching.communicate(), 40)
    end = json.loads(out.decode().splitlines()[-1])
    assert watching.returncode == 3
    assert end["failures"] == [{"key": ids[2], "state": "failed", "error": "no picture"}]


async def test_ctrl_c_ends_the_watching_and_nothing_else(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """Exit 130; the messages stay where they are, and the same command watches again."""
    await message_bench.fill(3)
    watching = await message_shell.start(*SEND, "--follow", "--json")
    assert watching.stdout is not None
    async for line in watching.stdout:
        if b'"follow"' in line:
            break
    watching.send_signal(signal.SIGINT)
    await asyncio.wait_for(watching.communicate(), 30)
    assert watching.returncode == 130
    assert len(redis_broker.take_all()) == 3


# --- kills and refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["mq.before:37", "mq.published:37", "mq.confirmed:37", "mq.confirmed:100"])
async def test_a_kill_doubles_at_most_the_message_in_doubt(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker, point: str
) -> None:
    """SIGKILL between a message and our note of it: the same command ends the work, and one id at most is twice."""
    ids = await message_bench.fill(150)
    killed = await message_shell.run(*SEND, CATCHUP_FAULTS=f"{point}:kill")
    assert killed.code == -signal.SIGKILL
    ended = await message_shell.run(*SEND)
    assert ended.code == 0, ended.err
    found = redis_broker.take_all()
    assert sorted({sent.video for sent in found}) == ids
    assert len(found) - len(ids) <= (1 if point.startswith("mq.published") else 0)
    assert len({(sent.video, sent.id) for sent in found}) == len(ids)


@pytest.mark.parametrize(
    ("words", "toml", "said"),
    [
        pytest.param(("--max-cost", "1"), "", "--max-cost means nothing where messages are sent", id="money"),
        pytest.param(("--status", "DONE"), "", "DONE", id="a status that does not exist"),
        pytest.param((), '[queue]\nlibrary = "sqs"\n', "[queue] library", id="another library"),
        pytest.param((), '[queue]\nlibrary = "celery"\nname = "a queue"\n', "[queue] name: not a name", id="a name"),
        pytest.param((), '[queue]\nlibrary = "celery"\nargs = []\n', "names no video", id="no argument"),
        pytest.param((), '[queue]\nlibrary = "dramatiq"\nargs = ["{idd}"]\n', "idd", id="a column that is not there"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    message_bench: MessageBench,
    message_shell: Shell,
    redis_broker: Broker,
    words: tuple[str, ...],
    toml: str,
    said: str,
) -> None:
    """Exit 10 with the setting's own name, before anything is sent."""
    await message_bench.fill(2)
    if toml:
        (message_shell.directory / "catchup.toml").write_text(toml)
    ended = await message_shell.run(*SEND, *words)
    assert ended.code == 10, ended.out + ended.err
    assert said in ended.out + ended.err
    assert redis_broker.take_all() == []


async def test_no_password_of_the_broker_is_ever_shown(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """Not in the plan, not in an error, not with --verbose."""
    await message_bench.fill(2)
    url = redis_broker.url.replace("redis://", "redis://someone:s3ntinel-pw@")
    for words in (("--dry-run",), ("--verbose",), ("--json",)):
        ended = await message_shell.run(*SEND, *words, "--max-outage", "0.2s", BROKER_URL=url)
        assert ended.code == 10
        assert "s3ntinel" not in ended.out + ended.err


async def test_the_arguments_are_the_operators_own(
    message_bench: MessageBench, message_shell: Shell, redis_broker: Broker
) -> None:
    """[queue] args and kwargs name columns; what is not a column's name in braces stays as it is."""
    [id_] = await message_bench.fill(1)
    write_queue(message_shell, redis_broker)
    toml = message_shell.directory / "catchup.toml"
    more = 'args = ["{id}", "video:{id}", 3]\nkwargs = { owner = "{owner_id}", force = true }\n'
    toml.write_text(toml.read_text() + more)
    assert (await message_shell.run(*SEND)).code == 0
    import redis  # noqa: PLC0415 - an extra

    client = redis.Redis.from_url(redis_broker.url)
    [body] = client.hvals(f"dramatiq:{redis_broker.queue}.msgs")  # type: ignore[misc]  # not awaitable here
    frame = json.loads(body)
    assert frame["args"] == [id_, f"video:{id_}", 3]
    assert frame["kwargs"] == {"owner": "00000000-0000-0000-0000-000000000001", "force": True}
