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
        *("AMQPConnectorException", "ConnectionForced", "IncompatibleProtocolError"),
        *("ConnectionResetError", "BrokenPipeError", "ConnectionRefusedError", "gaierror", "ConnectionOpenAborted"),
        *("BusyLoadingError", "ConnectionAbortedError", "InternalError", "UnexpectedFrame", "RecoverableChannelError"),
    }
)
_KEY = frozenset({"AuthenticationError", "ProbableAuthenticationError", "ProbableAccessDeniedError", "AccessRefused"})
_KEY |= {"AuthenticationWrongNumberOfArgsError", "NoPermissionError", "AuthorizationError"}
_UNROUTED = frozenset({"UnroutableError", "NoConsumers", "NotFound"})
_WORDS_MOST = 200
_FULL_WAIT_S = 5.0


def translate(error: BaseException, where: str) -> CatchupError:
    """A connection is never a message's fault; a refusal that meets every message stops the run."""
    if isinstance(error, CatchupError):
        return error
    names, words = {type(each).__name__ for each in _causes(error)}, _words(error)
    known = _as_refusal(error, names, words, where) or _as_full(names, words, where)
    if known is not None:
        return known
    if names & _LOST or isinstance(error, OSError) or _says(words, "LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN"):
        code = min(names & _LOST, default="")
        return Unreachable(f"{where} is not reached", service="broker", code=code, words=words)
    if "EncodeError" in names or isinstance(error, (TypeError, ValueError, UnicodeError)):
        return ItemPermanent(f"{where}: the message cannot be written", reason="cannot be encoded", words=words)
    return Transient(f"{where} failed", service="broker", code=type(error).__name__, words=words)


def _as_full(names: set[str], words: str, where: str) -> Throttle | Unreachable | None:
    """What time or the workers clear: it takes no more for now."""
    if names & {"NackError", "MessageNacked"} or _says(words, "resource alarm"):
        what = f"{where} takes no more at present"
    elif "OutOfMemoryError" in names or _says(words, "OOM command not allowed"):
        what = f"{where} takes no more at present: this Redis is full (maxmemory)"
    elif "ConnectionBlockedTimeout" in names:
        what = f"{where} blocks whoever publishes: RabbitMQ has a memory or disk alarm"
        return Unreachable(what, service="broker", code="ConnectionBlockedTimeout", words=words)
    else:
        return None
    return Throttle(what, service="broker", words=words, retry_after_s=_FULL_WAIT_S)


def _as_refusal(error: BaseException, names: set[str], words: str, where: str) -> Misconfigured | None:
    """What a person must change."""
    if names & _KEY or _says(words, "NOAUTH", "WRONGPASS", "NOPERM", "ACCESS_REFUSED"):
        what, fix = "refuses us", "check user and password in BROKER_URL, and what this user may do"
    elif names & _UNROUTED or _says(words, "NO_ROUTE", "NOT_FOUND"):
        what, fix = "does not exist, or takes no message", "check [queue] name in catchup.toml against the workers' own"
    elif any(isinstance(each, ssl.SSLCertVerificationError) for each in _causes(error)):
        what, fix = "has a certificate that is not trusted", "set SSL_CERT_FILE"
    elif _says(words, "WRONGTYPE", "READONLY", "PRECONDITION_FAILED"):
        what, fix = "takes no messages", "this is a replica, or another program's: check BROKER_URL and [queue]"
    else:
        return None
    return Misconfigured(f"{where} {what}", fix=fix, service="broker", words=words)


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
