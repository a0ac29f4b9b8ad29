"""Whole runs over a real database and the real SDK: what the books say is what the database holds."""

from __future__ import annotations

import asyncio

from jobs.engine.verdict import Exit
from queries.dsn import DsnRoad
from queries.table import Redo
from tests.servers.bench import Bench
from tests.servers.fake_script import rule


async def test_every_pending_row_is_written_once_and_paid_once(bench: Bench) -> None:
    """The plain case: 120 rows, 120 calls, 120 texts."""
    await bench.fill(120)
    verdict = await bench.run()
    assert (verdict.exit, verdict.headline) == (Exit.DONE, "done")
    assert verdict.books.wrote == verdict.calls == 120
    assert all((await bench.cells()).values())
    assert set(bench.paid().values()) == {1}


async def test_the_same_command_right_after_success_makes_no_call(bench: Bench) -> None:
    """A re-run is free."""
    await bench.fill(30)
    await bench.run()
    verdict = await bench.run()
    assert (verdict.exit, verdict.calls, verdict.books.selected) == (Exit.DONE, 0, 0)


async def test_redo_takes_rows_with_an_old_value_and_only_those(bench: Bench) -> None:
    """By the model or prompt that wrote them, or because the text was edited since."""
    await bench.fill(30)
    await bench.run()
    await bench.database.run(
        "update videos set llm_summary_model = 'gpt-3.5' where id <= 'v000004'; "
        "delete from catchup.provenance where key <= '[\"v000004\"]'; "
        "update videos set description = description || ' More was added since.' where id > 'v000027'"
    )
    by_model = await bench.run(redo=Redo("model", "gpt-3.5", "llm_summary_model"))
    edited = await bench.run(redo=Redo("edited"))
    nothing = await bench.run(redo=Redo("edited"))
    assert (by_model.books.wrote, edited.books.wrote, nothing.books.selected) == (4, 3, 0)
    models = await bench.database.run("select distinct llm_summary_model from videos")
    assert models == [("gpt-4o-mini",)]


async def test_failed_rows_come_back_only_when_asked_for_or_changed(bench: Bench) -> None:
    """Else cron's fifty would be the same fifty for ever."""
    await bench.fill(12)
    bench.fake.script(rule("refusal", on={"item": "v00000[89]"}))
    assert (await bench.run()).books.failed.total() == 2
    bench.fake.script()
    assert (await bench.run()).books.selected == 0
    await bench.database.run("update videos set description = description || ' And more.' where id = 'v000008'")
    assert (await bench.run()).books.wrote == 1
    assert (await bench.run(retry_failed=True)).books.wrote == 1


async def test_a_signal_before_the_work_begins_ends_it_at_once(bench: Bench) -> None:
    """A database that does not answer must not keep a person waiting for its outage to end."""
    road = DsnRoad("postgresql://postgres@127.0.0.1:1/nowhere")

    async def signal() -> None:
        await asyncio.sleep(0.3)
        assert bench.running is not None
        bench.running.ask_stop(Exit.SIGINT, "interrupted")

    started = asyncio.get_running_loop().time()
    verdict, _ = await asyncio.gather(bench.run(road=road, max_outage_s=600.0), signal())
    assert verdict.exit is Exit.SIGINT
    assert asyncio.get_running_loop().time() - started < 3
