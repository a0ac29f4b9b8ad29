"""Which project a URL or a key belongs to, and whether they belong together."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_REF = re.compile(r"[a-z]{20}")


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """XDG's place for what must survive a restart; without a home there is none to guess."""
    base = environ.get("XDG_STATE_HOME", "").strip()
    if base:
        return Path(base) / "catchup"
    home = environ.get("HOME", "").strip()
    return Path(home) / ".local/state/catchup" if home else Path(".catchup/state")


def check_secret(secret: SecretStr) -> SecretStr:
    """Catches what goes wrong when keys are copied: quotes, spaces, a header's prefix."""
    value = secret.get_secret_value()
    if any(char.isspace() for char in value.strip()) and "=" not in value:
        raise ValueError("has a space in it; copy the key alone, without `Bearer`")
    if value[:1] in "'\"" or not value.isprintable() or not value.isascii():
        raise ValueError("has quotes or characters that no key has; copy it again")
    return secret


def check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL; write https://host/path") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("is not a URL; write https://host/path")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be a plain URL: no user, password, query or fragment")
    return url.rstrip("/")


def check_pairs(database: SecretStr | None, url: str | None, key: SecretStr | None) -> list[str]:
    """Settings that are each fine and together are not: a key of one project with the address of another."""
    problems = []
    if database is not None and not looks_like_dsn(database.get_secret_value()):
        problems.append("DATABASE_URL: not a Postgres address; write postgresql://user:password@host:5432/database")
    if url and not key:
        problems.append(
            "SUPABASE_SERVICE_ROLE_KEY: missing beside SUPABASE_URL; copy it from the project's API settings"
        )
    if key and not url:
        problems.append("SUPABASE_URL: missing beside SUPABASE_SERVICE_ROLE_KEY; write https://PROJECT.supabase.co")
    if key:
        problems += _check_key(key.get_secret_value(), url)
    if database is not None and url:
        ours, theirs = _ref_of_dsn(database.get_secret_value()), _ref_of_url(url)
        if ours and theirs and ours != theirs:
            problems.append(
                f"DATABASE_URL is project {ours} and SUPABASE_URL is project {theirs}; set only one of them"
            )
    return problems


def _check_key(key: str, url: str | None) -> list[str]:
    if key.startswith("sb_publishable_"):
        return ["SUPABASE_SERVICE_ROLE_KEY: this is the publishable key, which sees no rows; use sb_secret_…"]
    claims = _claims(key)
    problems = []
    if claims.get("role") == "anon":
        problems.append("SUPABASE_SERVICE_ROLE_KEY: this is the anon key, which sees no rows; use service_role")
    ref, theirs = claims.get("ref"), _ref_of_url(url or "")
    if ref and theirs and ref != theirs:
        problems.append(f"SUPABASE_SERVICE_ROLE_KEY: a key of project {ref}, but SUPABASE_URL is project {theirs}")
    return problems


def _claims(key: str) -> dict[str, str]:
    """What a legacy key says of itself; nothing is verified, the server does that."""
    try:
        body = key.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        return {}
    return {str(n): str(v) for n, v in claims.items()} if isinstance(claims, dict) else {}


def looks_like_dsn(dsn: str) -> bool:
    return dsn.startswith(("postgresql://", "postgres://")) or bool(re.match(r"\s*\w+\s*=", dsn))


def place_of(dsn: str) -> str:
    """Host and database, for the screen; never user or password."""
    if "://" in dsn:
        try:
            parts = urlsplit(dsn)
            return f"{parts.hostname or 'local socket'}{parts.path.split('?')[0]}"
        except ValueError:
            return "the address given"
    facts = dict(re.findall(r"(host|dbname)\s*=\s*'?([^'\s]+)", dsn))
    return f"{facts.get('host', 'local socket')}/{facts.get('dbname', '')}"


def password_of(dsn: str) -> str:
    """The password of either form of a DSN, decoded; empty if there is none."""
    if "://" in dsn:
        return unquote(re.split(r"://", dsn, maxsplit=1)[1].rpartition("@")[0].partition(":")[2])
    match = re.search(r"password\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))", dsn)
    return (match[1] or match[2] or "") if match else ""


def _ref_of_url(url: str) -> str:
    name = (urlsplit(url).hostname or "").split(".")
    return name[0] if name[-2:] == ["supabase", "co"] and _REF.fullmatch(name[0]) else ""


def _ref_of_dsn(dsn: str) -> str:
    """db.REF.supabase.co directly, or user postgres.REF through the pooler."""
    if "supabase." not in dsn:
        return ""
    match = re.search(r"db\.([a-z]{20})\.supabase\.co|//[\w%-]+\.([a-z]{20})[:@]", dsn)
    return (match[1] or match[2]) if match else ""
