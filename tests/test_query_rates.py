"""One rate limit shared by many workers through the ledger: the sum never passes it, and each gets its fair part."""

from __future__ import annotations

from typing import Any

import pytest

from queries.rates import Rates
from tests.servers.postgres import Database
from tests.servers.roads import World

NAME = "openai gpt-4o"


@pytest.mark.parametrize(
    ("others", "wants", "share"),
    [
        pytest.param([], 1.0, 1.0, id="alone"),
        pytest.param([], 0.2, 0.2, id="alone and modest"),
        pytest.param([1.0], 1.0, 0.5, id="two"),
        pytest.param([1.0, 1.0, 1.0], 1.0, 0.25, id="four"),
        pytest.param([0.1], 1.0, 0.9, id="the other wants little"),
        pytest.param([0.1, 1.0], 1.0, 0.45, id="what one leaves is shared"),
        pytest.param([0.6, 0.7], 0.1, 0.1, id="less than an equal part is granted whole"),
        pytest.param([0.6, 0.2], 0.5, 0.4, id="uneven"),
    ],
)
async def test_who_wants_less_gets_it_and_the_others_share_the_rest(
    database: Database, others: list[float], wants: float, share: float
) -> None:
    """Max-min fairness."""
    await database.migrate()
    rows = await database.run("select catchup.fair_share(%s::float8[], %s::float8)", [others, wants])
    assert rows[0][0] == pytest.approx(share)


async def test_the_sum_of_all_shares_never_passes_the_limit(world: World) -> None:
    """A newcomer waits for what the others give up, and that is at their next renewal."""
    await world.database.migrate()
    road = await world.road()
    workers = [Rates(road, NAME, f"w{n}") for n in range(4)]
    held: dict[int, float] = {}

    async def renew(number: int) -> float:
        got = await workers[number].take(wants=1.0, ttl_s=10.0, closed_s=0.0)
        held[number] = got.share
        assert sum(held.values()) <= 1.0 + 1e-9
        return got.share

    assert await renew(0) == pytest.approx(1.0)
    assert await renew(1) == pytest.approx(0.0)
    assert await renew(0) == pytest.approx(0.5)
    for number in (1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3):
        await renew(number)
    assert [pytest.approx(0.25)] * 4 == [held[n] for n in range(4)]
    await workers[3].leave()
    del held[3]
    for number in (0, 1, 2, 0, 1, 2):
        await renew(number)
    assert sum(held.values()) == pytest.approx(1.0)


async def test_a_dead_workers_share_comes_back_by_itself(database: Database) -> None:
    """By the database's clock."""
    await database.migrate()
    await database.run(
        "insert into catchup.rate_shares values (%s, 'dead', 1, 1, clock_timestamp() - interval '1 second')", [NAME]
    )
    rows: Any = await database.run(
        "select public.catchup_share_rate(%s)",
        [f'[{{"name": "{NAME}", "worker": "w", "wants": 1, "ttl_s": 10, "closed_s": 0}}]'],
    )
    assert rows[0][0]["share"] == 1


async def test_a_429_closes_the_gate_for_all(world: World) -> None:
    """For as long as the longest of them says, and of this model only."""
    await world.database.migrate()
    road = await world.road()
    first, second, other = Rates(road, NAME, "a"), Rates(road, NAME, "b"), Rates(road, "openai gpt-4o-mini", "b")
    await first.take(wants=1.0, ttl_s=10.0, closed_s=5.0)
    assert 4.0 < (await second.take(wants=1.0, ttl_s=10.0, closed_s=1.0)).closed_s <= 5.0
    assert (await other.take(wants=1.0, ttl_s=10.0, closed_s=0.0)).closed_s == 0
