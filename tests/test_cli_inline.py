"""catchup reprocess-videos --inline as an operator types it: killed in a chain, piped, with flags that do not fit."""

from __future__ import annotations

import json

import pytest

from tests.servers.bench import KEY
from tests.servers.rich_bench import RichBench, video_id
from tests.servers.shell import Ended, Shell

INLINE = ("reprocess-videos", "--inline", "--yes", "--db-load", "100%")
KILLS = ("answer.received:3", "write.sent:2", "journal.after_fsync:6", "write.before:2")


@pytest.fixture
def inline(rich: RichBench, shell: Shell) -> Shell:
    shell.env |= {
        "DATABASE_URL": rich.database.dsn,
        "OPENAI_BASE_URL": rich.fake.url,
        "OPENAI_API_KEY": KEY,
        "CATCHUP_STATE_DIR": str(rich.state_dir),
    }
    return shell


def verdict_of(ended: Ended) -> dict[str, object]:
    return dict(json.loads(ended.out.splitlines()[-1]))


async def test_f1_f2_a_chain_of_kills_loses_nothing(inline: Shell, rich: RichBench) -> None:
    """At each kind of place in turn: the same command completes, and paid twice is only what was in flight."""
    await rich.fill(12, 3)
    most = 3
    killed = 0
    for point in KILLS:
        ended = await inline.run(*INLINE, "--concurrency", str(most), CATCHUP_FAULTS=f"{point}:kill")
        killed += ended.code == -9
    assert killed >= len(KILLS) - 1
    ended = await inline.run(*INLINE, "--json")
    assert ended.code == 0, ended.err
    assert await rich.rich() == list(range(1, 13))
    assert await rich.undescribed() == 0
    twice = sum(times - 1 for times in rich.fake.world.paid.values())
    assert twice <= killed * most
    assert verdict_of(await inline.run(*INLINE, "--json"))["selected"] == 0


async def test_ids_come_from_stdin_and_the_verdict_is_one(inline: Shell, rich: RichBench) -> None:
    """Books of both steps apart, and their sum."""
    await rich.fill(3, 2)
    ended = await inline.run_shell(f"echo {video_id(2)} | catchup reprocess-videos --inline --ids-from - --json")
    verdict = verdict_of(ended)
    assert ended.code == 0, ended.err
    assert (verdict["selected"], verdict["wrote"]) == (3, 3)
    assert verdict["scenes"]["wrote"] == 2  # type: ignore[index]
    assert await rich.rich() == [2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--delay", "1s"), "--delay is about messages"),
        (("--price", "1/2"), "two models are used"),
        (("--ids-from", "nowhere.txt"), "No such file"),
    ],
)
async def test_what_does_not_fit_is_refused_before_anything_is_asked(
    inline: Shell, rich: RichBench, words: tuple[str, ...], said: str
) -> None:
    """Exit 10 with the flag's name."""
    ended = await inline.run(*INLINE, *words)
    assert (ended.code, said in ended.err) == (10, True), ended.err
    assert rich.fake.world.requests == 0


async def test_without_the_columns_the_migration_is_named(inline: Shell, rich: RichBench) -> None:
    """The set adds them, migrate registers them, and the same command works."""
    await rich.fill(1, 1)
    await rich.database.run(
        "alter table video_scenes drop column tags; alter table videos drop column has_rich_semantics"
    )
    ended = await inline.run(*INLINE)
    assert ended.code == 10
    assert "catchup migrate --set rich-semantics" in ended.err
    assert (await inline.run("migrate", "--set", "rich-semantics", "--check")).code == 10
    assert (await inline.run("migrate", "--set", "rich-semantics")).code == 0
    assert (await inline.run("migrate", "--set", "rich-semantics", "--check")).code == 0
    assert (await inline.run("migrate")).code == 0
    assert (await inline.run(*INLINE)).code == 0
    down = await inline.run("migrate", "--set", "rich-semantics", "--down")
    assert (down.code, "video_scenes.tags (1 row)" in down.err) == (10, True)
    assert (await inline.run("migrate", "--set", "rich-semantics", "--down", "--yes")).code == 0


async def test_without_a_dsn_the_sets_sql_is_printed(shell: Shell) -> None:
    """Exit 10, and nothing but SQL on stdout."""
    supabase = {"SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x"}
    ended = await shell.run("migrate", "--set", "rich-semantics", **supabase)
    assert ended.code == 10
    assert 'add column if not exists "tags" text[]' in ended.out
    assert "create index concurrently" in ended.out
    assert "SQL editor" in ended.err
