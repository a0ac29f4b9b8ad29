"""A share of the rate limit is kept to, renewed, and given up: the gate of one worker among several."""

from __future__ import annotations

import asyncio

import pytest

from jobs.engine.clock import Clock
from jobs.engine.rate_limit import RateLimit
from jobs.engine.shared_rate import SharedRate
from queries.dsn import DsnRoad
from queries.errors import RateLimits
from queries.rates import Rates
from tests.servers.postgres import Database
from tests.servers.virtual_clock import VirtualClock


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25, 0.1])
async def test_the_pace_is_the_share_of_the_limit(share: float) -> None:
    """Of requests and of tokens alike, whatever the server says is left for all."""
    clock = VirtualClock()
    rate = RateLimit(clock)
    rate.requests.share = rate.tokens.share = share
    rate.learn(RateLimits(requests_per_min=600, tokens_per_min=10_000_000))

    async def send() -> float:
        for _ in range(100):
            await rate.enter(10)
        return clock.now()

    started = clock.now()
    seconds = await clock.run(send()) - started
    assert seconds == pytest.approx(10 / share, rel=0.05)


async def test_without_a_share_nothing_passes_until_there_is_one() -> None:
    """A newcomer, while the others hold all of it."""
    clock = VirtualClock()
    rate = RateLimit(clock)
    rate.learn(RateLimits(requests_per_min=600))
    rate.requests.share = 0.0

    async def give() -> None:
        await clock.sleep(3.0)
        rate.requests.share = 0.5

    async def send() -> float:
        giving = asyncio.create_task(give())
        await rate.enter(10)
        await giving
        return clock.now()

    started = clock.now()
    assert 3.0 <= await clock.run(send()) - started <= 3.5


async def test_two_workers_share_the_limit_and_the_one_that_stays_has_it_all(database: Database) -> None:
    """Over the real ledger: half each while both work, and all of it when one has gone."""
    await database.migrate()
    road = DsnRoad(database.dsn)
    first, second = (SharedRate(Clock(), Rates(road, "openai m", name)) for name in ("a", "b"))
    for _ in range(3):
        await first.renew()
        await second.renew()
    assert (first.requests.share, second.requests.share) == (pytest.approx(0.5), pytest.approx(0.5))
    assert first.workers == 2
    leaving = asyncio.create_task(second.keep())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await first.renew()
    assert first.requests.share == pytest.approx(1.0)
    await road.close()


async def test_a_wait_that_one_was_told_to_take_is_taken_by_the_others(database: Database) -> None:
    """A 429 is about the account, not about the worker that met it."""
    await database.migrate()
    road = DsnRoad(database.dsn)
    clock = Clock()
    first, second = (SharedRate(clock, Rates(road, "openai m", name)) for name in ("a", "b"))
    await first.renew()
    first._closed_until = clock.now() + 30
    await first.renew()
    await second.renew()
    assert second._closed_until - clock.now() == pytest.approx(30, abs=2)
    await road.close()
