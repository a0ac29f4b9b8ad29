"""Every answer of Pinecone is exactly one class of error, and a fatal one is never retried."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinecone.errors.exceptions import PineconeConnectionError, PineconeTimeoutError, PineconeValueError

from queries.errors import (
    CatchupError,
    DataRejected,
    Misconfigured,
    OutOfMoney,
    RunFatal,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.pinecone_errors import ALREADY_THERE, INDEX_ABSENT, NAMESPACE_ABSENT, classify, malformed, worst
from tests.servers.fake_pinecone_world import MONTHLY, PER_SECOND

KEY = "pcsk_s3ntinel_0123456789abcdef"


def plane(message: str, code: int = 3) -> dict[str, Any]:
    """The data plane's way to say it."""
    return {"code": code, "message": message, "details": []}


def control(code: str, message: str, status: int) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}, "status": status}


class Case(NamedTuple):
    name: str
    status: int
    body: Any
    becomes: type[CatchupError]
    code: str = ""
    writing: bool = True


STORAGE = (
    "Request failed. You've reached the max storage allowed for project P. To continue writing data, upgrade your plan."
)
READ_UNITS = (
    "Request failed. You've reached your read unit limit for the current month limit. \nTo continue, upgrade your plan."
)
INDEXES = (
    "Request failed. You've reached the max serverless indexes allowed in project P. To add more, upgrade your plan."
)
PER_NAMESPACE = (
    "Request failed. You've reached the max delete records per second for namespace ns. Pace your delete requests."
)
DIMENSION = "Vector dimension 4 does not match the dimension of the index 1536"
METADATA = "Metadata value must be a string, number, boolean or list of strings, got 'secret row' for field 'title'"
LENGTH = "Error, message length too large: found 2197152 bytes, the limit is: 2097152 bytes"

CASES = (
    Case("a second's limit of upserts", 429, plane(PER_SECOND, 8), Throttle),
    Case("a second's limit of deletes", 429, plane(PER_NAMESPACE, 8), Throttle),
    Case("a 429 without words", 429, "", Throttle),
    Case("a 429 as a page", 429, "<html><title>Too Many Requests</title></html>", Throttle),
    Case("a pace limit sent as 403", 403, plane("You've reached the max upsert rate per second"), Throttle),
    Case("the month's write units", 429, plane(MONTHLY, 8), OutOfMoney),
    Case("the month's write units behind Too Many Requests", 429, f"Too Many Requests: {MONTHLY}", OutOfMoney),
    Case("the month's read units", 429, plane(READ_UNITS, 8), OutOfMoney, writing=False),
    Case("storage", 403, control("QUOTA_EXCEEDED", STORAGE, 403), OutOfMoney),
    Case("indexes of the plan", 403, control("QUOTA_EXCEEDED", INDEXES, 403), OutOfMoney, writing=False),
    Case("payment", 402, control("PAYMENT_REQUIRED", "No active payment method", 402), OutOfMoney),
    Case("a month's limit behind a 500", 500, plane(MONTHLY), OutOfMoney),
    Case("a wrong key", 401, "Invalid API Key", Misconfigured, "http_401"),
    Case("a key of another project", 403, control("FORBIDDEN", "Forbidden", 403), Misconfigured, "http_403"),
    Case("no index", 404, control("NOT_FOUND", "Resource videos not found", 404), Misconfigured, INDEX_ABSENT),
    Case("no host", 404, "default backend - 404", Misconfigured, INDEX_ABSENT),
    Case("no namespace", 404, plane("Namespace not found", 5), Misconfigured, NAMESPACE_ABSENT),
    Case("a namespace twice", 409, plane("Namespace ns already exists", 6), Transient, ALREADY_THERE, writing=False),
    Case("another dimension", 400, plane(DIMENSION), Misconfigured, "dimension"),
    Case("another dimension in a query", 400, plane(f"Query {DIMENSION}"), Misconfigured, "dimension", writing=False),
    Case(
        "another dimension, in needledb's words",
        400,
        plane("vectors must have dimension 8, got 4"),
        Misconfigured,
        "dimension",
    ),
    Case("metadata of a wrong kind", 400, plane(METADATA), DataRejected, "metadata"),
    Case(
        "metadata too large",
        400,
        plane("Metadata size is 41804 bytes, which exceeds"),
        DataRejected,
        "metadata_too_large",
    ),
    Case("an id that is not ASCII", 400, plane("Vector ID must be ASCII, but got 'ö'"), DataRejected, "vector_id"),
    Case("all zero", 400, plane("Dense vectors must contain at least one non-zero value."), DataRejected, "all_zero"),
    Case("NaN", 400, plane("vectors[0].values[1]: invalid value null for type TYPE_FLOAT"), DataRejected, "not_finite"),
    Case("an unknown complaint", 400, plane("something else"), DataRejected, "rejected"),
    Case("unprocessable", 422, plane("something else"), DataRejected, "rejected"),
    Case("too long a message", 400, plane(LENGTH, 11), DataRejected, "request_too_large"),
    Case("a proxy's 413", 413, "<html><title>413</title></html>", DataRejected, "request_too_large"),
    Case("a bad question", 400, plane("Invalid pagination token"), Misconfigured, writing=False),
    Case("a redirect", 307, "", Misconfigured),
    Case("a permanent redirect", 308, "", Misconfigured),
    Case("not allowed", 405, "", Misconfigured),
    Case("a precondition", 412, plane("not in a state"), Misconfigured),
    Case("a slow client", 408, "", Transient),
    Case("an error", 500, plane("internal error", 13), Transient),
    Case("a bad gateway", 502, "<html><title>502 Bad Gateway</title></html>", Transient),
    Case("unavailable", 503, plane("unavailable", 14), Transient),
    Case("a proxy's patience", 504, "", UnknownOutcome),
    Case("another proxy's patience", 524, "<html></html>", UnknownOutcome),
    Case("an error inside a success", 200, plane("oops"), Transient),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_is_one_class_of_error(case: Case) -> None:
    """The table gives exactly the class it names, and for records the word that goes into the books."""
    body = case.body if isinstance(case.body, str) else json.dumps(case.body)
    error = classify(case.status, body.encode(), {}, writing=case.writing)
    assert type(error) is case.becomes, (type(error), error.what)
    if case.code:
        assert (error.reason if isinstance(error, DataRejected) else getattr(error, "code", "")) == case.code


def test_the_told_wait_is_kept() -> None:
    """Retry-After of a 429 reaches the limiter."""
    error = classify(429, json.dumps(plane(PER_SECOND)), {"retry-after": "7"})
    assert isinstance(error, Throttle)
    assert error.retry_after_s == 7.0


def test_words_hold_neither_key_nor_row() -> None:
    """The service's words are kept, without the key they repeat and without the metadata value they dislike."""
    said = classify(401, f"Invalid API Key {KEY}", {}, secrets=(KEY,))
    assert "Invalid API Key" in getattr(said, "words", "")
    assert "s3ntinel" not in str(vars(said))
    refused = classify(400, json.dumps(plane(METADATA)), {}, writing=True)
    assert isinstance(refused, DataRejected)
    assert "secret row" not in refused.words
    assert "for field 'title'" in refused.words


def chained(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("exception", "becomes"),
    [
        (chained(PineconeConnectionError("x"), httpx.ConnectError("refused")), Unreachable),
        (chained(PineconeTimeoutError("x"), httpx.ConnectTimeout("slow")), Unreachable),
        (chained(PineconeTimeoutError("x"), httpx.PoolTimeout("full")), Unreachable),
        (chained(PineconeTimeoutError("x"), httpx.ReadTimeout("")), UnknownOutcome),
        (chained(PineconeConnectionError("x"), httpx.RemoteProtocolError("disconnected")), UnknownOutcome),
        (chained(PineconeConnectionError("x"), httpx.WriteError("reset")), UnknownOutcome),
        (TimeoutError(), UnknownOutcome),
        (chained(PineconeConnectionError("x"), httpx.UnsupportedProtocol("ftp")), Misconfigured),
        (PineconeValueError("the key has a newline"), Misconfigured),
        (None, UnknownOutcome),
        (RuntimeError("?"), UnknownOutcome),
    ],
    ids=lambda each: getattr(each, "__name__", repr(each)),
)
def test_no_answer_is_an_outage_only_when_nothing_was_sent(
    exception: Exception | None, becomes: type[CatchupError]
) -> None:
    """After sending the outcome is unknown, and doubt counts as sent."""
    assert type(classify(None, exception=exception)) is becomes


@given(st.integers(100, 599), st.one_of(st.text(), st.binary().map(lambda b: b.decode("latin-1"))), st.booleans())
def test_junk_never_raises(status: int, body: str, writing: bool) -> None:
    """Whatever comes, one error of ours comes out."""
    assert isinstance(classify(status, body, {"retry-after": body[:20]}, writing=writing), CatchupError)


@pytest.mark.parametrize("status", range(400, 600))
def test_a_fatal_body_is_fatal_whatever_the_status(status: int) -> None:
    """The month's limit stops the run also behind a 500."""
    assert isinstance(classify(status, json.dumps(plane(MONTHLY))), RunFatal)


def test_of_several_failures_the_decisive_one_is_told() -> None:
    """What stops the run stands above what names a record, and that above what is simply repeated."""
    slow, slower = classify(429, "", {"retry-after": "1"}), classify(429, "", {"retry-after": "9"})
    bad, gone = classify(400, "x", writing=True), classify(401, "")
    assert worst([malformed("x"), slow, bad, gone]) is gone
    assert worst([malformed("x"), slow, bad]) is bad
    assert worst([malformed("x"), slow, slower]) is slower
