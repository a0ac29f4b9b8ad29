"""Settings and flags become a database and a provider. Nothing embedded is used by accident."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from cli import streams
from cli.project import password_of, place_of
from cli.settings import Settings
from cli.untrusted import clean
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from queries.road import Road


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the three databases, and the sentence that tells the operator so."""

    kind: Literal["embedded", "dsn", "supabase"]
    said: str


def choose_database(settings: Settings, local: bool | None) -> Choice:
    """An explicit --local stands above everything; two explicit choices that differ are refused."""
    outside = "DATABASE_URL" if settings.database_url else "SUPABASE_URL" if settings.supabase_url else ""
    if local or (local is None and settings.local is not None):
        if outside and local is None:
            raise Misconfigured(
                f"catchup.toml has [local] and {outside} is set: two databases are meant",
                fix="say --local or --no-local, or take one of the two away",
            )
        unused = f"; {outside} is set and not used" if outside else ""
        return Choice("embedded", f"the embedded PostgreSQL in {directory_of(settings)}{unused}")
    if settings.database_url:
        unused = "; SUPABASE_URL is set too and not used" if settings.supabase_url else ""
        place = place_of(settings.database_url.get_secret_value().strip())
        return Choice("dsn", f"{clean(place)}, by DATABASE_URL from {_origin(settings, 'DATABASE_URL')}{unused}")
    if settings.supabase_url:
        host = urlsplit(settings.supabase_url).hostname
        origin = _origin(settings, "SUPABASE_URL")
        return Choice("supabase", f"{host} over Supabase's REST API, by SUPABASE_URL from {origin}")
    raise Misconfigured(
        "no database is set, and none is chosen by accident",
        fix="set DATABASE_URL, or SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY (see .env.example); "
        "or say --local for an embedded PostgreSQL that needs no account",
    )


def _origin(settings: Settings, name: str) -> str:
    """The file by its whole path: which .env was read is half of which project is meant."""
    origin = settings.origins.get(name, "environment")
    return "the environment" if origin == "environment" else str(settings.env_file)


def directory_of(settings: Settings) -> str:
    from cli.settings import Local

    return str((settings.local or Local()).directory)


def details(settings: Settings) -> tuple[str, ...]:
    """What --verbose adds: files, hosts, and which keys are there; never a key."""
    keys = {
        "OPENAI_API_KEY": settings.openai_api_key,
        "SUPABASE_SERVICE_ROLE_KEY": settings.supabase_service_role_key,
        "PINECONE_API_KEY": settings.pinecone_api_key,
        "YOUTUBE_API_KEY": settings.youtube_api_key,
        "BROKER_URL": settings.broker_url,
    }
    there = ", ".join(name for name, value in keys.items() if value) or "none"
    files = f"{settings.env_file or 'no .env'}, {settings.toml_file or 'no catchup.toml'}"
    return (
        f"settings: {files}; state in {settings.state_dir}",
        f"provider: {settings.openai_base_url or 'https://api.openai.com'}; keys set: {there}",
    )


def hide_secrets(settings: Settings) -> None:
    """From here on no output can contain one of them, whoever writes it."""
    secrets = (
        settings.database_url,
        settings.supabase_service_role_key,
        settings.openai_api_key,
        settings.pinecone_api_key,
        settings.youtube_api_key,
        settings.broker_url,
    )
    values = [secret.get_secret_value().strip() for secret in secrets if secret]
    if settings.database_url:
        values.append(password_of(settings.database_url.get_secret_value()))
    if settings.broker_url:
        values.append(password_of(settings.broker_url.get_secret_value()))
    streams.hide(*values)


@contextmanager
def reach(settings: Settings, choice: Choice) -> Iterator[str]:
    """The DSN of the chosen database, embedded server running; empty for Supabase over REST."""
    if choice.kind == "embedded":
        from pathlib import Path

        from queries.embedded import start

        with start(Path(directory_of(settings))) as server:
            yield server.dsn
    elif choice.kind == "dsn" and settings.database_url:
        yield settings.database_url.get_secret_value().strip()
    else:
        yield ""


@asynccontextmanager
async def open_road(settings: Settings, choice: Choice, allow_hosts: Iterable[str]) -> AsyncIterator[tuple[Road, str]]:
    """The road, and the DSN it leads over if it does."""
    with reach(settings, choice) as dsn:
        road = _make_road(settings, dsn, {*settings.allow_hosts, *allow_hosts})
        try:
            yield road, dsn
        finally:
            await road.close()


def _make_road(settings: Settings, dsn: str, allowed: set[str]) -> Road:
    if dsn:
        from queries.dsn import DsnRoad

        return DsnRoad(dsn)
    from queries.postgrest import PostgrestRoad

    url, key = settings.supabase_url or "", settings.supabase_service_role_key
    return PostgrestRoad(url, key.get_secret_value().strip() if key else "", allow_hosts=tuple(sorted(allowed)))
