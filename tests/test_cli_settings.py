"""Settings: where they come from, what is refused, and that every refusal names its fix."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from cli.settings import VARIABLES, Settings, load
from queries.errors import Misconfigured
from tests.servers.shell import ROOT, Shell

REF, OTHER = "abcdefghijklmnopqrst", "tsrqponmlkjihgfedcba"


def _jwt(**claims: str) -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims))
    return ".".join([*parts, "signature"])


def _refusal(directory: Path, environ: dict[str, str]) -> str:
    with pytest.raises(Misconfigured) as refused:
        load(environ, directory)
    return refused.value.what


SUPABASE = {"SUPABASE_URL": f"https://{REF}.supabase.co"}
BAD_ENVIRONMENT = [
    pytest.param({"DATABASE_URL": "app.sqlite"}, "DATABASE_URL", "postgresql://", id="no dsn"),
    pytest.param({"SUPABASE_URL": "project"}, "SUPABASE_URL", "https://", id="no url"),
    pytest.param({"OPENAI_BASE_URL": "https://u:p@host/v1"}, "OPENAI_BASE_URL", "no user", id="user in url"),
    pytest.param({"OPENAI_BASE_URL": "file:///etc/passwd"}, "OPENAI_BASE_URL", "https://", id="file url"),
    pytest.param(SUPABASE, "SUPABASE_SERVICE_ROLE_KEY", "missing", id="url without key"),
    pytest.param({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x"}, "SUPABASE_URL", "missing", id="key without url"),
    pytest.param(
        {**SUPABASE, "SUPABASE_SERVICE_ROLE_KEY": "sb_publishable_x"}, "publishable", "sb_secret", id="publishable key"
    ),
    pytest.param({**SUPABASE, "SUPABASE_SERVICE_ROLE_KEY": _jwt(role="anon")}, "anon", "service_role", id="anon key"),
    pytest.param(
        {**SUPABASE, "SUPABASE_SERVICE_ROLE_KEY": _jwt(role="service_role", ref=OTHER)}, OTHER, REF, id="other project"
    ),
    pytest.param(
        {
            **SUPABASE,
            "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x",
            "DATABASE_URL": f"postgresql://postgres.{OTHER}:p@aws-0-eu.pooler.supabase.com:6543/postgres",
        },
        OTHER,
        "only one",
        id="two projects",
    ),
    pytest.param({"OPENAI_API_KEY": "Bearer sk-x"}, "OPENAI_API_KEY", "Bearer", id="header instead of key"),
    pytest.param({"OPENAI_API_KEY": '"sk-x"'}, "OPENAI_API_KEY", "quotes", id="quotes kept"),
    pytest.param({"CATCHUP_MAX_COST_DAY": "lots"}, "CATCHUP_MAX_COST_DAY", "US dollars", id="money"),
    pytest.param({"CATCHUP_MAX_COST_RUN": "0"}, "CATCHUP_MAX_COST_RUN", "nothing", id="ceiling of nothing"),
    pytest.param({"PINECONE_GRPC": "rest"}, "PINECONE_GRPC", "neither on nor off", id="switch"),
    pytest.param({"CATCHUP_DB_LOAD": "2"}, "CATCHUP_DB_LOAD", "between 0 and 1", id="share"),
    pytest.param({"CATCHUP_MAX_OUTAGE": "ten"}, "CATCHUP_MAX_OUTAGE", "10m", id="duration"),
    pytest.param({"CATCHUP_MAX_COST_DYA": "5"}, "CATCHUP_MAX_COST_DYA", "CATCHUP_MAX_COST_DAY", id="typo in a ceiling"),
]


@pytest.mark.parametrize(("environ", "name", "fix"), BAD_ENVIRONMENT)
def test_a_bad_variable_is_named_with_its_fix(tmp_path: Path, environ: dict[str, str], name: str, fix: str) -> None:
    """No value is guessed at, and no secret is repeated."""
    said = _refusal(tmp_path, environ)
    assert name in said
    assert fix in said
    assert "sk-x" not in said


@pytest.mark.parametrize(
    ("toml", "name", "fix"),
    [
        pytest.param("[limitz]\n", "limitz", "limits", id="unknown table"),
        pytest.param("[limits]\nmax_cost_dya = 5", "max_cost_dya", "max_cost_day", id="unknown key"),
        pytest.param('[limits]\nmax_outage = "x"', "max_outage", "10m", id="bad value"),
        pytest.param('database_url = "postgresql://"', "database_url", "environment or .env", id="secret in toml"),
        pytest.param("[local]\ndirectry = 1", "directry", "directory", id="unknown key of local"),
        pytest.param('[targets.a]\ntable = "a b"', "table", "plain name", id="table with a space"),
        pytest.param('[targets.a]\ntable = "../../auth/v1"', "table", "plain name", id="path for a table"),
        pytest.param('[targets.a]\nkey = ["a", "b", "c"]', "key", "at most 2", id="three key columns"),
        pytest.param('[targets.A]\ntable = "a"', "A", "plain name", id="target name"),
        pytest.param('[targets.a]\ntabel = "a"', "tabel", "table", id="unknown key of a target"),
        pytest.param('[targets.chunks]\ntabel = "a"', "tabel", "table", id="unknown key of a target named as a table"),
        pytest.param('[targets.a.joined]\ntable = "a"', "joined", "missing; add it", id="half a join"),
        pytest.param("[limits\n", "catchup.toml", "line 1", id="no toml"),
    ],
)
def test_a_bad_catchup_toml_is_named_with_its_fix(tmp_path: Path, toml: str, name: str, fix: str) -> None:
    """Unknown keys are refused with the nearest known name: a ceiling with a typo is no ceiling."""
    (tmp_path / "catchup.toml").write_text(toml)
    said = _refusal(tmp_path, {})
    assert name in said
    assert fix in said


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    """One start, every problem: from the file's lines, the toml and the values."""
    (tmp_path / ".env").write_text('OPENAI_API_KEY="sk-open\nCATCHUP_DB_LOAD=9\n')
    (tmp_path / "catchup.toml").write_text("[limits]\nmax_cost_rnu = 1")
    said = _refusal(tmp_path, {"SUPABASE_URL": "x", "CATCHUP_MAX_OUTAGE": "y"})
    assert said.startswith("5 problems")
    assert all(part in said for part in (".env, line 1", "CATCHUP_DB_LOAD", "max_cost_rnu", "SUPABASE_URL", "OUTAGE"))


@pytest.mark.parametrize(
    "line", ['OPENAI_API_KEY="sk-x', "OPENAI_API_KEY='sk-x", "just words", "NAME", "=value", 'A="b" c'], ids=repr
)
def test_an_unparsable_env_line_is_a_refusal_naming_file_and_line(tmp_path: Path, line: str) -> None:
    """python-dotenv only warns and drops the key; then the run would go somewhere else."""
    (tmp_path / ".env").write_text(f"# comment\n{line}\n")
    assert f"{tmp_path / '.env'}, line 2" in _refusal(tmp_path, {})


def test_a_parents_env_file_is_never_read(tmp_path: Path) -> None:
    """The parent's .env belongs to another project."""
    (tmp_path / ".env").write_text("DATABASE_URL=postgresql://other@host/db\n")
    inner = tmp_path / "inner"
    inner.mkdir()
    settings = load({}, inner)
    assert (settings.database_url, settings.env_file) == (None, None)


def test_an_empty_variable_does_not_hide_the_files_value(tmp_path: Path) -> None:
    """`OPENAI_API_KEY=` in a crontab means not set."""
    (tmp_path / ".env").write_text("CATCHUP_MODEL=from-file\nCATCHUP_DB_LOAD=\n")
    settings = load({"CATCHUP_MODEL": "  ", "CATCHUP_DB_LOAD": "10%"}, tmp_path)
    assert (settings.model, settings.limits.db_load) == ("from-file", 0.10)


def test_the_environment_stands_above_env_and_that_above_toml(tmp_path: Path) -> None:
    """Three places, one order."""
    (tmp_path / "catchup.toml").write_text("[limits]\nmax_cost_run = 1\nmax_cost_hour = 1\nmax_cost_day = 1")
    (tmp_path / ".env").write_text("CATCHUP_MAX_COST_RUN=2\nCATCHUP_MAX_COST_HOUR=2\n")
    limits = load({"CATCHUP_MAX_COST_RUN": "3"}, tmp_path).limits
    assert (limits.max_cost_run, limits.max_cost_hour, limits.max_cost_day) == (3, 2, 1)


def test_values_of_env_are_taken_as_they_stand(tmp_path: Path) -> None:
    """A password may hold a dollar sign; nothing is expanded."""
    (tmp_path / ".env").write_text("DATABASE_URL='postgresql://u:a$HOME${X}@h/d'\n")
    url = load({"X": "no"}, tmp_path).database_url
    assert url is not None
    assert url.get_secret_value() == "postgresql://u:a$HOME${X}@h/d"


def test_an_env_file_others_can_read_is_warned_about(tmp_path: Path) -> None:
    """0644 is what umask makes of it."""
    file = tmp_path / ".env"
    file.write_text("CATCHUP_MODEL=m\n")
    file.chmod(0o644)
    assert "chmod 600" in load({}, tmp_path).warnings[0]
    file.chmod(0o600)
    assert load({}, tmp_path).warnings == ()


def test_secrets_do_not_show_in_a_repr(tmp_path: Path) -> None:
    """A log line of the settings object is harmless."""
    settings = load({"OPENAI_API_KEY": "sk-sentinel", "DATABASE_URL": "postgresql://u:sentinel@h/d"}, tmp_path)
    assert "sentinel" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_env_example_and_settings_name_the_same_variables() -> None:
    """Documented is what exists, and nothing else."""
    text = (ROOT / ".env.example").read_text()
    assert sorted(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE)) == sorted(VARIABLES)
    for place in VARIABLES.values():
        assert place[0] in Settings.model_fields


@pytest.mark.parametrize(
    "words",
    [
        ["backfill-summaries", "--model", "sk-proj-0123456789abcdef"],
        ["backfill-summaries", "--env-file=sk-0123456789abcdef"],
        ["runs", "show", "sb_secret_0123456789"],
        ["backfill-summaries", "--where", "channel_id=eyJhbGciOiJIUzI1NiJ9.e30.x"],
        ["migrate", "--allow-host", "postgresql://user:secret@host/db"],
    ],
    ids=lambda words: words[-1][:24],
)
async def test_a_flag_holding_a_key_is_refused_without_repeating_it(shell: Shell, words: list[str]) -> None:
    """`ps` shows flags to everybody: keys come by environment or file only."""
    ended = await shell.run(*words)
    assert ended.code == 10
    assert "looks like a key" in ended.err
    assert words[-1] not in ended.out + ended.err


async def test_no_database_and_no_local_exits_10_and_says_both_ways_on(shell: Shell) -> None:
    """A cron line that lost its environment must not be green on an empty database."""
    ended = await shell.run("backfill-summaries", "--yes")
    assert ended.code == 10
    assert "DATABASE_URL" in ended.err
    assert "--local" in ended.err


async def test_local_table_and_a_database_setting_are_two_choices_and_refused(shell: Shell) -> None:
    """[local] beside DATABASE_URL: one of them is a mistake, and nobody here knows which."""
    (shell.directory / "catchup.toml").write_text("[local]\n")
    ended = await shell.run("backfill-summaries", DATABASE_URL="postgresql://u@127.0.0.1:1/d")
    assert ended.code == 10
    assert "--no-local" in ended.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://models.example.com/v1", "--allow-host models.example.com"),
        ("http://169.254.169.254/latest", "--allow-host"),
        ("http://api.openai.com/v1", "http"),
    ],
)
async def test_a_key_goes_to_known_hosts_only(wired: Shell, url: str, said: str) -> None:
    """Refused before anything is sent."""
    ended = await wired.run("backfill-summaries", OPENAI_BASE_URL=url)
    assert ended.code == 10
    assert said in ended.err
