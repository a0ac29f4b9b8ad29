"""backfill-summaries when the disk or the state on it is not well: F5, F6 and F7 of the fault matrix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine.verdict import Exit
from tests.servers.bench import Bench
from tests.servers.impaired import JOB, SMALL_STEPS, Impaired, file_size_limit
from tests.servers.shell import Shell


@pytest.mark.parametrize("size", [0, 100, 4_500, 20_000, 31_000, 44_000])
async def test_f5_disk_full_at_byte_k_pays_for_nothing_it_cannot_keep(
    impaired: Impaired, bench: Bench, size: int
) -> None:
    """Exit 10 with the reason; once there is space the same command finishes, and no row was paid twice."""
    await bench.fill(60)
    bench.fake.configure(latency=0.03)
    ended = await impaired.run(file_size_limit(size), "--concurrency", "6")
    assert ended.code == 10, ended.out + ended.err
    assert "the journal cannot grow" in ended.out or "state directory" in ended.out + ended.err
    paid_before = sum(bench.paid().values())
    assert paid_before < 60
    assert (paid_before == 0) is (size <= 4_500)
    verdict = await bench.run()
    assert (verdict.exit, set(bench.paid().values())) == (Exit.DONE, {1})
    assert all((await bench.cells()).values())


async def test_f5_answers_of_all_requests_in_flight_have_their_space(impaired: Impaired, bench: Bench) -> None:
    """Forty answers arrive at once where one more page of disk is free: each was counted before it was asked for."""
    await bench.fill(80)
    bench.fake.configure(latency=0.5)
    for size in (14_000, 120_000):
        ended = await impaired.run(file_size_limit(size), "--concurrency", "40")
        if ended.code == 0:
            break
        assert ended.code == 10, ended.out + ended.err
    await bench.run()
    assert set(bench.paid().values()) == {1}
    assert all((await bench.cells()).values())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 kB of its own; needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk; the file size limit above says the same without")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


async def test_f5_a_real_full_disk_is_survived(impaired: Impaired, bench: Bench, small_disk: Path) -> None:
    """ENOSPC itself, from a file system that somebody else fills; then space is made."""
    await bench.fill(60)
    impaired.shell.env["CATCHUP_STATE_DIR"] = str(small_disk / "state")
    (small_disk / "ballast").write_bytes(b"x" * 40_000)
    words = (SMALL_STEPS, "--concurrency", "6")  # more at once would need room for more answers than there is disk
    ended = await impaired.run(*words, CATCHUP_STATE_DIR=str(small_disk / "state"))
    assert ended.code == 10, ended.out + ended.err
    assert "free space" in ended.out
    assert sum(bench.paid().values()) < 60
    (small_disk / "ballast").unlink()
    again = await impaired.run(*words)
    assert again.code == 0, again.out + again.err
    assert set(bench.paid().values()) == {1}
    assert all((await bench.cells()).values())


@pytest.mark.parametrize("what", ["a file", "below a file", "read-only"])
async def test_f6_a_state_directory_that_cannot_be_used_is_refused_before_anything_is_asked(
    bench: Bench, tmp_path: Path, what: str
) -> None:
    """Exit 10, 0 calls. /proc stands for a read-only file system: not even root can make a directory there."""
    await bench.fill(3)
    (tmp_path / "file").write_text("not a directory")
    place = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "state", "read-only": Path("/proc/state")}
    verdict = await bench.run(state_dir=place[what])
    assert (verdict.exit, verdict.calls, bench.fake.world.requests) == (Exit.REFUSED, 0, 0)
    assert "state directory" in verdict.headline
    assert "CATCHUP_STATE_DIR" in verdict.fix
    assert await bench.database.run("select count(*) from catchup.runs") == [(0,)]


async def test_f6_a_directory_of_somebody_else_is_refused_without_root(
    bench: Bench, wired: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A mode is no obstacle to root, so root becomes nobody for this one."""
    await bench.fill(3)
    wired.directory = tmp_path_factory.mktemp("everybody") if os.geteuid() else Path(tempfile.mkdtemp())
    closed = wired.directory / "closed"
    closed.mkdir(mode=0o555)
    wired.directory.chmod(0o755)
    drop = "setpriv --reuid=65534 --regid=65534 --clear-groups " if os.geteuid() == 0 else ""
    probe = await wired.run_shell(f"{drop}test -x {wired.directory} && {drop}test -r {Path(__file__)}")
    if probe.code:
        pytest.skip("nobody may not read this checkout")
    wired.env["CATCHUP_STATE_DIR"] = str(closed / "state")
    ended = await wired.run_shell(f'{drop}{sys.executable} -c "from cli.main import main; main()" {JOB}')
    assert (ended.code, bench.fake.world.requests) == (10, 0), ended.out + ended.err
    assert "state directory" in ended.out + ended.err


async def test_f6_a_home_that_is_missing_is_refused(wired: Shell, bench: Bench) -> None:
    """Cron of a user without a home: exit 10, and what to set instead."""
    await bench.fill(3)
    del wired.env["CATCHUP_STATE_DIR"]
    ended = await wired.run(JOB, HOME="/proc/nobody")
    assert (ended.code, bench.fake.world.requests) == (10, 0)
    assert "CATCHUP_STATE_DIR" in ended.out + ended.err


def journal_of(bench: Bench) -> Path:
    (path,) = (bench.state_dir / "journals").glob("*.journal")
    return path


async def test_f7_a_torn_last_line_is_dropped_with_a_notice(impaired: Impaired, bench: Bench) -> None:
    """A kill tears at most the last line: all others are used, and the operator is told."""
    await bench.fill(120)
    await impaired.kill_at("write.sent:2")
    path = journal_of(bench)
    sound = path.read_bytes().partition(b"\0")[0]
    path.write_bytes(sound + b'5f3c1a90 ["try",{"n":9')
    verdict = await bench.run()
    assert verdict.exit is Exit.DONE
    assert sum(bench.paid().values()) - 120 <= 4, "more than was in flight"
    assert all((await bench.cells()).values())
    assert any("torn" in notice for notice in bench.memory.notices), bench.memory.notices


async def test_f7_damage_in_the_middle_is_refused_with_its_line(impaired: Impaired, bench: Bench) -> None:
    """Exit 10, 0 calls, the file as it was; put right, the run goes on."""
    await bench.fill(120)
    await impaired.kill_at("write.sent:2")
    path, requests = journal_of(bench), bench.fake.world.requests
    content = path.read_bytes()
    damaged = bytearray(content)
    third = content.find(b"\n", content.find(b"\n") + 1) + 30
    damaged[third] ^= 0xFF
    path.write_bytes(bytes(damaged))
    verdict = await bench.run()
    assert (verdict.exit, bench.fake.world.requests) == (Exit.REFUSED, requests)
    assert "damaged at line 3" in verdict.headline
    assert path.read_bytes() == bytes(damaged)
    path.write_bytes(content)
    assert (await bench.run()).exit is Exit.DONE
    assert all((await bench.cells()).values())


@pytest.mark.parametrize(("field", "value"), [("place", "elsewhere/other"), ("target", "other-target")])
async def test_f7_a_foreign_journal_is_refused(impaired: Impaired, bench: Bench, field: str, value: str) -> None:
    """A journal of another database or target is never replayed into this one, and it says whose it is."""
    await bench.fill(120)
    await impaired.kill_at("write.sent:2")
    path, requests = journal_of(bench), bench.fake.world.requests
    cells = await bench.cells()
    first, _, rest = path.read_bytes().partition(b"\n")
    kind, header = json.loads(first[9:])
    body = json.dumps([kind, {**header, field: value}], separators=(",", ":")).encode()
    path.write_bytes(b"%08x %s\n" % (zlib.crc32(body), body) + rest)
    verdict = await bench.run()
    assert (verdict.exit, bench.fake.world.requests) == (Exit.REFUSED, requests)
    assert value in verdict.headline
    assert await bench.cells() == cells


async def test_f7_a_lost_journal_with_paid_answers_in_it_is_refused_until_they_are_given_up(
    impaired: Impaired, bench: Bench
) -> None:
    """The ledger remembers how many answers may be in it: the number and the dollars are said before paying again."""
    await bench.fill(120)
    await impaired.kill_at("write.sent:2")
    journal_of(bench).unlink()
    requests = bench.fake.world.requests
    verdict = await bench.run()
    assert (verdict.exit, bench.fake.world.requests) == (Exit.REFUSED, requests)
    assert "its journal is missing" in verdict.headline
    assert "answers worth $" in verdict.headline
    assert (await bench.run(abandon_journal=True)).exit is Exit.DONE
    assert all((await bench.cells()).values())


async def test_f7_a_run_unfinished_in_another_home_is_named_and_left_to_it(
    impaired: Impaired, bench: Bench, tmp_path: Path
) -> None:
    """The journal is there, not here: refused, naming the host; --abandon-journal is the decision to pay again."""
    await bench.fill(120)
    await impaired.kill_at("write.sent:2")
    await bench.database.run("update catchup.leases set expires_at = clock_timestamp() - interval '1 s'")
    requests, host = bench.fake.world.requests, os.uname().nodename
    verdict = await bench.run(state_dir=tmp_path / "elsewhere")
    assert (verdict.exit, bench.fake.world.requests) == (Exit.REFUSED, requests)
    assert host in verdict.headline
    assert host in verdict.fix
    assert "--abandon-journal" in verdict.fix
    assert (await bench.run(state_dir=tmp_path / "elsewhere", abandon_journal=True)).exit is Exit.DONE
    assert all((await bench.cells()).values())
