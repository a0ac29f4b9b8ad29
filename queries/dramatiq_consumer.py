"""A worker of Dramatiq's: its own broker and worker, one thread, one message held, acknowledged when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from queries.consuming import Handle, Outcome
from queries.errors import Misconfigured
from queries.queue_errors import translate

_HELD = 1
_DELAYED_HELD = 100
_POLL_MS = 500
_AGAIN_S = 2.0
# Of a million: how often asking for a message also looks for those of dead workers. Dramatiq's 1,000 is for workers who
# ask all the time; one with a single message in hand asks once a video.
_LOOKS_FOR_THE_DEAD = 50_000


class DramatiqConsumer:
    def __init__(
        self, url: str, queue: str, task: str, namespace: str, where: str, redelivered_s: float | None = None
    ) -> None:
        """`redelivered_s`: after this long without a sign of life from its worker Redis gives a message to another."""
        self._redelivered_s = redelivered_s
        self._url, self._queue, self._task, self._namespace = url, queue, task, namespace
        self.where = where
        self._worker: Any = None
        self._broker: Any = None
        self._on_redis = url.startswith("redis")

    def start(self, handle: Handle, on_lost: Callable[[str], None]) -> None:
        try:
            import dramatiq  # noqa: PLC0415 - an extra, and heavy
            from dramatiq.middleware import AgeLimit, Callbacks, CurrentMessage, Pipelines  # noqa: PLC0415
        except ImportError:
            raise Misconfigured(
                "the library dramatiq is not installed", fix="pip install 'catchup[dramatiq]'"
            ) from None
        # No time limit: a long video is no fault, and what it kills would be paid for again. No retries of its own
        # either: a copy that could not be published is no reason to acknowledge the message.
        kinds = (AgeLimit, Callbacks, Pipelines, CurrentMessage)
        self._broker = self._make_broker([kind() for kind in kinds])

        def process(*args: Any, **kwargs: Any) -> None:
            outcome = handle(args, kwargs)
            if outcome.what != "taken":
                self._send_again(CurrentMessage.get_current_message(), outcome)

        make: Any = dramatiq.actor
        make(process, actor_name=self._task, queue_name=self._queue, broker=self._broker)
        self._worker = dramatiq.Worker(self._broker, worker_threads=1, worker_timeout=_POLL_MS)
        self._worker.queue_prefetch, self._worker.delay_prefetch = _HELD, _DELAYED_HELD
        try:
            if self._on_redis:
                self._broker.client.ping()
            else:
                self._broker.declare_queue(self._queue, ensure=True)
            self._worker.start()
        except Exception as error:
            raise translate(error, self.where) from error

    def _make_broker(self, middleware: list[Any]) -> Any:
        if self._on_redis:
            from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415

            more: dict[str, Any] = {"maintenance_chance": _LOOKS_FOR_THE_DEAD}
            if self._redelivered_s is not None:
                more["heartbeat_timeout"] = round(self._redelivered_s * 1000)
            return RedisBroker(url=self._url, namespace=self._namespace, middleware=middleware, **more)  # type: ignore[no-untyped-call]
        from dramatiq.brokers.rabbitmq import RabbitmqBroker  # noqa: PLC0415

        return RabbitmqBroker(url=self._url, confirm_delivery=True, middleware=middleware)

    def _send_again(self, message: Any, outcome: Outcome) -> None:
        """Published before it is acknowledged; until then it is only ours, and a kill gives it back by itself."""
        delay = round(outcome.wait_s * 1000) if outcome.what == "later" else None
        while True:
            try:
                self._broker.enqueue(message, delay=delay)
            except Exception:  # whatever the broker's client raises: the message is not acknowledged
                time.sleep(_AGAIN_S)
            else:
                return

    def stop(self, within_s: float) -> None:
        if self._worker is not None:
            self._worker.stop(timeout=round(within_s * 1000))
            self._broker.close()
