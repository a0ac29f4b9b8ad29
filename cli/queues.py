"""Which broker, which library, which queue: from settings to a publisher. None is ever made up."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cli.settings import Settings
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from jobs.targets import Target
    from queries.consuming import Consumer
    from queries.messages import Queue
    from queries.publishing import Publisher, Still


def check_queue(settings: Settings, *, may_be_inline: bool = False) -> None:
    """With neither a broker nor --inline (where a command has it) there is nothing that could be meant."""
    missed, way_out = "", ""
    if may_be_inline:
        missed, way_out = ", and --inline was not said", "; or say --inline to do the work here, with a model"
    if settings.broker_url is None:
        raise Misconfigured(
            f"no broker is set{missed}",
            fix=f"set BROKER_URL (redis:// or amqp://, see .env.example) and [queue] in catchup.toml{way_out}",
        )
    if settings.queue is None:
        raise Misconfigured(
            "BROKER_URL is set, and whose workers listen there is not",
            fix=f'add [queue] with library = "dramatiq" or "celery" to catchup.toml{way_out}',
        )


def open_queue(settings: Settings) -> Queue:
    check_queue(settings)
    assert settings.broker_url is not None  # noqa: S101
    assert settings.queue is not None  # noqa: S101
    url, queue = settings.broker_url.get_secret_value().strip(), settings.queue
    if queue.library == "celery":
        from queries.celery_queue import open_celery

        return open_celery(url, queue.name, queue.task)
    from queries.dramatiq_queue import open_dramatiq

    return open_dramatiq(url, queue.name, queue.task, queue.namespace)


def open_publisher(settings: Settings, target: Target, where: str, still: Still) -> Publisher:
    from jobs.engine import fault_points
    from queries.publishing import Publisher
    from queries.sent_record import SentRecord

    name = hashlib.sha256(f"{where}\n{target.name}".encode()).hexdigest()[:16]
    record = SentRecord(settings.state_dir / "sent" / f"{name}.ids")
    return Publisher(open_queue(settings), record, still, fault_points.reach)


def open_consumer(settings: Settings) -> Consumer:
    """A worker of the same queue, by the same library."""
    check_queue(settings)
    assert settings.broker_url is not None  # noqa: S101
    assert settings.queue is not None  # noqa: S101
    url, queue = settings.broker_url.get_secret_value().strip(), settings.queue
    where = open_queue(settings).where
    if queue.library == "celery":
        from queries.celery_consumer import CeleryConsumer

        return CeleryConsumer(url, queue.name, queue.task, where, queue.redelivered_after)
    from queries.dramatiq_consumer import DramatiqConsumer

    return DramatiqConsumer(url, queue.name, queue.task, queue.namespace, where, queue.redelivered_after)
