"""Messages for Dramatiq's workers, by its own brokers: Redis, or RabbitMQ with confirmed delivery."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from queries.errors import Misconfigured
from queries.messages import NO_WAY_OUT, QUORUM, Message, Queue, QueueFacts
from queries.queue_errors import translate
from queries.redis_facts import say_safety

if TYPE_CHECKING:
    from dramatiq import Broker

_TIMEOUT_S = 30
# So that a broker that hangs is noticed within a minute: pika waits for a confirm as long as heartbeats come.
_PIKA = {"heartbeat": "20", "blocked_connection_timeout": "30", "socket_timeout": "10", "stack_timeout": "20"}
_GONE = 404


def open_dramatiq(url: str, queue: str, task: str, namespace: str) -> Queue:
    try:
        import dramatiq  # noqa: F401, PLC0415 - an extra, and heavy
    except ImportError:
        raise Misconfigured(
            "the library dramatiq is not installed",
            fix="pip install 'catchup[dramatiq]', or --inline to do the work here",
        ) from None
    kind = urlsplit(url).scheme
    return _OnRedis(url, queue, task, namespace) if kind in ("redis", "rediss") else _OnRabbit(url, queue, task)


class _Dramatiq(ABC):
    """What both brokers have in common: a message as an actor would make it, and a new connection after a fault."""

    name = "dramatiq"

    def __init__(self, url: str, queue: str, task: str) -> None:
        self.queue, self.task = queue, task
        host = urlsplit(url)
        self.where = f"queue {queue} (Dramatiq on {host.hostname}:{host.port or host.scheme})"
        self._broker: Any = None

    @abstractmethod
    def _open(self) -> Broker: ...

    @abstractmethod
    def _look(self, broker: Any) -> QueueFacts: ...

    def look(self) -> QueueFacts:
        with self._translated():
            return self._look(self._opened())

    def publish(self, message: Message) -> None:
        from dramatiq import Message as Frame  # noqa: PLC0415

        frame: Any = Frame(self.queue, self.task, message.args, dict(message.kwargs), {}, message_id=message.id)
        with self._translated():
            self._opened().enqueue(frame)

    def _opened(self) -> Any:
        if self._broker is None:
            self._broker = self._open()
        return self._broker

    @contextlib.contextmanager
    def _translated(self) -> Any:
        try:
            yield
        except Exception as error:
            self.close()
            raise translate(error, self.where) from error

    def close(self) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            with contextlib.suppress(Exception):
                broker.close()


class _OnRedis(_Dramatiq):
    def __init__(self, url: str, queue: str, task: str, namespace: str) -> None:
        super().__init__(url, queue, task)
        self._url, self._namespace = url, namespace

    def _open(self) -> Broker:
        import redis  # noqa: PLC0415
        from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        # redis-py 6 and later repeats a command three times by itself: a message would be doubled unseen
        client = redis.Redis.from_url(self._url, socket_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0))
        # a sender moves no messages of dead workers: that is for workers, who know how long one of theirs may be silent
        quiet: dict[str, Any] = {"middleware": [], "maintenance_chance": 0}
        broker: Broker = RedisBroker(client=client, namespace=self._namespace, **quiet)  # type: ignore[no-untyped-call]
        return broker

    def _look(self, broker: Any) -> QueueFacts:
        """Redis knows no declared queue: a name that left no trace at all was never used by a worker or a sender."""
        client, base = broker.client, f"{self._namespace}:{self.queue}"
        traces = (base, f"{base}.msgs", f"{base}.DQ", f"{base}.DQ.msgs", f"{base}.XQ", f"{base}.XQ.msgs")
        seen = set()
        exists = bool(client.exists(*traces))
        if not exists:
            for key in client.scan_iter(match=f"{self._namespace}:*", count=1_000):
                name = key.decode(errors="replace").removeprefix(f"{self._namespace}:").partition(".")[0]
                seen |= {name} - {"__acks__", "__heartbeats__"} if not name.startswith("__") else set()
        waiting = client.llen(base)
        return QueueFacts(exists, waiting, say_safety(client), tuple(sorted(seen)), is_certain=False)


class _OnRabbit(_Dramatiq):
    def __init__(self, url: str, queue: str, task: str) -> None:
        super().__init__(url, queue, task)
        parts = urlsplit(url)
        query = urlencode({**_PIKA, **dict(parse_qsl(parts.query))})
        self._url = urlunsplit(parts._replace(query=query))
        self._said: tuple[str, ...] | None = None

    def _open(self) -> Broker:
        from dramatiq.brokers import rabbitmq  # noqa: PLC0415

        # enqueue would repeat a publish six times by itself, and make a queue that is missing: both are ours to decide
        rabbitmq.MAX_ENQUEUE_ATTEMPTS = 1
        broker = rabbitmq.RabbitmqBroker(url=self._url, confirm_delivery=True, middleware=[])
        broker.declare_queue(self.queue)
        broker.queues_pending.discard(self.queue)
        return broker

    def _look(self, broker: Any) -> QueueFacts:
        from pika.exceptions import ChannelClosedByBroker  # noqa: PLC0415

        try:
            declared = broker.channel.queue_declare(queue=self.queue, passive=True)
        except ChannelClosedByBroker as closed:
            if closed.reply_code != _GONE:
                raise
            del broker.channel
            return QueueFacts(exists=False)
        return QueueFacts(exists=True, waiting=declared.method.message_count, notes=self._notes(broker))

    def _notes(self, broker: Any) -> tuple[str, ...]:
        from pika.exceptions import ChannelClosedByBroker  # noqa: PLC0415

        if self._said is None:
            try:
                broker.channel.queue_declare(queue=self.queue, durable=True, arguments=QUORUM)
                self._said = (NO_WAY_OUT,)
            except ChannelClosedByBroker:
                del broker.channel
                self._said = ()
        return self._said
