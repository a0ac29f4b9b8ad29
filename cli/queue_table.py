"""[queue] of catchup.toml: whose workers take the messages, and what a message looks like."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, model_validator

from cli.target_tables import Seconds, Strict
from jobs.messages import QUEUE_NAME, MessageLayout

_NAME = f"^{QUEUE_NAME.pattern}$"
Name = Annotated[str, Field(pattern=_NAME)]
MEANT = {_NAME: "not a name of a queue or task; 1 to 255 letters, digits and . _ -"}
SCHEMES = ("redis", "rediss", "amqp", "amqps")


class QueueTable(Strict):
    """`namespace` is the prefix of Dramatiq's keys in Redis.

    `redelivered_after` is for `catchup worker` at a Redis: Dramatiq's heartbeat timeout, Celery's visibility timeout.
    """

    library: Literal["dramatiq", "celery"]
    name: Name = "video_processing"
    task: Name = "process_video"
    args: tuple[Any, ...] = ("{id}",)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    namespace: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,64}$")] = "dramatiq"
    redelivered_after: Seconds | None = None

    @model_validator(mode="after")
    def _understood(self) -> QueueTable:
        if not self.args and not self.kwargs:
            raise ValueError('a message without arguments names no video; write args = ["{id}"]')
        return self

    @property
    def layout(self) -> MessageLayout:
        return MessageLayout(self.name, self.task, self.args, self.kwargs)


def check_broker_url(secret: SecretStr) -> SecretStr:
    scheme, rest, _ = secret.get_secret_value().strip().partition("://")
    if scheme not in SCHEMES or not rest:
        raise ValueError(f"not a broker's address; write {', '.join(f'{each}://' for each in SCHEMES)} and the host")
    return secret
