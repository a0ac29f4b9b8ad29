"""vectorize when the disk or the state on it is not well: F5, F6 and F7 of the fault matrix."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest

from jobs.engine.verdict import Exit
from tests.servers.impaired import SMALL_STEPS, Impaired, file_size_limit
from tests.servers.vector_bench import VectorBench

FIVE_A_REQUEST = (
    "from jobs import vectorize; from jobs.engine.job import Packing\n"
    "vectorize.JOB = vectorize.Vectorize(packing=Packing(5, 240_000))\n"
)


@pytest.mark.parametrize("size", [0, 100, 6_000, 20_000, 90_000, 150_000])
async def test_f5_a_disk_full_at_byte_k_pays_for_no_vector_it_cannot_keep(
    impaired_vectors: Impaired, vectors: VectorBench, size: int
) -> None:
    """Exit 10 with the reason; once there is space the same command finishes, and no text was paid twice."""
    await vectors.fill(100)
    vectors.fake.configure(latency=0.03)
    first = FIVE_A_REQUEST + file_size_limit(size)
    ended = await impaired_vectors.run(first, "--concurrency", "2")
    assert ended.code == 10, ended.out + ended.err
    assert "the journal cannot grow" in ended.out or "state directory" in ended.out + ended.err
    assert len(vectors.embedded()) < 100
    assert (vectors.embedded() == {}) is (size < 20_000)
    vectors.calls_of_others = vectors.fake.world.requests
    verdict = await vectors.run()
    assert (verdict.exit, set(vectors.embedded().values())) == (Exit.DONE, {1})
    assert len(await vectors.stored()) == 100
    await vectors.check()


async def test_f5_a_pack_of_vectors_has_its_space_before_it_is_paid(
    impaired_vectors: Impaired, vectors: VectorBench
) -> None:
    """Two thousand vectors of 512 are megabytes in the journal: without room for them not one text is sent."""
    await vectors.fill(2_100)
    ended = await impaired_vectors.run(file_size_limit(1_000_000), "--yes")
    assert ended.code == 10, ended.out + ended.err
    assert "the journal cannot grow" in ended.out
    assert sum(vectors.embedded().values()) == 1, "the canary's"
    vectors.calls_of_others = vectors.fake.world.requests
    assert (await vectors.run()).exit is Exit.DONE
    assert set(vectors.embedded().values()) == {1}
    await vectors.check()


@pytest.mark.parametrize("what", ["a file", "below a file", "read-only"])
async def test_f6_without_a_state_directory_nothing_is_embedded(
    vectors: VectorBench, tmp_path: Path, what: str
) -> None:
    """Exit 10, 0 calls, no vector. /proc stands for a read-only file system."""
    await vectors.fill(3)
    (tmp_path / "file").write_text("not a directory")
    place = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "state", "read-only": Path("/proc/state")}
    verdict = await vectors.run(state_dir=place[what])
    assert (verdict.exit, vectors.fake.world.requests, await vectors.stored()) == (Exit.REFUSED, 0, {})
    assert "CATCHUP_STATE_DIR" in verdict.fix


async def kill(impaired: Impaired, vectors: VectorBench, point: str = "write.sent:2") -> Path:
    """Leaves behind what a kill at this point leaves; returns the journal."""
    vectors.fake.configure(latency=0.05)
    ended = await impaired.run(FIVE_A_REQUEST, "--concurrency", "2", CATCHUP_FAULTS=f"{point}:kill")
    assert ended.code == -9, ended.out + ended.err
    vectors.fake.configure(latency=0.0)
    vectors.calls_of_others = vectors.fake.world.requests
    (path,) = (vectors.state_dir / "journals").glob("*.journal")
    return path


async def test_f7_a_torn_line_of_vectors_is_dropped_with_a_notice(
    impaired_vectors: Impaired, vectors: VectorBench
) -> None:
    """A kill in the middle of a pack's line: all whole lines are used, at most what was in flight is paid again."""
    await vectors.fill(120)
    path = await kill(impaired_vectors, vectors)
    sound = path.read_bytes().partition(b"\0")[0]
    path.write_bytes(sound + b'5f3c1a90 ["paid",{"n":9,"usd":0.1,"rows":[{"k":["v000099"],"v":[["v000099","AAAA')
    verdict = await vectors.run()
    assert verdict.exit is Exit.DONE
    assert any("torn" in notice for notice in vectors.memory.notices), vectors.memory.notices
    assert sum(vectors.embedded().values()) - 120 <= 2 * 5, "more than was in flight"
    await vectors.check()


async def test_f7_a_damaged_vector_in_the_journal_is_refused_and_never_stored(
    impaired_vectors: Impaired, vectors: VectorBench
) -> None:
    """One byte of base64 flipped would be a wrong vector: exit 10, 0 calls; put right it goes on."""
    await vectors.fill(120)
    path = await kill(impaired_vectors, vectors)
    content, requests = path.read_bytes(), vectors.fake.world.requests
    damaged = bytearray(content)
    place = content.index(b'"v":[["') + 200
    damaged[place] = ord("B") if damaged[place] != ord("B") else ord("C")
    path.write_bytes(bytes(damaged))
    verdict = await vectors.run()
    assert (verdict.exit, vectors.fake.world.requests) == (Exit.REFUSED, requests)
    assert "damaged at line" in verdict.headline
    assert path.read_bytes() == bytes(damaged)
    path.write_bytes(content)
    assert (await vectors.run()).exit is Exit.DONE
    await vectors.check()


@pytest.mark.parametrize(("field", "value"), [("place", "elsewhere/other"), ("target", "other-target")])
async def test_f7_a_foreign_journal_is_never_put_into_this_space(
    impaired_vectors: Impaired, vectors: VectorBench, field: str, value: str
) -> None:
    """Of another database or target: exit 10, nothing stored, and it says whose it is."""
    await vectors.fill(120)
    path = await kill(impaired_vectors, vectors)
    stored = await vectors.stored()
    first, _, rest = path.read_bytes().partition(b"\n")
    kind, header = json.loads(first[9:])
    body = json.dumps([kind, {**header, field: value}], separators=(",", ":")).encode()
    path.write_bytes(b"%08x %s\n" % (zlib.crc32(body), body) + rest)
    verdict = await vectors.run()
    assert (verdict.exit, verdict.calls) == (Exit.REFUSED, 0)
    assert value in verdict.headline
    assert await vectors.stored() == stored


async def test_f7_lost_vectors_that_were_paid_are_refused_until_they_are_given_up(
    impaired_vectors: Impaired, vectors: VectorBench, tmp_path: Path
) -> None:
    """The journal is gone, or on another host: number, dollars and host are said before anything is paid again."""
    await vectors.fill(120)
    path = await kill(impaired_vectors, vectors)
    await vectors.database.run("update catchup.leases set expires_at = clock_timestamp() - interval '1 s'")
    elsewhere = await vectors.run(state_dir=tmp_path / "elsewhere")
    assert (elsewhere.exit, elsewhere.calls) == (Exit.REFUSED, 0)
    assert os.uname().nodename in elsewhere.headline
    path.unlink()
    verdict = await vectors.run()
    assert (verdict.exit, verdict.calls) == (Exit.REFUSED, 0)
    assert "its journal is missing" in verdict.headline
    assert "answers worth $" in verdict.headline
    assert (await vectors.run(abandon_journal=True)).exit is Exit.DONE
    assert await vectors.stored() == await vectors.expected()


@pytest.mark.parametrize("point", ["space.before:2", "space.put:2", "space.seen:2", "write.before:2"])
async def test_an_answer_in_the_journal_is_put_again_and_not_paid_again(
    impaired_vectors: Impaired, vectors: VectorBench, point: str
) -> None:
    """Killed before, between and after putting and looking: the next run starts with what the journal has."""
    await vectors.fill(80)
    await kill(impaired_vectors, vectors, point)
    paid = sum(vectors.embedded().values())
    assert await vectors.flagged() <= set(await vectors.stored())
    verdict = await vectors.run()
    assert (verdict.exit, verdict.recovered > 0) == (Exit.DONE, True)
    assert sum(vectors.embedded().values()) <= 80 + 2 * 5
    assert paid > 1
    await vectors.check()


async def test_small_steps_of_the_journal_are_enough_for_a_whole_run(
    impaired_vectors: Impaired, vectors: VectorBench
) -> None:
    """The journal grows page by page where the disk is tight, and nothing of it stays after success."""
    await vectors.fill(60)
    assert (await impaired_vectors.run(SMALL_STEPS)).code == 0
    assert list((vectors.state_dir / "journals").iterdir()) == []
    vectors.calls_of_others = vectors.fake.world.requests
    await vectors.check()
