"""Everything that can be set, validated all at once; each problem is named with its fix."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from cli import project, quantities
from cli.environment import Sources, gather
from cli.queue_table import MEANT as MEANT_OF_QUEUE
from cli.queue_table import QueueTable, check_broker_url
from cli.target_tables import MEANT, TABLES_WITHIN, Strict, TargetTable
from queries.errors import Misconfigured


def _reads(read: Callable[[str], float]) -> BeforeValidator:
    return BeforeValidator(lambda value: read(value if isinstance(value, str) else repr(value)))


Usd = Annotated[float, _reads(quantities.read_usd)]
Share = Annotated[float, _reads(quantities.read_share)]
Seconds = Annotated[float, _reads(quantities.read_duration_s)]
Secret = Annotated[SecretStr, AfterValidator(project.check_secret)]


class Limits(Strict):
    """[limits]: ceilings of money and time, and what text is worth a call."""

    max_cost_run: Usd | None = None
    max_cost_hour: Usd | None = None
    max_cost_day: Usd | None = None
    db_load: Share = 0.25
    max_outage: Seconds = 600.0
    call_timeout: Seconds = 60.0
    grace: Seconds = 5.0
    min_characters: Annotated[int, Field(ge=0)] = 50
    min_words: Annotated[int, Field(ge=0)] = 10


class Local(Strict):
    """[local]: the embedded PostgreSQL and the local provider, chosen on purpose."""

    directory: Path = Path(".catchup/db")


class Settings(Strict):
    database_url: Secret | None = None
    supabase_url: Annotated[str, AfterValidator(project.check_url)] | None = None
    supabase_service_role_key: Secret | None = None
    openai_api_key: Secret | None = None
    openai_base_url: Annotated[str, AfterValidator(project.check_url)] | None = None
    youtube_api_key: Secret | None = None
    youtube_api_endpoint: Annotated[str, AfterValidator(project.check_url)] | None = None
    pinecone_api_key: Secret | None = None
    pinecone_index_host: Annotated[str, AfterValidator(project.check_url)] | None = None
    pinecone_controller_host: Annotated[str, AfterValidator(project.check_url)] | None = None
    pinecone_grpc: bool = True
    broker_url: Annotated[Secret, AfterValidator(check_broker_url)] | None = None
    state_dir: Path = Field(default_factory=lambda: project.default_state_dir(os.environ))
    model: str | None = None
    allow_hosts: tuple[str, ...] = ()
    limits: Limits = Limits()
    local: Local | None = None
    queue: QueueTable | None = None
    targets: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")], TargetTable] = Field(
        default_factory=dict
    )
    env_file: Path | None = None
    toml_file: Path | None = None
    warnings: tuple[str, ...] = ()
    origins: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _belong_together(self) -> Settings:
        problems = project.check_pairs(self.database_url, self.supabase_url, self.supabase_service_role_key)
        if problems:
            raise ValueError("\n".join(problems))
        return self


# Environment name → where it belongs. `.env.example` documents exactly these; a test compares them.
VARIABLES: Mapping[str, tuple[str, ...]] = {
    "DATABASE_URL": ("database_url",),
    "SUPABASE_URL": ("supabase_url",),
    "SUPABASE_SERVICE_ROLE_KEY": ("supabase_service_role_key",),
    "OPENAI_API_KEY": ("openai_api_key",),
    "OPENAI_BASE_URL": ("openai_base_url",),
    "YOUTUBE_API_KEY": ("youtube_api_key",),
    "YOUTUBE_API_ENDPOINT": ("youtube_api_endpoint",),
    "PINECONE_API_KEY": ("pinecone_api_key",),
    "PINECONE_INDEX_HOST": ("pinecone_index_host",),
    "PINECONE_CONTROLLER_HOST": ("pinecone_controller_host",),
    "PINECONE_GRPC": ("pinecone_grpc",),
    "BROKER_URL": ("broker_url",),
    "CATCHUP_MODEL": ("model",),
    "CATCHUP_MAX_COST_RUN": ("limits", "max_cost_run"),
    "CATCHUP_MAX_COST_HOUR": ("limits", "max_cost_hour"),
    "CATCHUP_MAX_COST_DAY": ("limits", "max_cost_day"),
    "CATCHUP_DB_LOAD": ("limits", "db_load"),
    "CATCHUP_MAX_OUTAGE": ("limits", "max_outage"),
    "CATCHUP_ALLOW_HOSTS": ("allow_hosts",),
    "CATCHUP_STATE_DIR": ("state_dir",),
}
TABLES = ("local", "limits", "queue", "targets")
_NO_NAME = "not a plain name; letters, digits and _ (in a target's name: small letters, digits and -)"
_TEST_ONLY = ("CATCHUP_FAULT", "CATCHUP_TEST_")


def load(environ: Mapping[str, str], directory: Path, env_file: Path | None = None) -> Settings:
    """All settings or one Misconfigured that names every problem."""
    found = gather(environ, directory, env_file)
    problems = [*found.problems, *_unknown_names(found)]
    raw, names = _arrange(found)
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        problems += [line for item in error.errors(include_input=False) for line in _explain(dict(item), names)]
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise Misconfigured(f"{count} in the settings:\n" + "\n".join(f"  - {line}" for line in problems))
    return settings


def _arrange(found: Sources) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """Environment values over catchup.toml's, in the shape of Settings, with each one's name for messages."""
    raw: dict[str, Any] = {name: found.tables[name] for name in TABLES if name in found.tables}
    names: dict[tuple[str, ...], str] = {}
    if isinstance(raw.get("limits"), dict):
        raw["limits"] = dict(raw["limits"])
    for name, place in VARIABLES.items():
        if name not in found.values:
            continue
        value: Any = found.values[name].strip()
        if name == "CATCHUP_ALLOW_HOSTS":
            value = tuple(host.strip() for host in value.split(",") if host.strip())
        if name == "CATCHUP_STATE_DIR":
            value = Path(value).expanduser()
        inner = raw if len(place) == 1 else raw.setdefault(place[0], {})
        if isinstance(inner, dict):
            inner[place[-1]] = value
        names[place] = f"{name} ({found.origin[name]})"
    raw |= {"env_file": found.env_file, "toml_file": found.toml_file, "warnings": tuple(found.warnings)}
    raw["origins"] = {name: found.origin[name] for name in VARIABLES if name in found.origin}
    return raw, names


def _unknown_names(found: Sources) -> list[str]:
    """A ceiling with a typo in its name is no ceiling: CATCHUP_* is ours, and so is every table."""
    ours = [n for n in found.values if n.startswith("CATCHUP_") and not n.startswith(_TEST_ONLY)]
    problems = [
        f"{name} ({found.origin[name]}): no such setting; {_nearest(name, VARIABLES)}"
        for name in ours
        if name not in VARIABLES
    ]
    for name in found.tables:
        if name in TABLES:
            continue
        secret = name.upper() in VARIABLES
        fix = "this belongs in the environment or .env" if secret else _nearest(name, TABLES)
        problems.append(f"catchup.toml, [{name}]: no such table; {fix}")
    return problems


def _explain(item: dict[str, Any], names: Mapping[tuple[str, ...], str]) -> list[str]:
    """One pydantic error as the setting's own name, what is wrong and what to do."""
    place = tuple(str(part) for part in item["loc"] if part != "[key]")
    message = str(item["msg"]).removeprefix("Value error, ")
    if not place:
        return message.split("\n")
    name = names.get(place) or "catchup.toml, [" + ".".join(place[:-1]) + f"] {place[-1]}"
    if item["type"] == "extra_forbidden":
        return [f"{name}: no such key; {_nearest(place[-1], _keys_beside(place))}"]
    if item["type"] == "string_pattern_mismatch":
        message = (MEANT | MEANT_OF_QUEUE).get(item["ctx"]["pattern"], _NO_NAME)
    if item["type"] == "bool_parsing":
        message = "neither on nor off"
    if item["type"] == "missing":
        message = "missing; add it"
    return [f"{name}: {message}"]


def _keys_beside(place: tuple[str, ...]) -> list[str]:
    models: dict[str, type[Strict]] = {"limits": Limits, "local": Local, "queue": QueueTable}
    inner = TABLES_WITHIN.get(place[2]) if len(place) > 3 else None  # [targets.NAME.chunks] KEY
    model = inner or models.get(place[0], TargetTable)
    return [field.alias or name for name, field in model.model_fields.items()]


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
