"""YouTube's failures as ours: one pure function from what was seen to an error of queries.errors.

Nothing here raises and nothing here knows the SDK: an exception is judged by the names of its classes, down its chain
of causes. Google tells an error in two forms at once, `errors[].reason` and `details[]` of google.rpc, and either may
be the only one that says what it is. The reasons are those of its pages on errors (read 2026-11-21).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from queries.causes import causes_of
from queries.errors import (
    CatchupError,
    ItemPermanent,
    Misconfigured,
    OutOfMoney,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.openai_bodies import MESSAGE_AT_MOST, READ_AT_MOST, clean_words, read_error
from queries.openai_limits import told_wait_s

SERVICE = "youtube"

DAY = frozenset({"quotaexceeded", "dailylimitexceeded"})
PACE = frozenset(
    {
        "ratelimitexceeded",
        "userratelimitexceeded",
        "servinglimitexceeded",
        "concurrentlimitexceeded",
        "rate_limit_exceeded",
        "resource_exhausted",
        "resource_quota_exceeded",
    }
)
CONFIG = frozenset(
    {
        "keyinvalid",
        "keyexpired",
        "accessnotconfigured",
        "iprefererblocked",
        "autherror",
        "required",
        "forbidden",
        "insufficientpermissions",
        "authorizationrequired",
        "accountdisabled",
        "accountclosed",
        "accountsuspended",
        "billingnotenabled",
        "dailylimitexceededunreg",
        "ratelimitexceededunreg",
        "userratelimitexceededunreg",
        "sslrequired",
        "unauthenticated",
        "permission_denied",
        "api_key_invalid",
        "api_key_expired",
        "api_key_service_blocked",
        "api_key_http_referrer_blocked",
        "api_key_ip_address_blocked",
        "api_key_android_app_blocked",
        "api_key_ios_app_blocked",
        "service_disabled",
        "service_not_activated",
        "consumer_invalid",
        "consumer_suspended",
        "billing_disabled",
        "invalidpart",
        "unknownpart",
        "unexpectedpart",
        "incompatibleparameters",
        "missingrequiredparameter",
        "unexpectedparameter",
    }
)
# A limit a day may come as rateLimitExceeded or RESOURCE_EXHAUSTED: only the limit's name tells it from one a minute.
_A_DAY = re.compile(r"per day|perday|\b1/d\b|daily limit|midnight pacific", re.I)
_OVER_QUOTA = re.compile(r"exceeded your .{0,80}quota|daily limit exceeded", re.I | re.S)
_BAD_KEY = re.compile(r"api key not valid|api key expired|api key not found|unregistered callers", re.I)
_TOO_MANY = re.compile(r"too many|more than 50|at most 50|maximum.{0,20}50|limit.{0,20}50", re.I)
_OF_IDS = re.compile(r"\bids?\b|\bvideos?\b", re.I)

_GAVE_UP = frozenset({504, 524})
_PASSING_4XX = frozenset({408, 409, 425, 499})
_NEVER_SENT = frozenset({"NotSent", "ServerNotFoundError", "gaierror", "ConnectionRefusedError"})
_BAD_ADDRESS = frozenset({"InvalidURL", "RelativeURIError", "UnknownApiNameOrVersion"})


@dataclass(frozen=True, slots=True)
class _Seen:
    """Everything one verdict needs. `named` is what limits are called where the body names them."""

    status: int
    reasons: frozenset[str]
    code: str
    message: str
    named: str
    place: str
    words: str
    wait_s: float | None


def classify(
    status: int | None,
    body: bytes | str = b"",
    headers: Mapping[str, str] | None = None,
    exception: BaseException | None = None,
    *,
    secrets: Sequence[str] = (),
    now_s: float | None = None,
) -> CatchupError:
    """The one error this answer, or this lack of one, amounts to."""
    if status is None:
        return classify_exception(exception)
    seen = _see(status, body, headers or {}, secrets, now_s)
    return _by_reason(seen) or _by_status(seen)


def classify_exception(exception: BaseException | None) -> CatchupError:
    """No answer: never sent is an outage; after sending, the unit is spent, and asking again does no other harm."""
    causes = causes_of(exception)
    names, name = causes.names, causes.code
    if _BAD_ADDRESS & names:
        what, fix = "The address of the YouTube API is not a URL it can be reached at.", "Check YOUTUBE_API_ENDPOINT."
        return Misconfigured(what, service=SERVICE, code=name, fix=fix)
    if _NEVER_SENT & names:
        return Unreachable("No connection to YouTube could be made.", service=SERVICE, code=name)
    what = "The request to YouTube went out and no whole answer came back; its unit is spent."
    return UnknownOutcome(what, service=SERVICE, code=name)


def malformed(what: str) -> Transient:
    """A 200 that is no answer. Its unit is spent."""
    return Transient(f"YouTube's answer is malformed: {what}.", service=SERVICE, code="malformed")


def _see(
    status: int, body: bytes | str, headers: Mapping[str, str], secrets: Sequence[str], now_s: float | None
) -> _Seen:
    said, error = read_error(body), _find_error(body)
    entries = [each for key in ("errors", "details") for each in _mappings(error.get(key))]
    reasons = [each for each in (*(_text(e.get("reason")) for e in entries), _text(error.get("status"))) if each]
    named = " ".join(_limit_names(entries))
    return _Seen(
        status=status,
        reasons=frozenset(each.lower() for each in reasons),
        code=clean_words(reasons[0] if reasons else "", secrets, "")[:80] or f"http_{status}",
        message=said.message,
        named=f"{said.message} {named}",
        place=next((_text(e.get("location")) for e in entries if e.get("location")), ""),
        words=clean_words(re.sub(r"<[^>]{0,200}>", "", said.message), secrets, ""),
        wait_s=told_wait_s(headers, said.message, now_s=now_s) or _told_delay_s(entries),
    )


def _find_error(body: bytes | str) -> Mapping[str, object]:
    try:
        found = json.loads(body[:READ_AT_MOST])
    except (ValueError, RecursionError):
        return {}
    if isinstance(found, list) and found:
        found = found[0]
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else {}


def _mappings(value: object) -> Iterator[Mapping[str, object]]:
    if isinstance(value, list):
        yield from (each for each in value[:20] if isinstance(each, dict))


def _text(value: object) -> str:
    return value[:MESSAGE_AT_MOST] if isinstance(value, str) else ""


def _limit_names(entries: Iterable[Mapping[str, object]]) -> Iterator[str]:
    for entry in entries:
        facts = entry.get("metadata")
        if isinstance(facts, dict):
            yield from (_text(facts.get(key)) for key in ("quota_limit", "quota_unit"))
        for violation in _mappings(entry.get("violations")):
            yield from (_text(violation.get(key)) for key in ("subject", "description", "quotaId"))


def _told_delay_s(entries: Iterable[Mapping[str, object]]) -> float | None:
    """google.rpc.RetryInfo: "retryDelay": "37s"."""
    found = (re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,9})?)s", _text(e.get("retryDelay"))) for e in entries)
    return next((float(each.group(1)) for each in found if each), None)


def _by_reason(seen: _Seen) -> CatchupError | None:
    """Verdicts that reasons or words decide whatever the status: a fatal body stays fatal behind a 500."""
    paced = seen.reasons & PACE or seen.status == 429
    if seen.reasons & DAY or _OVER_QUOTA.search(seen.message) or (paced and _A_DAY.search(seen.named)):
        return OutOfMoney(
            "YouTube's quota for today is used up.",
            service=SERVICE,
            code=seen.code,
            words=seen.words,
            fix="It is given anew at midnight Pacific time; run the same command again after that.",
        )
    if _BAD_KEY.search(seen.message) or seen.reasons & CONFIG - {"forbidden", "permission_denied"}:
        return _config(seen)
    if paced:
        what = "YouTube asks for a slower pace."
        return Throttle(what, service=SERVICE, code=seen.code, words=seen.words, retry_after_s=seen.wait_s)
    return _config(seen) if seen.reasons & CONFIG else None


def _by_status(seen: _Seen) -> CatchupError:
    status = seen.status
    if status < 300:
        return malformed("an error inside a success")
    if status >= 500 or status in _PASSING_4XX:
        kind: type[Transient] | type[UnknownOutcome] = UnknownOutcome if status in _GAVE_UP else Transient
        what = f"YouTube failed ({status})."
        return kind(what, service=SERVICE, code=seen.code, words=seen.words, retry_after_s=seen.wait_s)
    if status == 404 and "videonotfound" in seen.reasons:
        return _refused(seen, "not_found")
    if status in (400, 413, 414, 422):
        if status in (413, 414) or _TOO_MANY.search(seen.message):
            return _refused(seen, "too_many_ids")
        if seen.place == "id" or (_OF_IDS.search(seen.message) and not seen.place):
            return _refused(seen, "id_refused")
    return _config(seen)


def _refused(seen: _Seen, reason: str) -> ItemPermanent:
    """Of many ids one is at fault: it is found by halving."""
    what = f"YouTube refuses an id in the request ({seen.status})."
    return ItemPermanent(what, reason=reason, service=SERVICE, code=seen.code, words=seen.words)


def _config(seen: _Seen) -> Misconfigured:
    what, fix = f"YouTube does not take the request ({seen.status}).", "Check YOUTUBE_API_ENDPOINT."
    if seen.status < 400:
        what = "The address of the YouTube API redirects elsewhere, and the key does not follow."
    elif seen.status in (401, 403) or seen.reasons & CONFIG or _BAD_KEY.search(seen.message):
        what = "YouTube does not accept the API key for this request."
        fix = "Check YOUTUBE_API_KEY, its restrictions, and that the YouTube Data API v3 is enabled in its project."
    return Misconfigured(what, service=SERVICE, code=seen.code, words=seen.words, fix=fix)
