"""What Postgres and PostgREST say, in the words of queries.errors. Pure functions: UPSTREAMS.md 2.3 is their table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from queries.errors import (
    CatchupError,
    DataRejected,
    Misconfigured,
    StatementTimeout,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.redact import redact

if TYPE_CHECKING:
    import psycopg


class MissingFunction(Misconfigured):
    """Our functions are not in this database (or not yet in PostgREST's schema cache)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer that is not a success, as far as it could be read. `code` is empty where the body was no JSON."""

    status: int
    code: str = ""
    message: str = ""
    details: str = ""
    retry_after_s: float | None = None
    is_json: bool = True


# A code stands before its class ("40" for 40001); the first word is the kind of error it becomes.
_BY_SQLSTATE = {
    "57014": "cancelled",
    "25P04": "timeout",  # transaction_timeout, Postgres 17
    "25P03": "transient",
    "55P03": "transient",
    "55006": "transient",
    "40": "transient",
    "53200": "transient",
    "53300": "throttle",
    "53400": "throttle",
    "08P01": "config",
    "08": "lost",
    "57P": "lost",
    "58": "transient",
    "25006": "config",
    "25P02": "transient",
    "53100": "config",
    "28": "config",
    "3D": "config",
    "3F": "config",
    "42883": "function",
    "42": "config",
    "0A": "config",
    "21": "config",
    "22": "data",
    "23": "data",
    "54": "data",
    "P0": "data",
    "44": "data",  # a view's check option
}
_BY_PGRST = {
    "PGRST000": "unreachable",
    "PGRST001": "unreachable",
    "PGRST002": "unreachable",
    "PGRST003": "throttle",
    "PGRST202": "function",
}
# `@supabase/lite` 0.10 answers 500 with code SUP for every SQLSTATE it does not know; the message stays (2026-11-21).
_BY_WORDS = (
    (re.compile(r"canceling statement due to statement timeout", re.I), "timeout"),
    (re.compile(r"canceling statement due to lock timeout|deadlock detected|could not serialize", re.I), "transient"),
    (re.compile(r"violates [a-z-]+ constraint|value too long|invalid input|out of range|malformed", re.I), "data"),
    (re.compile(r"read-only transaction|No space left|permission denied", re.I), "config"),
    (re.compile(r"Tenant or user not found|password authentication failed|no pg_hba\.conf entry", re.I), "config"),
    (re.compile(r"(?:database|role) .* does not exist", re.I), "config"),
    (
        re.compile(r"too many (?:clients|connections)|remaining connection slots|Max client connections", re.I),
        "throttle",
    ),
    (re.compile(r"is (?:starting up|shutting down)|in recovery mode|not yet accepting", re.I), "unreachable"),
)
_FIXES = {
    "25006": "the database is read-only (a replica, or the disk is full): free space or use the primary",
    "53100": "the database's disk is full: free space or grow it",
    "42501": "use the service_role key, the table's owner, or the role `catchup_worker` (`catchup migrate --print`)",
    "42P01": "check the table's name and schema, or run `catchup migrate`",
    "42703": "check the column names of the target",
    "42883": "run `catchup migrate`",
    "PGRST202": "run `catchup migrate`; if it has run, reload PostgREST's schema cache",
    "PGRST204": "check the column names of the target",
    "PGRST205": "check the table's name and schema",
    "PGRST301": "check SUPABASE_SERVICE_ROLE_KEY: it must be this project's",
    "PGRST303": "the key has expired: take a new one from the project's settings",
}
_QUOTED = re.compile(r'"([^"]*)"')
_LONGEST_QUOTE = 40  # names are shorter; what is longer is a value
_ROW = re.compile(r"(Failing row contains |Key |\)=)\(.*?\)(?=\.|\s|$|=)", re.S)
_KEY = re.compile(r"=\(.*\)", re.S)
_WORDS_LENGTH = 300
_HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN, _HTTP_TIMEOUT, _HTTP_TOO_MANY = 401, 403, 408, 429
_HTTP_SERVER_ERROR, _HTTP_REDIRECT = 500, 300


def quote_server(message: str, details: str = "") -> str:
    """The server's own words without row contents: details like "Failing row contains (...)" carry user data."""
    words = message.splitlines()[0].removeprefix("PostgresError: ") if message else ""
    words = _QUOTED.sub(lambda quoted: quoted[0] if len(quoted[1]) <= _LONGEST_QUOTE else '"…"', words)
    if details and not details.startswith("Failing row"):
        words += f" ({_KEY.sub('=(…)', details.splitlines()[0])})"
    return redact(_ROW.sub(r"\1(…)", words))[:_WORDS_LENGTH]


def translate_psycopg(error: psycopg.Error, *, writing: bool) -> CatchupError:
    """An exception of a statement that was sent; for one that never connected see `translate_connect`."""
    code = error.sqlstate or ""
    message = error.diag.message_primary or str(error)
    words = quote_server(message, error.diag.message_detail or "")
    if not code:
        kind = _kind_by_words(message) or "lost"
        if type(error).__name__ in ("DataError", "ProgrammingError"):
            kind = "data"
        return _make(kind, code, words, writing=writing)
    return _make(_kind_by_sqlstate(code, message), code, words, writing=writing)


def translate_connect(error: Exception) -> CatchupError:
    """No connection: an outage, unless the server answered that it does not want us."""
    message = str(error)
    code = getattr(error, "sqlstate", None) or ""
    kind = _kind_by_sqlstate(code, message) if code else _kind_by_words(message)
    if kind is None:
        kind = "config" if "FATAL:" in message else "unreachable"
    if kind in ("lost", "data"):
        kind = "unreachable"
    lines = [line for line in message.splitlines() if line.strip()]
    return _make(kind, code, quote_server(lines[-1] if lines else ""), writing=False)


def translate_postgrest(refusal: Refusal, *, writing: bool) -> CatchupError:
    """An answer other than 2xx; HTML and 52x come from what stands in front of PostgREST."""
    if _HTTP_REDIRECT <= refusal.status < _HTTP_REDIRECT + 100:
        return Misconfigured(
            f"the database's address answered with a redirect ({refusal.status}), which is never followed",
            fix="set SUPABASE_URL to the project's own address",
            service="database",
            code=str(refusal.status),
        )
    words = quote_server(refusal.message, refusal.details) if refusal.is_json else ""
    code = refusal.code or str(refusal.status)
    return _make(_kind_by_answer(refusal), code, words, writing=writing, wait_s=refusal.retry_after_s)


def _kind_by_answer(refusal: Refusal) -> str:
    status, code = refusal.status, refusal.code
    if status in (_HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN):
        return "config"
    if code == "SUP":
        return _kind_by_words(refusal.message) or "transient"
    if code in _BY_PGRST:
        return _BY_PGRST[code]
    if re.fullmatch(r"[0-9A-Z]{5}", code):
        return _kind_by_sqlstate(code, refusal.message)
    if status == _HTTP_TOO_MANY:
        return "throttle"
    return "transient" if status >= _HTTP_SERVER_ERROR or status == _HTTP_TIMEOUT else "config"


def malformed_answer(function: str, *, writing: bool) -> CatchupError:
    """A success that cannot be read: a write may have happened, so it is asked again under the same write id."""
    what = f"the database's answer to {function} was cut or is not JSON"
    return (UnknownOutcome if writing else Transient)(what, service="database")


def lost_answer(why: str, *, writing: bool) -> CatchupError:
    """The request went out and the connection ended or stayed silent."""
    what = f"the database did not answer ({why})"
    return (UnknownOutcome if writing else Transient)(what, service="database")


def unreachable(why: str) -> Unreachable:
    return Unreachable(f"the database cannot be reached ({why})", service="database", words=why)


def _kind_by_sqlstate(code: str, message: str) -> str:
    kind = next((_BY_SQLSTATE[code[:n]] for n in (5, 3, 2) if code[:n] in _BY_SQLSTATE), None)
    if kind == "cancelled":
        # 57014 is also an administrator's pg_cancel_backend, which smaller pages would not cure.
        return "timeout" if "timeout" in message or "user request" not in message else "transient"
    return kind or _kind_by_words(message) or "transient"


def _kind_by_words(message: str) -> str | None:
    return next((kind for pattern, kind in _BY_WORDS if pattern.search(message)), None)


def _make(kind: str, code: str, words: str, *, writing: bool, wait_s: float | None = None) -> CatchupError:
    said = f": {words}" if words else ""
    mark = f" ({code})" if code else ""
    if kind == "function":
        missing = f"the database has no such function{mark}{said}"
        return MissingFunction(missing, fix=_FIXES["42883"], service="database", code=code, words=words)
    if kind == "data" and writing:
        return DataRejected(
            f"the database refused a value{mark}{said}",
            reason="refused_by_database",
            service="database",
            code=code,
            words=words,
        )
    if kind in ("config", "data"):
        fix = _FIXES.get(code, "see the database's words")
        return Misconfigured(f"the database refused{mark}{said}", fix=fix, service="database", code=code, words=words)
    if kind == "lost" and writing and not code.startswith("57P03"):
        return UnknownOutcome(f"the connection was lost{mark}{said}", service="database", code=code, words=words)
    classes: dict[str, type[Transient | Throttle]] = {
        "timeout": StatementTimeout,
        "throttle": Throttle,
        "unreachable": Unreachable,
        "lost": Unreachable,
    }
    what = {
        "timeout": "the database cancelled the statement",
        "throttle": "the database has no free connection",
        "unreachable": "the database cannot be reached",
        "lost": "the connection was lost",
    }.get(kind, "the database failed for the moment")
    return classes.get(kind, Transient)(
        f"{what}{mark}{said}", service="database", code=code, words=words, retry_after_s=wait_s
    )
