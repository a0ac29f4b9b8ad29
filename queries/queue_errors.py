"""What a broker's client raised, as one of our errors: pure, and with no more than the class names of the libraries."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from queries.errors import CatchupError, ItemPermanent, Misconfigured, Throttle, Transient, Unreachable

_LOST = frozenset(
    {
        *("ConnectionError", "TimeoutError", "ConnectionClosed", "OperationalError", "RecoverableConnectionError"),
        *("AMQPConnectionError", "AMQPHeartbeatTimeout", "StreamLostError", "ConnectionClosedByBroker"),
        *("ConnectionWrongStateError", "ChannelWrongStateError", "ChannelClosedByBroker", "ChannelClosed"),
        *("AMQPConnectorException", "ConnectionBlockedTimeout", "ConnectionForced", "IncompatibleProtocolError"),
        *("ConnectionResetError", "BrokenPipeError", "ConnectionRefusedError", "gaierror", "ConnectionOpenAborted"),
        *("BusyLoadingError", "ConnectionAbortedError", "InternalError", "UnexpectedFrame", "RecoverableChannelError"),
    }
)
_KEY = frozenset({"AuthenticationError", "ProbableAuthenticationError", "ProbableAccessDeniedError", "AccessRefused"})
_KEY |= {"AuthenticationWrongNumberOfArgsError", "NoPermissionError", "AuthorizationError"}
_UNROUTED = frozenset({"UnroutableError", "NoConsumers", "NotFound"})
_WORDS_MOST = 200


def translate(error: BaseException, where: str) -> CatchupError:
    """A connection is never a message's fault; a refusal that meets every message stops the run."""
    if isinstance(error, CatchupError):
        return error
    names = {type(each).__name__ for each in _causes(error)}
    words = _words(error)
    facts = {"service": "broker", "words": words}
    if names & _KEY or _says(words, "NOAUTH", "WRONGPASS", "NOPERM", "ACCESS_REFUSED", "403"):
        fix = "check user and password in BROKER_URL, and what this user may do"
        return Misconfigured(f"{where} refuses us", fix=fix, **facts)
    if names & _UNROUTED or _says(words, "NO_ROUTE", "NOT_FOUND"):
        fix = "check [queue] name in catchup.toml against the workers' own"
        return Misconfigured(f"{where} does not exist, or takes no message", fix=fix, **facts)
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in _causes(error)):
        return Misconfigured(f"{where} has a certificate that is not trusted", fix="set SSL_CERT_FILE", **facts)
    if "NackError" in names or "MessageNacked" in names or _says(words, "OOM command not allowed", "resource alarm"):
        return Throttle(f"{where} takes no more at present", service="broker", words=words, retry_after_s=5.0)
    if names & _LOST or isinstance(error, OSError) or _says(words, "LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN"):
        return Unreachable(f"{where} is not reached", service="broker", code=_first(names & _LOST), words=words)
    if "EncodeError" in names or isinstance(error, (TypeError, ValueError, UnicodeError)):
        return ItemPermanent(f"{where}: the message cannot be written", reason="cannot be encoded", words=words)
    if _says(words, "WRONGTYPE", "READONLY", "PRECONDITION_FAILED"):
        fix = "another program uses this name otherwise, or this is a replica: check BROKER_URL and [queue]"
        return Misconfigured(f"{where} does not take messages", fix=fix, **facts)
    return Transient(f"{where} failed", service="broker", code=type(error).__name__, words=words)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """It and what it was made of: clients wrap the reason in their own class, or keep it as an argument."""
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or each in seen:
            continue
        seen.append(each)
        yield each
        todo += [each.__cause__, each.__context__, *(a for a in each.args if isinstance(a, BaseException))]


def _words(error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return said[:_WORDS_MOST]


def _says(words: str, *signs: str) -> bool:
    return any(sign in words for sign in signs)


def _first(names: set[str] | frozenset[str]) -> str:
    return min(names, default="")
