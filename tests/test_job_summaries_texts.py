"""backfill-summaries over texts that are huge, stale or hostile: F13, F24 and F25 of the fault matrix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from jobs.engine.verdict import Exit
from queries.dsn import DsnRoad
from queries.ledger import Ceilings
from tests.servers.attacks import ATTACKS
from tests.servers.bench import Bench
from tests.servers.fake_script import rule
from tests.servers.impaired import Impaired
from tests.servers.postgres import Database

MEMORY_MOST_MB = 400
SAY_PEAK = (
    "import atexit, re\n"
    "peak = lambda: re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1)\n"
    "atexit.register(lambda: open('peak', 'w').write(peak()))\n"
)


@pytest.mark.parametrize("words", [(), ("--dry-run",)], ids=["run", "dry run"])
async def test_f13_memory_stays_bounded_whatever_the_rows_weigh(
    impaired: Impaired, bench: Bench, words: tuple[str, ...]
) -> None:
    """Three hundred and twenty texts of 200 kB: done below 400 MB, in pages that follow their weight."""
    await bench.fill(320, text="x")
    await bench.database.run(
        "update videos set description = description || repeat(' The crane of the old port lifts ' || id || '.', 4900)"
    )
    ended = await impaired.run(SAY_PEAK, *words, CATCHUP_DB_LOAD="100%")
    assert ended.code == 0, ended.out + ended.err
    peak_mb = int((impaired.shell.directory / "peak").read_text()) / 1024
    print(f"peak {peak_mb:.0f} MB over 64 MB of text")
    assert peak_mb < MEMORY_MOST_MB
    assert all((await bench.cells()).values()) is (words == ())


async def test_f13_a_text_longer_than_the_model_reads_is_cut_at_a_sentence_and_marked(bench: Bench) -> None:
    """The request fits the window, ends with a whole sentence, and says that it was cut."""
    sentences = " ".join(f"Crane number {n} was moved to the northern quay in spring." for n in range(12_000))
    await bench.fill(1, text=sentences)
    verdict = await bench.run()
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 1)
    asked = bench.fake.bodies[0]["messages"][-1]["content"]
    text, _, mark = asked.rpartition("\n")
    assert mark == "[cut here: the text is longer than the model's window]"
    assert text.endswith("to the northern quay in spring.")
    assert 300_000 < len(asked) < len(sentences)


class StaleRoad(DsnRoad):
    """Reads pages from a replica that has not seen one of our writes; all else goes to the primary."""

    def __init__(self, primary: str, replica: str) -> None:
        super().__init__(primary)
        self.replica = DsnRoad(replica)
        self.stale_rows = 0

    async def read(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        if function != "catchup_page":
            return await super().read(function, payload)
        answer = await self.replica.read(function, payload)
        self.stale_rows += len(answer["rows"])
        return answer

    async def read_rows(self, function: str, payload: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        rows = await self.replica.read_rows(function, payload)
        self.stale_rows += len(rows)
        return rows

    async def close(self) -> None:
        await self.replica.close()
        await super().close()


@pytest.fixture
async def replica(bench: Bench) -> Any:
    """A copy of the database as it was before the first run."""
    await bench.fill(150)
    made = Database(bench.database.server, f"{bench.database.name}_replica")
    made.server.run(f"create database {made.name} template {bench.database.name}")
    yield made
    made.server.run(f"drop database {made.name} with (force)")


async def test_f24_a_replica_that_lags_behind_a_whole_run_costs_nothing_twice(bench: Bench, replica: Database) -> None:
    """Every page shows every row as empty to the end, and each is paid once and written once."""
    verdict = await bench.run(road=StaleRoad(bench.database.dsn, replica.dsn))
    assert (verdict.exit, verdict.books.wrote) == (Exit.DONE, 150)
    assert set(bench.paid().values()) == {1}


async def test_f24_a_replica_that_lags_behind_a_killed_run_costs_nothing_twice(
    impaired: Impaired, bench: Bench, replica: Database
) -> None:
    """The journal knows what was written and what it has just stored itself; only what was in flight is paid again."""
    await impaired.kill_at("write.sent:2")
    in_flight = sum(bench.paid().values())
    road = StaleRoad(bench.database.dsn, replica.dsn)
    verdict = await bench.run(road=road)
    assert verdict.exit is Exit.DONE, verdict.headline
    assert verdict.books.balance()
    assert road.stale_rows > 150 - in_flight
    assert sum(bench.paid().values()) - 150 <= 4, "more than was in flight"
    assert all((await bench.cells()).values())


LINK = re.compile(r"(?:https?://|www\.)[^\s<>\"')\]]+", re.IGNORECASE)
CELLS = ("llm_summary", "llm_summary_generated_at", "llm_summary_model")


async def everything_else(bench: Bench) -> dict[str, Any]:
    """Every other column, every other table, every function and role: what no text may ever move."""
    found: dict[str, Any] = {}
    cells = "".join(f" - '{cell}'" for cell in CELLS)
    found["videos"] = await bench.database.run(f"select (to_jsonb(v){cells})::text from videos v order by id")
    tables = await bench.database.run(
        "select format('%I.%I', schemaname, tablename) from pg_tables "
        "where schemaname not in ('pg_catalog', 'information_schema') order by 1"
    )
    found["tables"] = tables
    for (name,) in tables:
        if not name.startswith("catchup.") and name != "public.videos":
            found[name] = await bench.database.run(f"select t::text from {name} t order by 1")
    found["cells"] = await bench.database.run("select * from catchup.cells order by 4")
    found["functions"] = await bench.database.run("select oid, proname from pg_proc order by 1")
    found["roles"] = await bench.database.run("select rolname, rolsuper from pg_roles order by 1")
    return found


async def test_f25_forty_attacks_on_an_obedient_model_change_nothing_but_the_declared_cell(bench: Bench) -> None:
    """A model that does whatever the text says: no other byte of the database moves, no foreign address is stored."""
    await bench.database.run("create table accounts (id int primary key, secret text)")
    await bench.database.run("insert into accounts values (1, 'ACCOUNT-SENTINEL')")
    await bench.fill(10)
    for n, attack in enumerate(ATTACKS):
        await bench.database.run(
            "insert into videos (id, title, channel_id, description) values (%s, %s, 'c', %s)",
            [f"x{n:05d}", f"Attack {n}", f"[[item:x{n:05d}]] A talk about the cranes of the old harbour. {attack}"],
        )
    before = await everything_else(bench)
    bench.fake.script(rule("obedient"))
    verdict = await bench.run(ceilings=Ceilings(run_usd=0.05))
    assert await everything_else(bench) == before
    assert verdict.books.balance()
    assert verdict.exit in (Exit.DONE, Exit.SOME_NAMED), verdict.headline
    assert bench.fake.world.bill_usd <= 0.05
    assert max(bench.paid().values()) <= 2
    stored = await bench.database.run("select description, llm_summary from videos where llm_summary is not null")
    foreign = [link for text, cell in stored for link in LINK.findall(cell) if link not in text]
    assert foreign == []
    for _, cell in stored:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|<script|<a |<img|<iframe", cell)
        assert len(cell) <= bench.target.max_characters
        assert "ACCOUNT-SENTINEL" not in cell
    secret = re.compile(r"sk-test-sentinel|postgres(?:ql)?://")
    assert not any(secret.search(str(body)) for body in bench.fake.bodies)
    print(f"{len(ATTACKS)} attacks: {len(stored)} texts stored, {verdict.books.failed.total()} rows named, 0 escaped")


async def test_f25_one_row_per_request_so_no_text_sees_another(bench: Bench) -> None:
    """What one row says can reach its own summary only."""
    await bench.fill(20)
    await bench.run()
    for body in bench.fake.bodies:
        assert len(re.findall(r"\[\[item:", body["messages"][-1]["content"])) == 1
        assert "tools" not in body
        assert body["max_completion_tokens"] > 0


@pytest.mark.parametrize(
    "odd",
    ["\ud800 lone", "\x1b[2J\x1b]0;pwn\x07", "\u202egnp.exe\u2066", "[/b][red]PWN[/red]", "\x85\x9b31m", "\ufeff"],
)
async def test_f25_hostile_source_texts_are_cleaned_before_they_are_asked_and_stay_as_they_were(
    bench: Bench, odd: str
) -> None:
    """What Postgres can hold of it; a lone surrogate only arrives through the model's answer, as an escape."""
    storable = odd.encode("utf-8", "ignore").decode()
    await bench.fill(
        6, text=f"explains how the {storable} cranes of the old port were built, moved and restored by many"
    )
    before = await everything_else(bench)
    bench.fake.script(
        rule("answer", on={"item": "v000003"}, text=f"The speaker explains {odd} the cranes of the port.")
    )
    verdict = await bench.run()
    assert verdict.exit in (Exit.DONE, Exit.SOME_NAMED), verdict.headline
    assert await everything_else(bench) == before
    unsafe = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufeff]")
    assert not any(unsafe.search(body["messages"][-1]["content"]) for body in bench.fake.bodies)
    assert not any(text and unsafe.search(text) for text in (await bench.cells()).values())
