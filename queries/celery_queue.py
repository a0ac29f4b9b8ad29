"""Messages for Celery's workers, by Celery itself: RabbitMQ (classic and quorum queues) or Redis."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import urlsplit

from queries.errors import Misconfigured
from queries.messages import NO_WAY_OUT, QUORUM, Message, Queue, QueueFacts
from queries.queue_errors import translate
from queries.redis_facts import say_safety

_TIMEOUT_S = 30
_BINDING = "_kombu.binding."
_BINDING_PARTS = "\x06\x16"  # what kombu puts between routing key, pattern and queue


def open_celery(url: str, queue: str, task: str) -> Queue:
    try:
        import celery  # noqa: F401, PLC0415 - an extra, and heavy
    except ImportError:
        raise Misconfigured(
            "the library celery is not installed",
            fix="pip install 'catchup[celery]', or --inline to do the work here",
        ) from None
    return CeleryQueue(url, queue, task)


class CeleryQueue:
    """Through the default exchange, straight into the queue: nothing is declared, so nothing is made by a typo."""

    name = "celery"

    def __init__(self, url: str, queue: str, task: str) -> None:
        self._url, self._queue, self._task = url, queue, task
        parts = urlsplit(url)
        self._on_redis = parts.scheme in ("redis", "rediss")
        self.where = f"queue {queue} (Celery on {parts.hostname}:{parts.port or parts.scheme})"
        self._app: Any = None
        self._connection: Any = None
        self._producer: Any = None
        self._said: tuple[str, ...] | None = None

    def look(self) -> QueueFacts:
        with self._translated():
            self._opened()
            return self._look_in_redis() if self._on_redis else self._look_in_rabbit()

    def publish(self, message: Message) -> None:
        """Confirmed by RabbitMQ, and returned where no queue takes it; by Redis answered."""
        with self._translated():
            producer, to = self._opened()
            self._app.send_task(
                self._task,
                args=list(message.args),
                kwargs=dict(message.kwargs),
                task_id=message.id,
                producer=producer,
                queue=to,
                declare=[],
                retry=False,
                **({} if self._on_redis else {"mandatory": True, "confirm_timeout": _TIMEOUT_S}),
            )

    def close(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.collapse() if hasattr(connection, "collapse") else connection.release()

    def _opened(self) -> tuple[Any, Any]:
        from kombu.entity import Queue as KombuQueue  # noqa: PLC0415

        if self._app is None:
            self._app = self._make_app()
        if self._connection is None:
            self._connection = self._app.connection_for_write()
            self._connection.ensure_connection(max_retries=1, timeout=_TIMEOUT_S)
            self._producer = self._app.amqp.Producer(self._connection)
        return self._producer, KombuQueue(self._queue, no_declare=True)  # type: ignore[no-untyped-call]

    def _make_app(self) -> Any:
        from celery import Celery  # noqa: PLC0415

        app = Celery("catchup", broker=self._url, set_as_current=False)
        app.conf.update(task_publish_retry=False, broker_connection_timeout=10, task_ignore_result=True)
        if self._on_redis:
            app.conf.broker_transport_options = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": 10}
        else:
            app.conf.broker_transport_options = {
                "confirm_publish": True,
                "read_timeout": _TIMEOUT_S,
                "write_timeout": _TIMEOUT_S,
            }
        return app

    def _look_in_rabbit(self) -> QueueFacts:
        from amqp.exceptions import NotFound  # noqa: PLC0415

        channel = self._connection.channel()
        try:
            declared = channel.queue_declare(queue=self._queue, passive=True)
        except NotFound:
            return QueueFacts(exists=False)
        channel.close()
        return QueueFacts(exists=True, waiting=declared.message_count, notes=self._notes())

    def _notes(self) -> tuple[str, ...]:
        from amqp.exceptions import PreconditionFailed  # noqa: PLC0415

        if self._said is None:
            channel = self._connection.channel()
            try:
                channel.queue_declare(queue=self._queue, durable=True, auto_delete=False, arguments=QUORUM)
                self._said = (NO_WAY_OUT,)
                channel.close()
            except PreconditionFailed:
                self._said = ()
        return self._said

    def _look_in_redis(self) -> QueueFacts:
        """A worker leaves its bindings, which stay when it is gone; a queue that holds messages is a list."""
        channel = self._connection.default_channel
        client = channel.client
        waiting = sum(client.llen(channel._q_for_pri(self._queue, pri)) for pri in channel.priority_steps)
        bound = set()
        for key in client.scan_iter(match=f"{_BINDING}*", count=1_000):
            bound |= {each.decode(errors="replace").split(_BINDING_PARTS)[-1] for each in client.smembers(key)}
        exists = waiting > 0 or self._queue in bound
        seen = () if exists else tuple(sorted(bound))
        return QueueFacts(exists, waiting, say_safety(client), seen, is_certain=False)

    @contextlib.contextmanager
    def _translated(self) -> Any:
        try:
            yield
        except Exception as error:
            self.close()
            raise translate(error, self.where) from error
