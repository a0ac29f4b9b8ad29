"""What a Redis says of itself that an operator of a queue should know."""

from __future__ import annotations

from typing import Any


def say_safety(client: Any) -> tuple[str, ...]:
    """What may become of messages that it has confirmed."""
    return (*_say_eviction(client), *_say_durability(client))


def _say_eviction(client: Any) -> tuple[str, ...]:
    """Of all policies only these take keys without a time to live, as queues are."""
    from redis import RedisError  # noqa: PLC0415 - only with an extra

    try:
        said = client.info("memory")
    except RedisError:
        return ()
    policy = _text(said.get("maxmemory_policy", ""))
    if not said.get("maxmemory") or not policy.startswith("allkeys"):
        return ()
    return (
        f"this Redis throws away keys when it is full (maxmemory-policy {policy}), whole queues among them: "
        "set noeviction",
    )


def _say_durability(client: Any) -> tuple[str, ...]:
    """Managed services refuse CONFIG: then nothing is claimed."""
    from redis import RedisError  # noqa: PLC0415 - only with an extra

    try:
        said = {
            _text(name): _text(value)
            for pattern in ("appendonly", "appendfsync")
            for name, value in client.config_get(pattern).items()
        }
    except RedisError:
        return ()
    if said.get("appendonly") == "yes" and said.get("appendfsync") == "always":
        return ()
    return ("this Redis may lose messages it has confirmed if it is killed: only appendfsync always keeps them",)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
