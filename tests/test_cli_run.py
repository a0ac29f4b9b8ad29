"""The real command in a process of its own: exit codes, signals, broken outputs, and secrets that stay inside."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal

import pytest

from cli.main import COMMANDS, Commands
from jobs.default_targets import SUMMARIES, TITLES, VIDEO_SUMMARIES
from jobs.registry import find_jobs
from tests.servers.bench import KEY, Bench
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.fake_youtube import FakeYouTube
from tests.servers.message_bench import MessageBench
from tests.servers.shell import Ended, Shell, interrupt, wait_for_calls
from tests.test_cli_views import NEVER

JOB = "backfill-summaries"


def _verdict(ended: Ended) -> dict[str, object]:
    return dict(json.loads(ended.out.splitlines()[-1]))


async def test_a_run_writes_every_row_and_says_so(wired: Shell, bench: Bench) -> None:
    """Exit 0, the numbers on stdout, which database and settings on stderr."""
    await bench.fill(20)
    ended = await wired.run(JOB)
    assert (ended.code, ended.err.count("by DATABASE_URL from the environment")) == (0, 1)
    assert re.search(r"wrote +20\n", ended.out)
    assert all((await bench.cells()).values())


async def test_json_ends_with_the_verdict(wired: Shell, bench: Bench) -> None:
    """One object a line on stdout, nothing else there, the verdict last."""
    await bench.fill(5)
    ended = await wired.run(JOB, "--json")
    kinds = [json.loads(line)["type"] for line in ended.out.splitlines()]
    assert (kinds[-1], set(kinds) <= {"notice", "plan", "progress", "verdict"}) == ("verdict", True)
    assert (_verdict(ended)["wrote"], _verdict(ended)["exit"]) == (5, 0)


async def test_a_dry_run_writes_nothing_and_asks_nothing(wired: Shell, bench: Bench) -> None:
    """The plan, and neither a call nor a row in the ledger."""
    await bench.fill(30)
    ended = await wired.run(JOB, "--dry-run")
    assert ended.code == 0
    assert "30 pending" in ended.out
    assert bench.fake.world.requests == 0
    assert await bench.database.run("select count(*) from catchup.runs") == [(0,)]


@pytest.mark.parametrize(
    ("words", "script", "code"),
    [
        pytest.param((), (), 0, id="0 done"),
        pytest.param(("--target", "nothing"), (), 10, id="10 unknown target"),
        pytest.param(("--where", "title=x"), (), 10, id="10 undeclared filter"),
        pytest.param(("--provider", "nobody"), (), 10, id="10 unknown provider"),
        pytest.param(("--model", "no-such-model"), (), 10, id="10 no price"),
        pytest.param(("--max-cost", "0.0000001"), (), 8, id="8 money ceiling"),
        pytest.param((), ({"match": {"every": 1}, "action": {"kind": "refusal"}},), 3, id="3 every answer refused"),
        pytest.param(("--where", "channel_id=none", "--error-on-nothing"), (), 9, id="9 nothing to do"),
        pytest.param(("--where", "channel_id=none"), (), 0, id="0 nothing to do"),
    ],
)
async def test_exit_codes(
    wired: Shell, bench: Bench, words: tuple[str, ...], script: tuple[dict[str, object], ...], code: int
) -> None:
    """A number a cron line can act on, in the text and in the JSON alike."""
    await bench.fill(4)
    bench.fake.script(*script)
    ended = await wired.run(JOB, "--json", *words)
    assert (ended.code, _verdict(ended)["exit"]) == (code, code), ended.out + ended.err


async def test_a_large_run_without_a_terminal_is_refused_and_says_yes_is_the_way(wired: Shell, bench: Bench) -> None:
    """Incident 8: one click started 184,053 updates."""
    await bench.fill(1_200)
    ended = await wired.run(JOB)
    assert ended.code == 10
    assert "--yes" in ended.err + ended.out
    assert bench.fake.world.requests == 0


async def test_a_large_run_on_a_terminal_asks_and_takes_no_for_an_answer(wired: Shell, bench: Bench) -> None:
    """The question is answered with anything but yes."""
    await bench.fill(1_200)
    ended = await wired.run_in_terminal(JOB, answer=b"n\n")
    assert ended.code == 10
    assert "Go on? [y/N]" in ended.out
    assert bench.fake.world.requests == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=str
)
async def test_a_signal_stops_the_run_and_the_same_command_goes_on(
    wired: Shell, bench: Bench, number: int, code: int
) -> None:
    """First signal: no new call, what is in flight is kept, and the next run pays for nothing twice."""
    await bench.fill(60)
    bench.fake.configure(latency=0.05)
    child = await wired.start(JOB, "--json", "--concurrency", "4", "--fresh")
    await wait_for_calls(bench, 15)
    interrupt(child, number)
    out, err = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == code, out + err
    assert "--fresh" not in json.loads(out.splitlines()[-1])["next"], "it would give up the place it stopped at"
    assert (await wired.run(JOB)).code == 0
    assert all((await bench.cells()).values())
    assert set(bench.paid().values()) == {1}


async def test_a_second_signal_ends_at_once(wired: Shell, bench: Bench) -> None:
    """Impatience is no corruption: the next run completes the work."""
    await bench.fill(20)
    bench.fake.configure(latency=3.0)
    child = await wired.start(JOB, "--json", "--concurrency", "4")
    await wait_for_calls(bench, 1)
    interrupt(child)
    await asyncio.sleep(0.2)
    interrupt(child)
    assert await asyncio.wait_for(child.wait(), 1.5) == 130
    bench.fake.configure(latency=0.0)
    assert (await wired.run(JOB)).code == 0
    assert all((await bench.cells()).values())


@pytest.mark.parametrize(
    ("redirected", "env"),
    [
        pytest.param("| head -n 1", {}, id="head"),
        pytest.param("--json | head -c 10", {}, id="json head"),
        pytest.param("| true", {}, id="closed at once"),
        pytest.param(">&-", {}, id="no stdout"),
        pytest.param(">&- 2>&-", {}, id="no output at all"),
        pytest.param("> /dev/full", {}, id="disk full"),
        pytest.param("2> /dev/full", {}, id="log disk full"),
        pytest.param("", {"PYTHONIOENCODING": "ascii"}, id="ascii"),
        pytest.param("", {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, id="posix locale"),
    ],
)
async def test_display_cannot_kill_work(wired: Shell, bench: Bench, redirected: str, env: dict[str, str]) -> None:
    """R19, G24: whatever becomes of the output, the same rows are written and the exit code is the run's."""
    await bench.fill(12)
    await bench.database.run("update videos set title = 'Ünï→ ' || title")
    words, pipe, rest = redirected.rpartition("--json") if "--json" in redirected else ("", "", redirected)
    wired.env |= env
    ended = await wired.run_shell(f"{{ catchup {JOB} {words}{pipe}; echo $? > code; }} {rest}")
    assert (wired.directory / "code").read_text().strip() == "0", ended
    assert all((await bench.cells()).values())


async def test_without_a_terminal_there_is_no_control_code(wired: Shell, bench: Bench) -> None:
    """R20: cron's mail and CI's log are plain text, also where a title holds escapes."""
    await bench.fill(3)
    await bench.database.run("update videos set title = E'\\x1b[2J\\x1b]0;pwn\\x07[red]x[/b]' where id = 'v000001'")
    ended = await wired.run(JOB, "--verbose")
    assert ended.code == 0
    assert not NEVER.search(ended.out + ended.err)


@pytest.mark.parametrize("columns", [20, 100])
async def test_the_live_screen_at_any_width_changes_nothing_that_is_done(
    wired: Shell, bench: Bench, columns: int
) -> None:
    """A narrow terminal, hostile titles and the bar: the rows are written and the cursor comes back."""
    await bench.fill(10)
    await bench.database.run("update videos set title = E'\\x1b[2J[/b]\\u009b' || title")
    ended = await wired.run_in_terminal(JOB, columns=columns)
    assert ended.code == 0
    assert "\x1b[2J" not in ended.out
    assert "\x9b" not in ended.out
    assert ended.out.rfind("\x1b[?25h") >= ended.out.rfind("\x1b[?25l")
    assert all((await bench.cells()).values())


async def test_no_color_is_obeyed(wired: Shell, bench: Bench) -> None:
    """NO_COLOR leaves the live area and takes its colours."""
    await bench.fill(5)
    ended = await wired.run_in_terminal(JOB, NO_COLOR="1")
    assert ended.code == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", ended.out)


async def test_no_secret_is_in_any_output(wired: Shell, bench: Bench) -> None:
    """G21: not in a plan, a verdict, an error that echoes the key, nor at --verbose."""
    await bench.fill(3)
    bench.fake.configure(key="sk-another-key-0000000000")
    for words in ((JOB, "--verbose"), (JOB, "--json"), (JOB, "--dry-run"), ("doctor",), ("runs", "list")):
        ended = await wired.run(*words)
        assert KEY not in ended.out + ended.err
        assert KEY[3:20] not in ended.out + ended.err


async def test_a_wrong_key_is_refused_with_the_services_words(wired: Shell, bench: Bench) -> None:
    """Exit 10, what the service said, and what to do."""
    await bench.fill(3)
    bench.fake.configure(key="sk-another-key-0000000000")
    ended = await wired.run(JOB)
    assert ended.code == 10
    assert "OPENAI_API_KEY" in ended.out + ended.err


WITH_A_BROKER = ("reprocess-videos", "worker")


def _examples(*, with_broker: bool) -> list[str]:
    """The example of every command, from its own help."""
    found, commands = [], Commands()
    for name in (*find_jobs(), *COMMANDS):
        if (name in WITH_A_BROKER) is not with_broker:
            continue
        command = commands[name]
        for each in getattr(command, "commands", {"": command}).values():
            assert each.epilog, f"{name} {each.name} has no example"
            found.append(each.epilog.removeprefix("Example: "))
    return found


@pytest.mark.parametrize("example", _examples(with_broker=True))
async def test_the_example_of_every_command_with_a_broker_works(
    message_shell: Shell, message_bench: MessageBench, fake_openai: FakeOpenAI, example: str
) -> None:
    """An hour of waiting for messages is a second here."""
    await message_bench.fill(2)
    message_shell.env |= {"OPENAI_BASE_URL": fake_openai.url, "OPENAI_API_KEY": KEY}
    before = ("migrate",) if " worker " in example else ("reprocess-videos", "--yes", "--create-queue", "--limit", "1")
    assert (await message_shell.run(*before)).code == 0
    ended = await message_shell.run(*shlex.split(example.replace("1h", "1s"))[1:])
    assert ended.code in (0, 4), ended.out + ended.err
    assert (ended.code == 4) is ("--max-runtime" in example)


@pytest.mark.parametrize("example", _examples(with_broker=False))
async def test_the_example_of_every_command_works(
    wired: Shell, bench: Bench, fake_pinecone: FakePinecone, fake_youtube: FakeYouTube, example: str
) -> None:
    """What the help shows can be typed; a run id stands for one that exists."""
    await bench.fill(5)
    await bench.database.migrate([VIDEO_SUMMARIES, SUMMARIES, TITLES])
    fake_pinecone.configure(dimension=512, index="youtube-titles-prod")
    fake_pinecone.reset()
    wired.env |= {"PINECONE_API_KEY": "pcsk_s3ntinel_0123456789", "PINECONE_INDEX_HOST": fake_pinecone.url}
    fake_pinecone.space("llm-summaries")
    first = await wired.run(JOB, "--limit", "2", "--json")
    if "refresh-views" in example:
        await bench.database.load("views.sql")
        wired.env |= {"YOUTUBE_API_KEY": "AIzaSy-s3ntinel_0123456789", "YOUTUBE_API_ENDPOINT": fake_youtube.url}
        assert (await wired.run("migrate")).code == 0
    if " batches " in example:
        bench.fake.batches.configure(working_s=10_000.0)
        assert (await wired.run("submit-batch", "--yes")).code == 0
        [(chunk,)] = await bench.database.run("select chunk from catchup.batches")
        example = example.replace("3f2a9c01b2-1", chunk)
    if " search " in example:
        assert (await wired.run("vectorize")).code == 0
    if " index " in example:
        await bench.database.run("create extension vector")
        await bench.database.run("create table jobs (id uuid primary key, embedding vector(1536))")
    if "resume" in example or "cancel" in example:
        await bench.database.run("update catchup.runs set state = 'stopped'")
    words = shlex.split(example.replace("3f2a9c01b2", str(_verdict(first)["run"])))
    if "--local" in words:
        wired.env.pop("DATABASE_URL")
    ended = await wired.run(*words[1:])
    assert ended.code == 0, ended.out + ended.err
