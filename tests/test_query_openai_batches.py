"""The provider side of batches, by the real SDK against the fake: one attempt a call, and nothing half."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from queries.batches import CHAT, RemoteBatch, TokenLimit, read_token_limit, read_token_limit_words
from queries.errors import CatchupError, Gone, Misconfigured, Transient, UnknownOutcome, Unreachable
from queries.openai_batches import OpenAIBatches
from queries.whole_file import remove_leftovers
from tests.servers.bench import KEY
from tests.servers.fake_batches import DAY
from tests.servers.fake_openai import FakeOpenAI

LIMIT_WORDS = (
    "Enqueued token limit reached for gpt-4o-mini in organization org-x. Limit: 2,000,000 enqueued tokens. "
    "Please try again once some in_progress batches have been completed."
)


@pytest.fixture
async def batches(fake_openai: FakeOpenAI) -> AsyncIterator[OpenAIBatches]:
    made = OpenAIBatches(KEY, fake_openai.url, timeout_s=5.0)
    yield made
    await made.close()


def write_file(folder: Path, lines: int = 3, name: str = "chunk.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(line_of(n)) + "\n" for n in range(lines)))
    return path


def line_of(number: int, **more: Any) -> dict[str, Any]:
    words = [{"role": "system", "content": "Say it."}, {"role": "user", "content": f"[[item:v{number}]] of cranes"}]
    body = {"model": "gpt-4o-mini", "messages": words, "max_completion_tokens": 100}
    return {"custom_id": f"id-{number}", "method": "POST", "url": CHAT, "body": body, **more}


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def submit(batches: OpenAIBatches, folder: Path, lines: int = 3) -> RemoteBatch:
    file_id = await batches.upload(write_file(folder, lines), "chunk.jsonl")
    return await batches.create(file_id, CHAT, {"chunk": "c1"})


async def test_a_file_goes_up_is_worked_and_its_answers_come_down(
    batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    """The whole road: what was sent is stored byte for byte, and what comes back is whole and known by its hash."""
    told: list[tuple[int, int]] = []
    path = write_file(tmp_path, 2_000)
    file_id = await batches.upload(path, "chunk.jsonl", lambda sent, size: told.append((sent, size)))
    assert fake_openai.batches.files[file_id].data == path.read_bytes()
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    made = await batches.create(file_id, CHAT, {"chunk": "c1"})
    found = await batches.get(made.id)
    assert (found.status, found.metadata, found.model, found.has_ended) == (
        "completed",
        {"chunk": "c1"},
        "gpt-4o-mini",
        True,
    )
    assert (found.total, found.completed, found.error_file_id) == (2_000, 2_000, None)
    assert found.output_file_id is not None
    done = await batches.download(found.output_file_id, tmp_path / "out.jsonl")
    data = (tmp_path / "out.jsonl").read_bytes()
    assert (done.sha256, done.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert sorted(json.loads(line)["custom_id"] for line in data.splitlines()) == sorted(
        f"id-{n}" for n in range(2_000)
    )
    assert fake_openai.world.paid.total() == 2_000
    assert names(tmp_path) == ["chunk.jsonl", "out.jsonl"]


@pytest.mark.parametrize(
    ("how", "error", "is_stored"),
    [("lost", UnknownOutcome, False), ("unanswered", UnknownOutcome, True), ("failing", UnknownOutcome, False)],
)
async def test_an_upload_of_unknown_outcome_is_found_by_its_name(
    batches: OpenAIBatches,
    fake_openai: FakeOpenAI,
    tmp_path: Path,
    how: str,
    error: type[CatchupError],
    is_stored: bool,
) -> None:
    """B9: after a lost answer the file is found by name and size, or is not there; no attempt is repeated unseen."""
    fake_openai.batches.script({"match": {"nth": 1}, "lie": {"upload": how}})
    path = write_file(tmp_path, 5_000)
    with pytest.raises(error):
        await batches.upload(path, "chunk.jsonl")
    assert fake_openai.batches.calls == {"upload": 1}
    found = await batches.find_file("chunk.jsonl", path.stat().st_size)
    assert (found is not None) == is_stored
    assert await batches.find_file("chunk.jsonl", 7) is None
    assert await batches.find_file("other.jsonl") is None
    assert await batches.upload(path, "chunk.jsonl")


@pytest.mark.parametrize(("how", "exists"), [("unanswered", True), ("failing", False)])
async def test_a_create_of_unknown_outcome_is_found_in_the_list(
    batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path, how: str, exists: bool
) -> None:
    """B9: a create that was not answered may exist; it is adopted by its metadata, which the list shows late."""
    fake_openai.batches.script({"match": {"nth": 1}, "lie": {"create": how, "listed_after_s": 30.0}})
    with pytest.raises(UnknownOutcome):
        await submit(batches, tmp_path)
    assert [each.metadata async for each in batches.list_all()] == []
    fake_openai.batches.advance(31)
    assert [each.metadata async for each in batches.list_all()] == ([{"chunk": "c1"}] if exists else [])
    assert fake_openai.batches.calls["create"] == 1


async def test_the_list_is_read_to_its_end(batches: OpenAIBatches, fake_openai: FakeOpenAI) -> None:
    """B9: a batch on the third page is seen too, each once."""
    for _ in range(250):
        fake_openai.batches.add_foreign(10)
    found = [each.id async for each in batches.list_all()]
    assert sorted(found) == sorted(fake_openai.batches.batches)
    assert fake_openai.batches.calls["list"] == 3


async def test_no_room_for_more_tokens_is_told_by_a_failed_batch(
    batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    """B2: create succeeds, and the refusal is read from the batch, with its number; nothing was worked or billed."""
    fake_openai.batches.configure(enqueued_limit=2_000_000)
    fake_openai.batches.add_foreign(2_000_000)
    made = await submit(batches, tmp_path)
    found = await batches.get(made.id)
    assert (found.status, found.output_file_id) == ("failed", None)
    assert read_token_limit(found) == TokenLimit(2_000_000)
    assert fake_openai.world.paid.total() == 0


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("token_limit_exceeded", LIMIT_WORDS, TokenLimit(2_000_000)),
        ("token_limit_exceeded", "No more room.", TokenLimit(0)),
        ("", LIMIT_WORDS, TokenLimit(2_000_000)),
        (
            "token_limit_exceeded",
            "Enqueued token limit reached. Limit 90000, enqueued: 80,001 tokens.",
            TokenLimit(90_000, 80_001),
        ),
        ("duplicate_custom_id", "The custom_id 'a' was already used. Limit: 5", None),
    ],
    ids=["as-recorded", "no-number", "no-code", "with-what-is-there", "another-fault"],
)
def test_the_words_of_a_refusal_for_want_of_room_name_the_limit(
    code: str, message: str, expected: TokenLimit | None
) -> None:
    """The limit is nowhere but in these words, and models have numbers in their names."""
    assert read_token_limit_words(code, message) == expected


@pytest.mark.parametrize("how", ["cut", "short", "failing"])
async def test_a_download_is_whole_or_not_there(
    batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path, how: str
) -> None:
    """A cut download leaves nothing under the file's name, and the next one is whole."""
    fake_openai.batches.script({"lie": {"content": how}})
    found = await batches.get((await submit(batches, tmp_path, 500)).id)
    assert found.output_file_id is not None
    with pytest.raises(Transient):
        await batches.download(found.output_file_id, tmp_path / "out.jsonl")
    assert names(tmp_path) == ["chunk.jsonl"]
    await batches.download(found.output_file_id, tmp_path / "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 500


async def test_what_is_not_there_is_gone_and_no_fault_of_the_configuration(
    batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    """B10: a result file older than the retention is gone by name; a run of other batches can go on."""
    found = await batches.get((await submit(batches, tmp_path)).id)
    fake_openai.batches.advance(31 * DAY)
    assert found.output_file_id is not None
    with pytest.raises(Gone):
        await batches.download(found.output_file_id, tmp_path / "out.jsonl")
    with pytest.raises(Gone):
        await batches.get("batch-none")
    with pytest.raises(Gone):
        await batches.cancel("batch-none")
    with pytest.raises(Gone):
        await batches.create(found.input_file_id, CHAT, {})
    await batches.delete_file(found.input_file_id)


async def test_cancelling_what_has_ended_tells_what_it_came_to(
    batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    """A batch that completed a moment before is harvested like any other."""
    made = await submit(batches, tmp_path)
    assert (await batches.cancel(made.id)).status == "completed"
    fake_openai.batches.configure(working_s=100.0, cancelling_s=600.0)
    made = await submit(batches, tmp_path, 200)
    fake_openai.batches.advance(50)
    assert (await batches.cancel(made.id)).status == "cancelling"
    fake_openai.batches.advance(600)
    found = await batches.get(made.id)
    assert (found.status, found.completed, found.failed) == ("cancelled", 100, 100)


async def test_polls_that_fail_are_transient_or_gone(
    batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    """B12: half of the polls answer 5xx or 404; each is one request, and the batch is as it was."""
    made = await submit(batches, tmp_path)
    fake_openai.batches.configure(polls_fail=0.5)
    seen: list[str] = []
    for _ in range(40):
        try:
            seen.append((await batches.get(made.id)).status)
        except (Transient, Gone) as error:
            seen.append(type(error).__name__)
    assert set(seen) == {"completed", "Transient", "Gone"}
    assert fake_openai.batches.calls["get"] == 40


async def test_a_wrong_key_stops_and_is_not_repeated(fake_openai: FakeOpenAI, tmp_path: Path) -> None:
    """O4: refused before anything exists, in words without the key."""
    fake_openai.configure(key="another")
    batches = OpenAIBatches(KEY, fake_openai.url, timeout_s=5.0)
    path = write_file(tmp_path)
    for attempt in (lambda: batches.upload(path, "c"), lambda: batches.get("b"), lambda: anext(batches.list_all())):
        with pytest.raises(Misconfigured) as refused:
            await attempt()
        assert KEY not in f"{refused.value} {refused.value.words}"
    await batches.close()


async def test_nobody_there_is_an_outage_and_nothing_was_sent(tmp_path: Path) -> None:
    """A refused connection is no unknown outcome: nothing has to be looked for."""
    batches = OpenAIBatches(KEY, "http://127.0.0.1:9/v1", timeout_s=5.0)
    with pytest.raises(Unreachable):
        await batches.upload(write_file(tmp_path), "chunk.jsonl")
    with pytest.raises(Unreachable):
        await batches.create("file-1", CHAT, {})
    await batches.close()


async def test_half_a_download_of_a_killed_process_is_taken_away(tmp_path: Path) -> None:
    """Of this run only: another one may be downloading beside it."""
    for name in (".run-1-2.output.jsonl.abc.part", ".run-2-1.output.jsonl.def.part", "run-1-1.output.jsonl"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "run-1-")
    assert names(tmp_path) == [".run-2-1.output.jsonl.def.part", "run-1-1.output.jsonl"]
