"""Starting is quick, and every command can be found: in the help, in completion, in the files."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.main import COMMANDS
from jobs.registry import find_jobs, load_job
from tests.servers.shell import START, Shell, bare_environment

HEAVY = ("openai", "supabase", "psycopg", "rich", "asyncio", "pydantic", "tqdm", "tiktoken", "httpx", "jobs.engine")


def _seconds(command: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def test_help_takes_at_most_1_6_times_an_import_of_typer(tmp_path: Path) -> None:
    """SDKs are imported when they are used: the whole process, the best of alternating runs."""
    env = bare_environment(tmp_path)
    bare, helped = [], []
    for _ in range(12):
        bare.append(_seconds([sys.executable, "-c", "import typer"], env))
        helped.append(_seconds([*START, "--help"], env))
    assert min(helped) <= 1.6 * min(bare)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """No SDK, screen, event loop or validator is loaded to print the help."""
    code = (
        "import sys\nfrom cli.main import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        env=bare_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "[]"


async def test_help_lists_every_job_and_command(shell: Shell) -> None:
    """What exists is visible, each with one line."""
    ended = await shell.run("--help")
    assert ended.code == 0
    for name in (*find_jobs(), *COMMANDS):
        assert f"  {name} " in ended.out


def test_jobs_are_found_in_the_files_as_the_registry_finds_them() -> None:
    """The quick look for --help and the registry agree, and a job's name is its file's."""
    assert find_jobs()
    assert all(load_job(name).name == name for name in find_jobs())


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
async def test_completion_lists_commands(shell: Shell, shell_name: str) -> None:
    """What the installed script asks is answered with the commands."""
    ended = await shell.run(
        _CATCHUP_COMPLETE=f"complete_{shell_name}",
        COMP_WORDS="catchup ",
        COMP_CWORD="1",
        _TYPER_COMPLETE_ARGS="catchup ",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert all(name in ended.out for name in (*find_jobs(), *COMMANDS))


async def test_completion_is_installed_for_a_shell(shell: Shell, tmp_path: Path) -> None:
    """--install-completion writes the script and says where."""
    ended = await shell.run("--install-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert ended.code == 0
    assert "_CATCHUP_COMPLETE" in (tmp_path / ".bash_completions/catchup.sh").read_text()


async def test_version_is_shown(shell: Shell) -> None:
    """--version prints one line and nothing is loaded for it."""
    ended = await shell.run("--version")
    assert (ended.code, ended.out.split()[0]) == (0, "catchup")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        pytest.param(["bakfill-summaries"], "backfill-summaries", id="misspelt command"),
        pytest.param(["runs", "lst"], "list", id="misspelt subcommand"),
        pytest.param(["backfill-summaries", "--limt", "5"], "--limit", id="misspelt option"),
        pytest.param(["backfill-summaries", "--limit", "0"], "greater than or equal to 1", id="limit of nothing"),
        pytest.param(["backfill-summaries", "--max-runtime", "soon"], "30s, 10m or 2h", id="duration"),
        pytest.param(["backfill-summaries", "--max-cost", "cheap"], "US dollars", id="money"),
        pytest.param(["backfill-summaries", "--max-cost", "-1"], "nothing", id="negative ceiling"),
        pytest.param(["backfill-summaries", "--max-cost", "nan"], "nothing", id="ceiling that is no number"),
        pytest.param(["backfill-summaries", "--db-load", "150%"], "between 0 and 1", id="share"),
        pytest.param(["backfill-summaries", "--concurrency", "many"], "auto", id="workers"),
        pytest.param(["backfill-summaries", "--where", "channel"], "KEY=VALUE", id="filter without value"),
        pytest.param(["backfill-summaries", "--slice", "a-b"], "LOW..HIGH", id="range"),
        pytest.param(["backfill-summaries", "--redo-where", "model"], "model=NAME", id="redo"),
        pytest.param(["backfill-summaries", "--price", "cheap"], "IN/OUT", id="price"),
    ],
)
async def test_a_command_line_that_is_not_understood_exits_2_with_a_hint(
    shell: Shell, words: list[str], hint: str
) -> None:
    """Usage errors say what was meant, before anything is read or connected."""
    ended = await shell.run(*words)
    assert ended.code == 2
    assert hint in " ".join(ended.err.split())
