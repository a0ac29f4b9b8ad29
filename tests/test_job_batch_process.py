"""submit-batch as a process: signals, disk, clocks, screens, two at once, memory, money, dry runs."""

from __future__ import annotations

import asyncio
import json
import signal
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.batching.run import BatchRun
from jobs.batching.sending import Sending
from jobs.batching.session import BatchSession
from jobs.engine.verdict import Exit
from queries.ledger import Ceilings
from queries.openai_batches import OpenAIBatches
from tests.servers.batch_bench import BatchBench
from tests.servers.batch_seeds import judge, visit_until_done
from tests.servers.bench import KEY
from tests.servers.fault_proxy import Fault, StartFaultProxy
from tests.servers.impaired import Impaired, file_size_limit
from tests.servers.shell import Shell, interrupt
from tests.test_job_summaries_texts import MEMORY_MOST_MB, SAY_PEAK

MAD_CLOCK = (
    "import itertools, time; real = time.time; days = itertools.cycle((-86400, 0, 86400))\n"
    "time.time = lambda: real() + next(days)\n"
)


@pytest.fixture
def batching(impaired: Impaired) -> Impaired:
    return replace(impaired, job="submit-batch")


async def is_right(bench: BatchBench) -> bool:
    return all((await bench.cells()).values()) and set(bench.paid().values()) == {1}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_f3_a_signal_ends_the_watching_and_nothing_else(
    wired: Shell, batch_bench: BatchBench, number: int, code: int
) -> None:
    """Out in seconds with its own exit code; the batch goes on at the provider, and the next visit collects it."""
    await batch_bench.fill(20)
    batch_bench.fake.batches.configure(working_s=10_000.0)
    child = await wired.start("submit-batch", "--watch")
    async with asyncio.timeout(30):
        while not batch_bench.fake.batches.batches:
            await asyncio.sleep(0.05)  # the fake tells nobody
    await asyncio.sleep(0.3)
    interrupt(child, number)
    out, err = await asyncio.wait_for(child.communicate(), 7)
    assert child.returncode == code, (out + err).decode()
    batch_bench.fake.batches.advance(20_000.0)
    assert (await batch_bench.visit()).exit is Exit.DONE
    assert len(batch_bench.fake.batches.batches) == 1
    assert await is_right(batch_bench)


@pytest.mark.parametrize("size", [0, 100, 6_000, 14_000])
async def test_f5_a_disk_full_at_byte_k_pays_for_nothing_it_cannot_keep(
    batching: Impaired, batch_bench: BatchBench, size: int
) -> None:
    """Journal, input file or results: exit 10 with the reason; once there is space nothing is paid again."""
    await batch_bench.fill(40)
    ended = await batching.run(file_size_limit(size))
    assert ended.code == 10, ended.out + ended.err
    verdicts = await visit_until_done(batch_bench)
    assert verdicts[-1].exit is Exit.DONE
    assert await is_right(batch_bench)


@pytest.mark.parametrize("what", ["a file", "read-only"])
async def test_f6_without_a_state_directory_nothing_is_handed_in(
    batch_bench: BatchBench, tmp_path: Path, what: str
) -> None:
    """Exit 10, 0 calls. /proc stands for a read-only file system."""
    await batch_bench.fill(3)
    (tmp_path / "file").write_text("not a directory")
    place = {"a file": tmp_path / "file", "read-only": Path("/proc/state")}
    verdict = await batch_bench.visit(state_dir=place[what])
    assert (verdict.exit, batch_bench.fake.world.requests) == (Exit.REFUSED, 0)


def _signed(body: bytes) -> bytes:
    return b"%08x " % zlib.crc32(body.rstrip(b"\n")) + body


@pytest.mark.parametrize(
    ("damage", "exit_"), [("torn", Exit.DONE), ("middle", Exit.REFUSED), ("foreign", Exit.REFUSED)]
)
async def test_f7_a_torn_journal_heals_and_a_damaged_one_is_refused(
    batching: Impaired, batch_bench: BatchBench, damage: str, exit_: Exit
) -> None:
    """Never a silent restart: what was collected and not confirmed is replayed, or the visit says why not."""
    await batch_bench.fill(30)
    ended = await batching.run("", CATCHUP_FAULTS="write.sent:2:kill")
    assert ended.code == -9, ended.out + ended.err
    (path,) = (batch_bench.state_dir / "journals").glob("*.journal")
    lines = path.read_bytes().rstrip(b"\0").splitlines(keepends=True)
    spoilt = {
        "torn": [*lines, b'12345678 ["paid",{"n":'],
        "middle": [lines[0], lines[1][:9] + b"#" + lines[1][10:], *lines[2:]],
        "foreign": [_signed(lines[0][9:].replace(b"video-summaries", b"other-summaries")), *lines[1:]],
    }
    path.write_bytes(b"".join(spoilt[damage]))
    verdict = await batch_bench.visit()
    assert verdict.exit is exit_, verdict.headline
    if damage == "torn":
        assert await is_right(batch_bench)
        assert (await judge(batch_bench, [verdict])).broken() == {}


async def test_f8_two_visits_at_once_are_one(batch_bench: BatchBench, tmp_path: Path) -> None:
    """The second exits 11, on this host and from another one, and nothing is handed in twice."""
    await batch_bench.fill(20)
    batch_bench.fake.batches.configure(working_s=100_000.0)
    watching = asyncio.create_task(batch_bench.visit(watch=True))
    async with asyncio.timeout(30):
        while not batch_bench.fake.batches.batches:
            await asyncio.sleep(0.02)  # the fake tells nobody
    here = await batch_bench.visit()
    there = await batch_bench.visit(state_dir=tmp_path / "elsewhere")
    assert (here.exit, there.exit) == (Exit.LEASE_HELD, Exit.LEASE_HELD)
    batch_bench.fake.batches.advance(200_000.0)
    assert (await watching).exit is Exit.DONE
    assert len(batch_bench.fake.batches.batches) == 1
    assert await is_right(batch_bench)


async def test_f9_a_mad_wall_clock_changes_nothing(batching: Impaired, batch_bench: BatchBench) -> None:
    """A day forth and back at every look: one batch, every row written and paid once."""
    await batch_bench.fill(20)
    ended = await batching.run(MAD_CLOCK, "--max-cost", "1", TZ="America/New_York")
    assert ended.code == 0, ended.out + ended.err
    assert await is_right(batch_bench)


@pytest.mark.parametrize("redirected", [">&-", "| head -1"])
async def test_f10_no_screen_keeps_a_batch_from_its_rows(
    wired: Shell, batch_bench: BatchBench, redirected: str
) -> None:
    """Whatever becomes of the output: every row is written."""
    await batch_bench.fill(15)
    wired.env |= {"LANG": "C", "LC_ALL": "C"}
    await wired.run_shell(f"{{ catchup submit-batch; echo $? > code; }} {redirected}")
    assert (wired.directory / "code").read_text().strip() == "0"
    assert await is_right(batch_bench)


async def test_f11_five_minutes_without_network_cost_nothing(
    batch_bench: BatchBench, start_fault_proxy: StartFaultProxy
) -> None:
    """No poll, no list and no file comes through: it waits, and goes on; no row is blamed."""
    await batch_bench.fill(20)
    proxy = await start_fault_proxy(batch_bench.fake.url.removesuffix("/v1"))
    proxy.inject(Fault("/v1/", "reset", nth=3, times=14))
    verdict = await batch_bench.visit(batches=OpenAIBatches(KEY, f"{proxy.url}/v1"), max_outage_s=3_600.0)
    assert (verdict.exit, verdict.books.failed.total()) == (Exit.DONE, 0), verdict.headline
    assert len(batch_bench.fake.batches.batches) == 1
    assert await is_right(batch_bench)


async def test_f12_sockets_that_hang_are_noticed(batch_bench: BatchBench, start_fault_proxy: StartFaultProxy) -> None:
    """Uploads, creates and downloads that are accepted and never answered: looked for, and done once."""
    await batch_bench.fill(20)
    proxy = await start_fault_proxy(batch_bench.fake.url.removesuffix("/v1"))
    for path in ("/v1/files", "/v1/batches", "/content"):
        proxy.inject(Fault(path, "hang"))
    batches = OpenAIBatches(KEY, f"{proxy.url}/v1", timeout_s=0.3)
    verdict = await batch_bench.visit(batches=batches, max_outage_s=3_600.0)
    assert (verdict.exit, len(batch_bench.fake.batches.batches)) == (Exit.DONE, 1), verdict.headline
    assert await is_right(batch_bench)


async def test_f13_memory_stays_bounded_whatever_the_rows_weigh(batching: Impaired, batch_bench: BatchBench) -> None:
    """A hundred texts of 200 kB in one file: below 400 MB. (Its own peak: Linux counts a parent's into ru_maxrss.)"""
    await batch_bench.fill(100)
    await batch_bench.database.run(
        "update videos set description = description || repeat(' cranes of the old harbour', 7500) || ' ' || "
        "(select string_agg(translate(md5(id || n), '0123456789', 'ghijklmnop'), ' ') from generate_series(1, 9) n)"
    )
    ended = await batching.run(SAY_PEAK, "--yes", CATCHUP_DB_LOAD="100%")
    assert ended.code == 0, ended.out + ended.err
    peak_mb = int((batching.shell.directory / "peak").read_text()) / 1024
    print(f"peak {peak_mb:.0f} MB over 20 MB of text")
    assert peak_mb < MEMORY_MOST_MB
    assert await is_right(batch_bench)


async def test_f14_the_worst_case_of_what_is_out_never_passes_a_ceiling(batch_bench: BatchBench) -> None:
    """A file is cut where the money ends; what is out stays reserved between two visits, and is settled once."""
    await batch_bench.fill(60)
    batch_bench.fake.batches.configure(working_s=1_000.0)
    ceilings = Ceilings(run_usd=0.002, hour_usd=0.004, day_usd=0.004)
    first = await batch_bench.visit(ceilings=ceilings, tail_live=0, enqueued_limit=10**8)
    (chunk,) = await batch_bench.chunks()
    assert first.exit is Exit.CEILING
    assert 5 < chunk["requests"] < 59
    assert chunk["reserved_usd"] <= 0.002
    second = await batch_bench.visit(ceilings=ceilings, tail_live=0, enqueued_limit=10**8)
    assert second.exit is Exit.CEILING
    assert sum(chunk["reserved_usd"] for chunk in await batch_bench.chunks()) <= 0.002
    batch_bench.fake.batches.advance(2_000.0)
    verdicts = await visit_until_done(batch_bench, ceilings=replace(ceilings, run_usd=0.004), tail_live=0)
    assert batch_bench.fake.world.bill_usd <= 0.004
    assert all(verdict.exit in (Exit.DONE, Exit.CEILING) for verdict in verdicts)
    assert set(batch_bench.paid().values()) == {1}


async def test_f14_max_runtime_ends_the_watching_in_time(batch_bench: BatchBench) -> None:
    """Exit 4: more to come, and the next visit goes on."""
    await batch_bench.fill(20)
    batch_bench.fake.batches.configure(working_s=100_000.0)
    verdict = await batch_bench.visit(watch=True, max_runtime_s=300.0)
    assert (verdict.exit, verdict.books.to_do) == (Exit.STOPPED, 19)
    batch_bench.fake.batches.advance(200_000.0)
    assert (await batch_bench.visit()).books.wrote == 19


async def test_f48_nothing_pending_is_zero_and_says_so(batch_bench: BatchBench) -> None:
    """No row, no call, no file."""
    verdict = await batch_bench.visit()
    assert (verdict.exit, batch_bench.fake.world.requests) == (Exit.DONE, 0)
    assert (await batch_bench.visit(error_on_nothing=True)).exit is Exit.NOTHING_TO_DO


async def test_f48_rows_that_are_planned_and_handed_in_by_nobody_are_exit_1(batch_bench: BatchBench) -> None:
    """A planted bug: the file is written and forgotten. The books say how many rows nobody can account for."""

    class Forgetful(Sending):
        async def _hand_in(self, draft: object) -> None:
            del draft

    class Planted(BatchRun):
        def _begin(self, opened: object) -> BatchSession:
            session = super()._begin(opened)  # type: ignore[arg-type]
            assert isinstance(session, BatchSession)
            session.sending = Forgetful(session)
            return session

    await batch_bench.fill(20)
    verdict = await batch_bench.visit(run=Planted)
    assert (verdict.exit, verdict.books.balance()) == (Exit.UNEXPECTED, False)


async def test_f49_a_second_visit_straight_after_success_costs_nothing(batch_bench: BatchBench) -> None:
    """0 calls, 0 files, 0 writes."""
    await batch_bench.fill(20)
    await batch_bench.visit()
    before, calls = await batch_bench.cells(), batch_bench.fake.world.requests
    again = await batch_bench.visit()
    assert (again.exit, again.calls, batch_bench.fake.world.requests) == (Exit.DONE, 0, calls)
    assert await batch_bench.cells() == before


@pytest.mark.parametrize("is_faulty", [False, True])
async def test_f50_a_dry_run_counts_and_writes_nothing(
    batch_bench: BatchBench, start_fault_proxy: StartFaultProxy, is_faulty: bool
) -> None:
    """Requests, tokens and files as the real run then makes them; only reads, also where the provider is away."""
    await batch_bench.fill(50)
    await batch_bench.database.run("update videos set description = 'hm', title = 'x' where id = 'v000003'")
    proxy = await start_fault_proxy(batch_bench.fake.url.removesuffix("/v1"))
    if is_faulty:
        proxy.inject(Fault("/v1/", "reset", times=100))
    verdict = await batch_bench.visit(
        dry_run=True, requests_most=20, batches=OpenAIBatches(KEY, f"{proxy.url}/v1"), state_dir=Path("/proc/none")
    )
    (plan,) = batch_bench.memory.plans
    assert (verdict.exit, plan.facts["requests"], plan.facts["files"], dict(plan.would_skip).popitem()[1]) == (
        Exit.DONE, 49, 3, 1,
    )  # fmt: skip
    seen = batch_bench.running.snapshot()
    assert (seen.phase, seen.done, seen.total_estimate) == ("counting", 50, 50), "the bar shows what was counted"
    assert {request.method for request in proxy.requests} <= {"GET"}
    assert await batch_bench.database.run("select 1 from catchup.runs") == []
    real = await batch_bench.visit(requests_most=20, tail_live=0)
    sent = await batch_bench.chunks()
    assert real.books.skipped.total() == 1
    assert sum(chunk["requests"] for chunk in sent) == plan.facts["requests"] - 1, "less the canary"
    assert sum(chunk["tokens"] for chunk in sent) == pytest.approx(plan.facts["tokens_in"], rel=0.03)


async def test_g21_no_secret_and_no_text_is_in_what_the_ledger_keeps(wired: Shell, batch_bench: BatchBench) -> None:
    """Keys never; texts only in the private files, which nobody else may read."""
    await batch_bench.fill(10, text="a very SENTINEL sentence that says how the old cranes were built and moved again")
    ended = await wired.run("submit-batch", "--json", "--verbose")
    assert ended.code == 0
    said = ended.out + ended.err + json.dumps(await batch_bench.chunks(), default=str)
    assert KEY not in said
    folder = batch_bench.state_dir / "batches"
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
