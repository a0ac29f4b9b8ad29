"""Pinecone's failures as ours: one pure function from what was seen to an error of queries.errors.

Nothing here raises and nothing here knows the SDK: an exception is judged by the names of its classes, down its chain
of causes. The words are those of Pinecone's pages on limits and of its data plane (read 2026-11-21).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from queries.causes import causes_of
from queries.errors import (
    CatchupError,
    DataRejected,
    Misconfigured,
    OutOfMoney,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.openai_bodies import Said, clean_words, read_error
from queries.openai_limits import told_wait_s

SERVICE = "pinecone"

INDEX_ABSENT, NAMESPACE_ABSENT, ALREADY_THERE = "index_not_found", "namespace_not_found", "already_exists"

_MONTH = re.compile(r"for the current month|per month|monthly", re.I)
_PLAN = re.compile(
    r"max (?:\w+ ){0,3}storage|storage limit|payment|billing|quota[ _]exceeded|upgrade your plan|max [\w ]+ allowed in",
    re.I,
)
_PACE = re.compile(r"per (?:second|minute)|pace your|too many requests|rate limit", re.I)
_DIMENSION = re.compile(
    r"dimension\D{0,20}\d*\s*does not match|dimension of the index|vector dimension|must have dimension", re.I
)
_TOO_LARGE = re.compile(r"message length too large|larger than the maximum supported size|payload too large", re.I)
_NAMESPACE = re.compile(r"namespace", re.I)
_REPEATED = re.compile(r"(metadata value.*?got ).*?((?: for field '[^']*')?\.?)$", re.I | re.S)

# What a 400 complains of, as a short stable word for the books; the first that fits.
_COMPLAINTS = (
    ("metadata_too_large", re.compile(r"metadata size", re.I)),
    ("metadata", re.compile(r"metadata", re.I)),
    ("vector_id", re.compile(r"vector id must|\bid must|ids? (?:must|should)|invalid id", re.I)),
    ("all_zero", re.compile(r"non-zero", re.I)),
    ("not_finite", re.compile(r"type_float|\bnan\b|infinit|finite", re.I)),
)

_NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "gaierror", "ConnectionRefusedError"})
_BAD_ADDRESS = frozenset({"UnsupportedProtocol", "InvalidURL"})
_REFUSED_BY_SDK = frozenset({"LocalProtocolError", "PineconeValueError", "PineconeTypeError"})
_PASSING_4XX = frozenset({408, 425, 499})
_GAVE_UP = frozenset({504, 524})


@dataclass(frozen=True, slots=True)
class _Seen:
    status: int
    said: Said
    words: str
    wait_s: float | None
    writing: bool

    @property
    def code(self) -> str:
        return f"http_{self.status}"


def classify(
    status: int | None,
    body: bytes | str = b"",
    headers: Mapping[str, str] | None = None,
    exception: BaseException | None = None,
    *,
    secrets: Sequence[str] = (),
    writing: bool = False,
    now_s: float | None = None,
) -> CatchupError:
    """The one error this answer, or this lack of one, amounts to. `writing`: the request carried records of ours."""
    if status is None:
        return classify_exception(exception)
    headers = headers or {}
    said = read_error(body)
    # A complaint about metadata repeats the value it dislikes, which is a row's content.
    told = _REPEATED.sub(r"\1...\2", said.message)
    seen = _Seen(status, said, clean_words(told, secrets, ""), told_wait_s(headers, said.message, now_s=now_s), writing)
    return _by_words(seen) or _by_status(seen)


def classify_exception(exception: BaseException | None) -> CatchupError:
    """No answer: never sent is an outage; after sending, doubt counts as done, and putting it again does no harm."""
    causes = causes_of(exception)
    names, name = causes.names, causes.code
    if _BAD_ADDRESS & names:
        what, fix = "The address of the index is not a URL it can be reached at.", "Check PINECONE_INDEX_HOST."
        return Misconfigured(what, service=SERVICE, code=name, fix=fix)
    if "ResponseParsingError" in names:
        return malformed("its fields are not those of the API")
    if _REFUSED_BY_SDK & names:
        what = "Pinecone's client refuses to send the request."
        return Misconfigured(what, service=SERVICE, code=name, fix="Check PINECONE_API_KEY and the names.")
    if _NEVER_SENT & names:
        return unreachable(name)
    return unanswered(name)


def unreachable(code: str) -> Unreachable:
    return Unreachable("No connection to Pinecone could be made.", service=SERVICE, code=code)


def unanswered(code: str) -> UnknownOutcome:
    what = "The request to Pinecone went out and no whole answer came back."
    return UnknownOutcome(what, service=SERVICE, code=code)


def malformed(what: str) -> Transient:
    """A 200 that is no answer."""
    return Transient(f"Pinecone's answer is malformed: {what}.", service=SERVICE, code="malformed")


def worst(failures: Sequence[CatchupError]) -> CatchupError:
    """Of several at once the one that decides: what stops the run, then what names an item, then the longest wait."""

    def rank(error: CatchupError) -> tuple[int, float]:
        kinds = (DataRejected, Throttle, UnknownOutcome, Transient)
        at = next((n for n, kind in enumerate(kinds) if isinstance(error, kind)), -1)
        return at, -(getattr(error, "retry_after_s", None) or 0.0)

    return min(failures, key=rank)


def _by_words(seen: _Seen) -> CatchupError | None:
    """Verdicts that the words decide whatever the status: a fatal body stays fatal behind a 500."""
    if seen.status < 400:
        return None
    message = f"{seen.said.code} {seen.said.message}"
    paced = _PACE.search(message)
    if seen.status == 402 or _MONTH.search(message) or (_PLAN.search(message) and not paced):
        return OutOfMoney(
            "Pinecone refuses to work for this project: a quota of its plan is used up.",
            service=SERVICE,
            code=seen.code,
            words=seen.words,
            fix="Wait for the next month or upgrade the plan, then run the same command again.",
        )
    if seen.status == 429 or (paced and seen.status in (400, 403)):
        what = "Pinecone asks for a slower pace."
        return Throttle(what, service=SERVICE, code=seen.code, words=seen.words, retry_after_s=seen.wait_s)
    if _DIMENSION.search(message):
        return Misconfigured(
            "The vectors do not have the dimension of the index.",
            service=SERVICE,
            code="dimension",
            words=seen.words,
            fix="Use a model or dimension of that length, or another index.",
        )
    return None


def _by_status(seen: _Seen) -> CatchupError:
    status = seen.status
    if status < 300:
        return malformed("an error inside a success")
    if status >= 500 or status in _PASSING_4XX:
        return _failed(seen)
    if status == 409:
        return Transient("It is there already.", service=SERVICE, code=ALREADY_THERE, words=seen.words)
    too_large = status == 413 or _TOO_LARGE.search(seen.said.message)
    if seen.writing and (too_large or status in (400, 422)):
        return _rejected(seen, "request_too_large" if too_large else _complaint(seen.said.message))
    return _config(seen)


def _failed(seen: _Seen) -> Transient | UnknownOutcome:
    kind: type[Transient] | type[UnknownOutcome] = UnknownOutcome if seen.status in _GAVE_UP else Transient
    what = f"Pinecone failed ({seen.status})."
    return kind(what, service=SERVICE, code=seen.code, words=seen.words, retry_after_s=seen.wait_s)


def _complaint(message: str) -> str:
    return next((reason for reason, words in _COMPLAINTS if words.search(message)), "rejected")


def _rejected(seen: _Seen, reason: str) -> DataRejected:
    what = f"Pinecone refused a record ({seen.status})."
    return DataRejected(what, reason=reason, service=SERVICE, code=seen.code, words=seen.words)


def _config(seen: _Seen) -> Misconfigured:
    code = seen.code
    what, fix = f"Pinecone does not take the request ({seen.status}).", "Check index, namespace and host."
    if seen.status in (401, 403):
        what, fix = "Pinecone does not accept the API key for this index.", "Check PINECONE_API_KEY and its project."
    elif seen.status == 404 and _NAMESPACE.search(seen.said.message):
        code, what, fix = NAMESPACE_ABSENT, "The namespace does not exist.", "Check its name, or --create-namespace."
    elif seen.status == 404:
        code, what, fix = INDEX_ABSENT, "The index does not exist.", "Check its name and host, or --create-index."
    elif seen.status < 400:
        what, fix = "Pinecone's address redirects elsewhere, and the key does not follow.", "Check PINECONE_INDEX_HOST."
    return Misconfigured(what, service=SERVICE, code=code, words=seen.words, fix=fix)
