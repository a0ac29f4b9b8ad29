"""OpenAI's failures as ours: one pure function from what was seen to an error of queries.errors.

The specification is a table of fault classes; the tests hold a recorded body for each. Nothing here raises, and nothing
here knows the SDK: an exception is judged by the names of its classes, down its chain of causes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from queries.causes import causes_of
from queries.errors import (
    CatchupError,
    ItemPermanent,
    Misconfigured,
    OutOfMoney,
    RateLimits,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.openai_bodies import Said, clean_words, read_error
from queries.openai_limits import parse_limits, told_wait_s

SERVICE = "openai"

MONEY = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "billing_not_active",
    }
)
_MONEY_WORDS = re.compile(
    r"billing hard limit|exceeded your current quota|check your plan and billing|insufficient (?:quota|balance|credit)|"
    r"account is not active|out of credits|credit balance is too low",
    re.I,
)
CONFIG = frozenset(
    {
        "invalid_api_key",
        "incorrect_api_key",
        "invalid_organization",
        "invalid_project",
        "mismatched_organization",
        "mismatched_project",
        "account_deactivated",
        "ip_not_authorized",
        "unsupported_country_region_territory",
        "missing_scope",
        "insufficient_permissions",
        "model_not_found",
        "deploymentnotfound",
        "unsupported_parameter",
        "unsupported_value",
        "unknown_parameter",
        "unsupported_model",
        "unknown_url",
    }
)
_CONFIG_TYPES = frozenset({"authentication_error", "permission_error", "permission_denied"})
REQUEST_TOO_LARGE = frozenset({"max_tokens_per_request", "array_above_max_length"})
_REQUEST_TOO_LARGE_WORDS = re.compile(
    r"max(?:imum)? [0-9,]{1,20} tokens per request|array too long|too many (?:input )?tokens in batch|"
    r"maximum allowed batch size|batch size is invalid",
    re.I,
)
TOO_LONG = frozenset({"context_length_exceeded", "string_above_max_length", "exceed_context_size_error"})
_TOO_LONG_WORDS = re.compile(
    r"maximum context length|context window|reduce the length|exceeds? the (?:available|maximum) (?:context|input)|"
    r"prompt is too long|string too long|too many (?:input )?tokens",
    re.I,
)
FILTERED = frozenset(
    {
        "content_policy_violation",
        "content_filter",
        "invalid_prompt",
        "moderation_blocked",
        "responsibleaipolicyviolation",
        "responsible_ai_policy_violation",
    }
)
_FILTERED_WORDS = re.compile(
    r"content management policy|content policy|usage policy|usage policies|safety system|content filter", re.I
)
_AMOUNTS = re.compile(r"limit:?\s*([0-9,]{1,20})\b.*?requested:?\s*([0-9,]{1,20})\b", re.I | re.S)
_TOO_LARGE = re.compile(r"request too large", re.I)
_CONTENT_PARAM = re.compile(r"^(?:messages(?:\[\d+\])?(?:\.content.*)?|input.*)$")

# Sent to a proxy, which gave up on a service that may still finish and bill: 504, and Cloudflare's 524.
_GAVE_UP = frozenset({504, 524})
_PASSING_4XX = frozenset({408, 409, 425, 499})
# What depends on the road and not on the item: paths, methods, sizes of headers, law, proxies.
_ROAD_4XX = frozenset({401, 403, 404, 405, 406, 407, 410, 411, 412, 414, 415, 417, 421, 426, 428, 431, 451})

_NEVER_SENT = frozenset(
    {
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ConnectionTimeoutError",
        "ClientProxyConnectionError",
        "ClientHttpProxyError",
        "ProxyError",
        "gaierror",
        "ConnectionRefusedError",
        "PoolTimeout",
        "SSLCertVerificationError",
    }
)
_ONLY_IF_DEEPEST = frozenset({"ConnectTimeout", "ConnectError"})
_BAD_URL = frozenset({"UnsupportedProtocol", "InvalidURL", "InvalidUrlClientError", "NonHttpUrlClientError"})


@dataclass(frozen=True, slots=True)
class _Seen:
    """Everything one verdict needs."""

    status: int
    said: Said
    code: str
    words: str
    wait_s: float | None
    limits: RateLimits | None


def classify(
    status: int | None,
    body: bytes | str = b"",
    headers: Mapping[str, str] | None = None,
    exception: BaseException | None = None,
    *,
    secrets: Sequence[str] = (),
    private: str = "",
    now_s: float | None = None,
) -> CatchupError:
    """The one error this answer, or this lack of one, amounts to. `private` (the prompt) is never repeated in it."""
    headers = headers or {}
    if status is None:
        return classify_exception(exception)
    said = read_error(body)
    limits = parse_limits(headers)
    seen = _Seen(
        status=status,
        said=said,
        code=clean_words(said.code or said.kind, secrets, private)[:80] or f"http_{status}",
        words=clean_words(said.message, secrets, private),
        wait_s=told_wait_s(headers, said.message, now_s=now_s),
        limits=None if limits == RateLimits() else limits,
    )
    return _by_words(seen) or _by_status(seen, headers, secrets)


def classify_exception(exception: BaseException | None) -> CatchupError:
    """No answer: never sent is an outage; anything after sending may be billed, so doubt counts as sent."""
    causes = causes_of(exception)
    name = causes.code
    if _BAD_URL & causes.names:
        return Misconfigured(
            "The address of the language model is not a URL it can be reached at.",
            service=SERVICE,
            code=name,
            fix="Check OPENAI_BASE_URL.",
        )
    if _NEVER_SENT & causes.names or _ONLY_IF_DEEPEST & causes.deepest:
        return Unreachable("No connection to the language model could be made.", service=SERVICE, code=name)
    return UnknownOutcome(
        "The request to the language model went out and no whole answer came back; it may be billed.",
        service=SERVICE,
        code=name,
    )


def malformed(what: str, *, limits: RateLimits | None = None) -> Transient:
    """A 200 that is no answer. It has probably been billed."""
    return Transient(
        f"The language model's answer is malformed: {what}.", service=SERVICE, code="malformed", limits=limits
    )


def _by_words(seen: _Seen) -> CatchupError | None:
    """Verdicts that code, type or message decide whatever the status: a fatal body stays fatal behind a 500."""
    said = seen.said
    if said.is_one_of(MONEY) or seen.status == 402 or (seen.status != 200 and _MONEY_WORDS.search(said.message)):
        return OutOfMoney(
            "The provider refuses to work for this account: quota or balance is used up.",
            service=SERVICE,
            code=seen.code,
            words=seen.words,
            fix="Add credit or raise the limit with the provider, then run the same command again.",
        )
    if seen.status == 429:
        return _by_rate(seen)
    too_much = _by_size(seen)
    if too_much is not None:
        return too_much
    if said.is_one_of(FILTERED) or (seen.status == 400 and _FILTERED_WORDS.search(said.message)):
        return _permanent(seen, "content_filter", "The provider's content policy refused the item.")
    if said.is_one_of(CONFIG) or said.kind.lower() in _CONFIG_TYPES:
        return _config(seen)
    return None


def _by_size(seen: _Seen) -> CatchupError | None:
    said, is_error = seen.said, seen.status >= 400
    if said.is_one_of(REQUEST_TOO_LARGE) or (is_error and _REQUEST_TOO_LARGE_WORDS.search(said.message)):
        return _permanent(seen, "request_too_large", "The request holds more than the service takes at once.")
    if said.is_one_of(TOO_LONG) or (is_error and _TOO_LONG_WORDS.search(said.message)):
        return _permanent(seen, "too_long", "The item is longer than the model can read.")
    return None


def _by_rate(seen: _Seen) -> CatchupError:
    amounts = _AMOUNTS.search(seen.said.message)
    limit, requested = (int(n.replace(",", "") or 0) for n in amounts.groups()) if amounts else (0, 0)
    if requested > limit or _TOO_LARGE.search(seen.said.message):
        return _permanent(seen, "too_large_for_tier", "The item alone is larger than the account's limit per minute.")
    return Throttle(
        "The provider asks for a slower pace.",
        service=SERVICE,
        code=seen.code,
        words=seen.words,
        retry_after_s=seen.wait_s,
        limits=seen.limits,
    )


def _by_status(seen: _Seen, headers: Mapping[str, str], secrets: Sequence[str]) -> CatchupError:
    status = seen.status
    if status < 300:
        return malformed("an error inside a success", limits=seen.limits)
    if status < 400:
        return _redirected(seen, headers, secrets)
    if status >= 500 or status in _PASSING_4XX:
        return _failed(seen)
    return _by_refusal(seen)


def _failed(seen: _Seen) -> Transient | UnknownOutcome:
    kind: type[Transient] | type[UnknownOutcome] = Transient
    what = f"The language model's server failed ({seen.status})."
    if seen.status in _GAVE_UP:
        kind, what = UnknownOutcome, f"A proxy gave up on the language model ({seen.status}); it may be billed."
    return kind(what, service=SERVICE, code=seen.code, words=seen.words, retry_after_s=seen.wait_s, limits=seen.limits)


def _by_refusal(seen: _Seen) -> CatchupError:
    if seen.status in _ROAD_4XX:
        return _config(seen)
    if seen.status == 413:
        return _permanent(seen, "too_long", "The item is larger than the server accepts.")
    if seen.status in (400, 422) and seen.said.param and not _CONTENT_PARAM.match(seen.said.param):
        return _config(seen)
    # An unknown refusal is the item's: were it fatal, one odd item would block the run for ever. When in truth every
    # item is refused alike, the canary and the quarantine stop the run after a handful, and a 4xx costs nothing.
    return _permanent(seen, "rejected", f"The provider refused the item ({seen.status}).")


def _permanent(seen: _Seen, reason: str, what: str) -> ItemPermanent:
    return ItemPermanent(what, reason=reason, service=SERVICE, code=seen.code, words=seen.words, limits=seen.limits)


def _config(seen: _Seen) -> Misconfigured:
    what, fix = {
        401: ("The provider does not accept the API key.", "Check OPENAI_API_KEY."),
        403: ("The provider does not allow this account, place or address.", "Check the project's permissions."),
        404: ("The model or the address does not exist for this account.", "Check the model and OPENAI_BASE_URL."),
    }.get(seen.status, ("The provider refuses every request of this shape.", "Check the model and its parameters."))
    return Misconfigured(what, service=SERVICE, code=seen.code, words=seen.words, fix=fix)


def _redirected(seen: _Seen, headers: Mapping[str, str], secrets: Sequence[str]) -> Misconfigured:
    place = next((v for k, v in headers.items() if k.lower() == "location"), "")
    host = re.sub(r"^(?:\w+:)?//([^/?#]*@)?([^/?#]*).*$", r"\2", place, flags=re.S)[:100]
    return Misconfigured(
        "The provider's address redirects elsewhere, and redirects are never followed.",
        service=SERVICE,
        code=f"http_{seen.status}",
        words=clean_words(host, secrets, ""),
        fix="Set OPENAI_BASE_URL to the final address.",
    )
