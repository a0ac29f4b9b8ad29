"""A worker of Celery's: its own worker and pool, one thread, one message held, acknowledged when it is done with."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from queries.consuming import Handle
from queries.errors import Misconfigured
from queries.queue_errors import translate

_LONGEST_HELD_S = 5.0  # a message that has to wait stands in the way of the others
_STEP_S = 0.2


class CeleryConsumer:
    def __init__(self, url: str, queue: str, task: str, where: str, redelivered_s: float | None = None) -> None:
        """`redelivered_s`: after this long without an acknowledgement Redis gives a message to somebody else."""
        self._url, self._queue, self._task = url, queue, task
        self._redelivered_s = redelivered_s
        self.where = where
        self._on_redis = url.startswith("redis")
        self._controller: Any = None
        self._thread: threading.Thread | None = None
        self._is_stopping = threading.Event()

    def start(self, handle: Handle, on_lost: Callable[[str], None]) -> None:
        try:
            import celery  # noqa: F401, PLC0415 - an extra, and heavy
        except ImportError:
            raise Misconfigured("the library celery is not installed", fix="pip install 'catchup[celery]'") from None
        app = self._make_app()
        self._add_task(app, handle)
        try:
            app.conf.task_queues = [self._find_queue(app)]
        except Exception as error:
            raise translate(error, self.where) from error
        self._controller = app.WorkController(
            hostname=f"catchup-{os.getpid()}@{socket.gethostname()}",
            pool="threads",
            concurrency=1,
            prefetch_multiplier=1,
            queues=[self._queue],
            without_gossip=True,
            without_mingle=True,
        )
        self._thread = threading.Thread(target=self._work, args=(on_lost,), name="celery", daemon=True)
        self._thread.start()

    def _work(self, on_lost: Callable[[str], None]) -> None:
        why = "its worker ended by itself"
        try:
            self._controller.start()
        except BaseException as error:  # SystemExit among them, by which Celery's worker ends
            why = f"{type(error).__name__}: {error}"
        if not self._is_stopping.is_set():
            on_lost(why)

    def _make_app(self) -> Any:
        from celery import Celery  # noqa: PLC0415

        app = Celery("catchup", broker=self._url, set_as_current=False)
        options: dict[str, Any] = {}
        if self._on_redis and self._redelivered_s is not None:
            options["visibility_timeout"] = self._redelivered_s
        app.conf.update(
            task_acks_late=True,
            task_reject_on_worker_lost=True,
            task_ignore_result=True,
            task_default_queue=self._queue,
            worker_enable_remote_control=False,
            worker_hijack_root_logger=False,
            # a connection that was lost takes the message with it: what is done by then costs nothing the second time
            worker_cancel_long_running_tasks_on_connection_loss=False,
            broker_connection_retry_on_startup=False,
            broker_transport_options=options,
        )
        return app

    def _add_task(self, app: Any, handle: Handle) -> None:
        from celery.exceptions import Reject  # noqa: PLC0415

        def process(*args: Any, **kwargs: Any) -> None:
            outcome = handle(args, kwargs)
            if outcome.what == "later":
                self._hold(min(outcome.wait_s, _LONGEST_HELD_S))
            if outcome.what != "taken":
                raise Reject(outcome.what, requeue=True)

        app.task(process, name=self._task, acks_late=True, ignore_result=True)

    def _hold(self, seconds: float) -> None:
        """Rejected rather than sent anew with a countdown: nothing has to be published, so nothing can be lost."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._is_stopping.is_set():
            time.sleep(_STEP_S)

    def _find_queue(self, app: Any) -> Any:
        """As it is declared, whatever its kind; one that is not there yet is made as any worker of Celery's does."""
        from kombu import Queue as KombuQueue  # type: ignore[attr-defined]  # noqa: PLC0415

        make: Any = KombuQueue
        if self._on_redis:
            return make(self._queue)
        with app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=10)
            if not self._declares(connection, passive=True):
                return make(self._queue)
            quorum = {"x-queue-type": "quorum"}
            if self._declares(connection, durable=True, auto_delete=False, arguments=quorum):
                return make(self._queue, queue_arguments=quorum, no_declare=True)
            return make(self._queue, no_declare=True)

    def _declares(self, connection: Any, **how: Any) -> bool:
        from amqp.exceptions import ChannelError  # noqa: PLC0415

        channel = connection.channel()
        try:
            channel.queue_declare(queue=self._queue, **how)
        except ChannelError:
            return False
        channel.close()
        return True

    def stop(self, within_s: float) -> None:
        """Warm: what is in hand is finished with, what is held goes back."""
        from celery.worker import state  # noqa: PLC0415

        self._is_stopping.set()
        state.should_stop = 0
        if self._thread is not None:
            self._thread.join(within_s)
        with contextlib.suppress(Exception):
            self._controller.app.close()
