"""What brokers' clients raise, as one of our errors: a table, with the libraries' own classes."""

from __future__ import annotations

import socket
import ssl

import pytest
import redis.exceptions
from amqp import exceptions as amqp
from kombu.exceptions import EncodeError, OperationalError
from pika import exceptions as pika

from queries.errors import CatchupError, ItemPermanent, Misconfigured, Throttle, Transient, Unreachable
from queries.queue_errors import translate

WHERE = "queue videos (Celery on mq:5672)"
_redis = redis.exceptions


def _wrapped(inner: Exception) -> Exception:
    try:
        raise OperationalError(str(inner)) from inner
    except OperationalError as outer:
        return outer


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        pytest.param(_redis.ConnectionError("Connection closed by server."), Unreachable, id="redis closed"),
        pytest.param(_redis.TimeoutError("Timeout reading from socket"), Unreachable, id="redis silent"),
        pytest.param(_redis.BusyLoadingError("LOADING"), Unreachable, id="redis loading"),
        pytest.param(_redis.ResponseError("CLUSTERDOWN Hash slot not served"), Unreachable, id="cluster down"),
        pytest.param(_redis.AuthenticationError("WRONGPASS invalid"), Misconfigured, id="redis password"),
        pytest.param(_redis.ResponseError("NOAUTH Authentication required."), Misconfigured, id="redis no password"),
        pytest.param(_redis.NoPermissionError("NOPERM no permissions"), Misconfigured, id="redis rights"),
        pytest.param(_redis.ReadOnlyError("READONLY You can't write"), Misconfigured, id="redis replica"),
        pytest.param(_redis.ResponseError("WRONGTYPE Operation"), Misconfigured, id="another program's key"),
        pytest.param(_redis.ResponseError("OOM command not allowed"), Throttle, id="redis full"),
        pytest.param(_redis.OutOfMemoryError("command not allowed when used memory"), Throttle, id="redis full (2)"),
        pytest.param(_wrapped(_redis.OutOfMemoryError("command not allowed")), Throttle, id="full, by celery"),
        pytest.param(pika.ConnectionBlockedTimeout("Blocked connection timeout"), Unreachable, id="rabbit alarm"),
        pytest.param(_redis.ResponseError("ERR something new"), Transient, id="redis unknown"),
        pytest.param(pika.StreamLostError("Transport indicated EOF"), Unreachable, id="rabbit eof"),
        pytest.param(pika.AMQPHeartbeatTimeout("no heartbeat"), Unreachable, id="rabbit silent"),
        pytest.param(pika.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), Unreachable, id="rabbit restarts"),
        pytest.param(pika.UnroutableError([]), Misconfigured, id="no such queue"),
        pytest.param(pika.NackError([]), Throttle, id="nack"),
        pytest.param(pika.ProbableAuthenticationError("refused"), Misconfigured, id="rabbit password"),
        pytest.param(pika.ChannelClosedByBroker(403, "ACCESS_REFUSED"), Misconfigured, id="rabbit rights"),
        pytest.param(amqp.NotFound("no queue"), Misconfigured, id="celery no such queue"),
        pytest.param(amqp.ChannelError("NO_ROUTE", (60, 50), 312, "Basic.return"), Misconfigured, id="returned"),
        pytest.param(amqp.AccessRefused("login refused"), Misconfigured, id="celery password"),
        pytest.param(amqp.RecoverableConnectionError("Socket was disconnected"), Unreachable, id="celery cut"),
        pytest.param(_wrapped(ConnectionRefusedError(111, "Connection refused")), Unreachable, id="refused"),
        pytest.param(_wrapped(socket.gaierror(-2, "Name or service not known")), Unreachable, id="no such host"),
        pytest.param(_wrapped(ssl.SSLCertVerificationError("self-signed")), Misconfigured, id="certificate"),
        pytest.param(TimeoutError("timed out"), Unreachable, id="timed out"),
        pytest.param(EncodeError("not JSON serializable"), ItemPermanent, id="celery encoding"),
        pytest.param(TypeError("Object of type set is not JSON serializable"), ItemPermanent, id="encoding"),
    ],
)
def test_every_fault_has_one_class(raised: Exception, kind: type[CatchupError]) -> None:
    """A connection is never a message's fault, and what meets every message stops the run."""
    error = translate(raised, WHERE)
    assert type(error) is kind, error
    assert WHERE in error.what


def test_what_is_ours_already_stays_as_it_is() -> None:
    """Nothing is wrapped twice."""
    ours = Misconfigured("said before")
    assert translate(ours, WHERE) is ours
