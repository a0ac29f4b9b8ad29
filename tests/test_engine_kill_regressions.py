"""What the kill harness found, each as the smallest run that shows it."""

from __future__ import annotations

from tests.servers.bench import Bench

SLOW = """
create table changes (id text);
create function doze() returns trigger language plpgsql as $$ begin
    perform pg_sleep(0.02); insert into public.changes values (new.id); return new;
end $$;
create trigger doze before update on videos for each row execute function doze();
"""


async def test_a_write_that_is_out_when_the_work_ends_is_booked_once_with_its_money(bench: Bench) -> None:
    """Found by `python -m tests.chaos --seed 11` at *:37 (52 booked, 28 written): the last answers came while the
    writer waited for the database; it was cancelled and its rows went out again under a new write id, their money lost.
    """
    await bench.fill(100)
    await bench.database.run(SLOW)
    bench.fake.configure(latency=0.05)
    verdict = await bench.run(concurrency=4)
    assert verdict.exit == 0, verdict
    ((books, spent_usd),) = await bench.database.run("select books, spent_usd from catchup.runs")
    ((changes,),) = await bench.database.run("select count(*) from changes")
    assert verdict.books.wrote == books["wrote"] == changes == 100
    assert abs(float(spent_usd) - bench.fake.world.bill_usd) < 1e-9
