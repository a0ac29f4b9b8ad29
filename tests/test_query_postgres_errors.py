"""The specification of queries.postgres_errors: what Postgres, PostgREST and its gateways say, and what it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors as pg

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
from queries.postgres_errors import (
    MissingFunction,
    Refusal,
    malformed_answer,
    quote_server,
    translate_connect,
    translate_postgrest,
    translate_psycopg,
)
from tests.servers.fault_proxy import HTML

# sqlstate, while reading, while writing
SQLSTATES = [
    ("57014", StatementTimeout, StatementTimeout),
    ("25P04", StatementTimeout, StatementTimeout),
    ("40P01", Transient, Transient),
    ("40001", Transient, Transient),
    ("55P03", Transient, Transient),
    ("53200", Transient, Transient),
    ("53300", Throttle, Throttle),
    ("08006", Unreachable, UnknownOutcome),
    ("57P01", Unreachable, UnknownOutcome),
    ("25006", Misconfigured, Misconfigured),
    ("53100", Misconfigured, Misconfigured),
    ("28P01", Misconfigured, Misconfigured),
    ("3D000", Misconfigured, Misconfigured),
    ("42P01", Misconfigured, Misconfigured),
    ("42703", Misconfigured, Misconfigured),
    ("42501", Misconfigured, Misconfigured),
    ("42883", MissingFunction, MissingFunction),
    ("21000", Misconfigured, Misconfigured),
    ("22P02", Misconfigured, DataRejected),
    ("22P05", Misconfigured, DataRejected),
    ("22021", Misconfigured, DataRejected),
    ("22001", Misconfigured, DataRejected),
    ("23502", Misconfigured, DataRejected),
    ("23505", Misconfigured, DataRejected),
    ("23514", Misconfigured, DataRejected),
    ("54000", Misconfigured, DataRejected),
    ("P0001", Misconfigured, DataRejected),
    ("XX000", Transient, Transient),
]


@pytest.mark.parametrize(("code", "reading", "writing"), SQLSTATES, ids=[row[0] for row in SQLSTATES])
def test_a_sqlstate_means_the_same_on_both_roads(
    code: str, reading: type[CatchupError], writing: type[CatchupError]
) -> None:
    """Fatal, passing, or the data's fault: decided by the code, never by the HTTP status around it."""
    for is_writing, expected in ((False, reading), (True, writing)):
        exception = pg.lookup(code)("words of the server")
        assert type(translate_psycopg(exception, writing=is_writing)) is expected
        for status in (400, 404, 500, 503):
            refusal = Refusal(status, code, "words of the server")
            assert type(translate_postgrest(refusal, writing=is_writing)) is expected


HTTP = [
    pytest.param(Refusal(503, "PGRST000", "no connection"), Unreachable, id="PGRST000"),
    pytest.param(Refusal(503, "PGRST001", "no connection"), Unreachable, id="PGRST001"),
    pytest.param(Refusal(503, "PGRST002", "schema cache"), Unreachable, id="PGRST002"),
    pytest.param(Refusal(504, "PGRST003", "pool", retry_after_s=9.0), Throttle, id="PGRST003"),
    pytest.param(Refusal(404, "PGRST202", "function"), MissingFunction, id="PGRST202"),
    pytest.param(Refusal(400, "PGRST204", "column"), Misconfigured, id="PGRST204"),
    pytest.param(Refusal(404, "PGRST205", "table"), Misconfigured, id="PGRST205"),
    pytest.param(Refusal(401, "PGRST301", "JWT"), Misconfigured, id="PGRST301"),
    pytest.param(Refusal(401, "PGRST303", "JWT expired"), Misconfigured, id="PGRST303"),
    pytest.param(Refusal(401, "", "Invalid API key"), Misconfigured, id="401"),
    pytest.param(Refusal(403, "42501", "permission denied"), Misconfigured, id="403"),
    pytest.param(Refusal(401, "42501", "permission denied"), Misconfigured, id="401-as-anon"),
    pytest.param(Refusal(405, "25006", "read-only"), Misconfigured, id="405"),
    pytest.param(Refusal(301, is_json=False), Misconfigured, id="301"),
    pytest.param(Refusal(302, is_json=False), Misconfigured, id="302"),
    pytest.param(Refusal(307, is_json=False), Misconfigured, id="307"),
    pytest.param(Refusal(404, "", HTML, is_json=False), Misconfigured, id="404-html"),
    pytest.param(Refusal(414, "", "URI too long", is_json=False), Misconfigured, id="414"),
    pytest.param(Refusal(408, "", "", is_json=False), Transient, id="408"),
    pytest.param(Refusal(429, "", "", retry_after_s=3.0, is_json=False), Throttle, id="429"),
    pytest.param(Refusal(500, "SUP", "canceling statement due to statement timeout"), StatementTimeout, id="SUP-57014"),
    pytest.param(Refusal(500, "SUP", "deadlock detected"), Transient, id="SUP-40P01"),
    pytest.param(Refusal(500, "SUP", "canceling statement due to lock timeout"), Transient, id="SUP-55P03"),
    pytest.param(Refusal(500, "SUP", 'row violates check constraint "c"'), DataRejected, id="SUP-23514"),
    pytest.param(Refusal(500, "SUP", "anything else"), Transient, id="SUP-unknown"),
    *(
        pytest.param(Refusal(status, "", HTML, is_json=False), Transient, id=f"{status}-html")
        for status in (500, 502, 503, 504, 520, 521, 522, 524)
    ),
]  # fmt: skip


@pytest.mark.parametrize(("refusal", "expected"), HTTP)
def test_an_http_answer_is_one_kind_of_error(refusal: Refusal, expected: type[CatchupError]) -> None:
    """Each (status, code, shape) maps to exactly one class, and the server's wait is kept."""
    error = translate_postgrest(refusal, writing=True)
    assert type(error) is expected
    assert getattr(error, "retry_after_s", refusal.retry_after_s) == refusal.retry_after_s
    assert "<html>" not in str(error)


CONNECT = [
    pytest.param('connection to server at "h" failed: Connection refused', Unreachable, id="refused"),
    pytest.param("could not translate host name: Name or service not known", Unreachable, id="dns"),
    pytest.param("connection timeout expired", Unreachable, id="timeout"),
    pytest.param("FATAL:  the database system is starting up", Unreachable, id="starting"),
    pytest.param("FATAL:  the database system is shutting down", Unreachable, id="stopping"),
    pytest.param("FATAL:  sorry, too many clients already", Throttle, id="too-many-clients"),
    pytest.param("FATAL:  Max client connections reached", Throttle, id="pooler-full"),
    pytest.param('FATAL:  password authentication failed for user "u"', Misconfigured, id="password"),
    pytest.param('FATAL:  database "nope" does not exist', Misconfigured, id="database"),
    pytest.param('FATAL:  role "nope" does not exist', Misconfigured, id="role"),
    pytest.param('FATAL:  no pg_hba.conf entry for host "h"', Misconfigured, id="pg_hba"),
    pytest.param("FATAL:  Tenant or user not found", Misconfigured, id="supavisor-tenant"),
]


@pytest.mark.parametrize(("words", "expected"), CONNECT)
def test_a_connection_that_was_not_made(words: str, expected: type[CatchupError]) -> None:
    """An outage waits, a refusal by the server stops; nothing was sent, so nothing is unknown."""
    assert type(translate_connect(pg.OperationalError(words))) is expected


def test_a_cancel_by_a_person_is_not_a_timeout() -> None:
    """57014 is also pg_cancel_backend: smaller pages would not cure that."""
    refusal = Refusal(500, "57014", "canceling statement due to user request")
    assert type(translate_postgrest(refusal, writing=True)) is Transient


WORDS = [
    pytest.param("null value", "Failing row contains (1, secret text, null).", id="failing-row"),
    pytest.param("duplicate key", "Key (email)=(secret@text) already exists.", id="key"),
    pytest.param('invalid input syntax for type json: "' + "secret text " * 9 + '"', "", id="long-value"),
    pytest.param("new row violates policy\nsecret text of the next line", "", id="second-line"),
]


@pytest.mark.parametrize(("message", "details"), WORDS)
def test_row_contents_never_reach_a_message(message: str, details: str) -> None:
    """S5: details carry what users wrote."""
    assert "secret" not in quote_server(message, details)
    assert "secret" not in str(translate_postgrest(Refusal(400, "23502", message, details), writing=True))


def test_names_in_a_message_are_kept() -> None:
    """Redaction must leave what the operator needs: which column, which constraint."""
    words = quote_server('null value in column "title" of relation "videos" violates not-null constraint')
    assert '"title"' in words
    assert '"videos"' in words


@pytest.mark.parametrize(("writing", "expected"), [(False, Transient), (True, UnknownOutcome)])
def test_an_answer_that_cannot_be_read_is_not_believed(writing: bool, expected: type[CatchupError]) -> None:
    """S8: a read is asked again; a write may have happened."""
    assert type(malformed_answer("f", writing=writing)) is expected


@given(
    st.integers(300, 599), st.text(max_size=8), st.text(), st.text(), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_junk_is_translated(
    status: int, code: str, message: str, details: str, is_json: bool, writing: bool
) -> None:
    """Never raises, and a refusal of who we are or where we ask is never called passing."""
    error = translate_postgrest(Refusal(status, code, message, details, None, is_json), writing=writing)
    assert isinstance(error, CatchupError)
    if status in (401, 403, *range(300, 400)):
        assert type(error) is Misconfigured
