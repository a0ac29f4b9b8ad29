"""The fake Batch API enforces and misbehaves as it says, or every test on top of it proves nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from queries.batches import CHAT, RemoteBatch
from queries.openai_batches import OpenAIBatches
from tests.servers.bench import KEY
from tests.servers.fake_batches import DAY, read_lines
from tests.servers.fake_openai import FakeOpenAI
from tests.servers.fake_process import run_fake_openai
from tests.servers.fake_script import rule


@pytest.fixture
async def batches(fake_openai: FakeOpenAI) -> AsyncIterator[OpenAIBatches]:
    made = OpenAIBatches(KEY, fake_openai.url, timeout_s=5.0)
    yield made
    await made.close()


def line_of(number: int, model: str = "gpt-4o-mini", **more: Any) -> dict[str, Any]:
    words = [{"role": "system", "content": "Say it."}, {"role": "user", "content": f"[[item:v{number}]] of cranes"}]
    body = {"model": model, "messages": words, "max_completion_tokens": 100}
    return {"custom_id": f"id-{number}", "method": "POST", "url": CHAT, "body": body, **more}


async def submit(batches: OpenAIBatches, folder: Path, lines: list[dict[str, Any]]) -> RemoteBatch:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = await batches.create(await batches.upload(path, "in.jsonl"), CHAT, {})
    return await batches.get(made.id)


def results(fake: FakeOpenAI, found: RemoteBatch) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    output, errors = (
        read_lines(fake.batches.files[name].data) if name else []
        for name in (found.output_file_id, found.error_file_id)
    )
    return output, errors


@pytest.mark.parametrize(
    ("lines", "limits", "code"),
    [
        ([line_of(1), line_of(1)], {}, "duplicate_custom_id"),
        ([line_of(1), line_of(2, "gpt-4o")], {}, "mismatched_model"),
        ([line_of(1, url="/v1/embeddings")], {}, "mismatched_endpoint"),
        ([line_of(1, custom_id=7)], {}, "invalid_json_line"),
        ([line_of(n) for n in range(4)], {"requests_most": 3}, "max_requests_exceeded"),
        ([line_of(n) for n in range(4)], {"enqueued_limit": 10}, "token_limit_exceeded"),
    ],
    ids=["duplicate", "two-models", "endpoint", "id", "requests", "enqueued"],
)
async def test_a_bad_file_fails_after_create_and_costs_nothing(
    batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path, lines: list[Any], limits: dict[str, int], code: str
) -> None:
    """As at the real service: create succeeds, validation fails later, and nobody is billed."""
    fake_openai.batches.configure(**limits)
    found = await submit(batches, tmp_path, lines)
    assert (found.status, found.errors[0][0]) == ("failed", code)
    assert fake_openai.world.bill_usd == 0


async def test_lines_are_answered_and_billed_as_live_calls_at_half_the_price(
    batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    """One world: the same text for the same item, the same rules, half the bill."""
    fake_openai.script(rule("status", on={"item": "^v2$"}, status=400, body={"error": {"message": "odd"}}))
    found = await submit(batches, tmp_path, [line_of(n) for n in range(4)])
    output, errors = results(fake_openai, found)
    assert sorted(line["custom_id"] for line in output) == ["id-0", "id-1", "id-3"]
    assert [(line["custom_id"], line["response"]["status_code"]) for line in errors] == [("id-2", 400)]
    assert dict(fake_openai.world.paid) == {"v0": 1, "v1": 1, "v3": 1}
    world = fake_openai.world
    live = (world.tokens_in * 0.15 + world.tokens_out * 0.60) / 1e6
    assert world.bill_usd == pytest.approx(live / 2)


async def test_states_follow_from_age(batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path) -> None:
    """Virtual time alone moves a batch, through each of its states."""
    fake_openai.batches.configure(validating_s=10.0, working_s=100.0, finalizing_s=5.0)
    found = await submit(batches, tmp_path, [line_of(1)])
    seen = [found.status]
    for seconds in (11, 100, 10):
        fake_openai.batches.advance(seconds)
        seen.append((await batches.get(found.id)).status)
    assert seen == ["validating", "in_progress", "finalizing", "completed"]


async def test_an_expired_batch_has_worked_its_share(
    batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    """B8: 37 of 100 in the output file, 63 in the error file as batch_expired, 37 billed."""
    fake_openai.batches.configure(working_s=3_600.0)
    fake_openai.batches.script({"lie": {"ends": "expired", "share": 0.37}})
    found = await submit(batches, tmp_path, [line_of(n) for n in range(100)])
    fake_openai.batches.advance(DAY + 1)
    found = await batches.get(found.id)
    output, errors = results(fake_openai, found)
    assert (found.status, len(output), len(errors)) == ("expired", 37, 63)
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}
    assert fake_openai.world.paid.total() == 37


async def test_every_lie_of_a_seed_keeps_its_own_books(
    batches: OpenAIBatches, fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    """Whatever it writes, what it billed is what it delivered."""
    fake_openai.batches.script(
        {"lie": {"missing": 0.1, "doubled": 0.1, "status_zero": 0.1, "shuffled": True, "foreign": 3, "counts": "rosy"}}
    )
    found = await submit(batches, tmp_path, [line_of(n) for n in range(300)])
    output, errors = results(fake_openai, found)
    (batch,) = fake_openai.batches.batches.values()
    ours = [line["custom_id"] for line in output if line["custom_id"].startswith("id-")]
    assert set(ours) == set(batch.delivered)
    assert len(set(ours)) < len(ours)
    assert fake_openai.world.paid.total() == len(batch.delivered)
    assert {line["response"]["status_code"] for line in errors} == {0}
    assert (found.completed, found.failed) == (300, 0)
    assert len(ours) + len(errors) < 330


def test_it_runs_as_a_process_of_its_own() -> None:
    """For tests that kill the other side: settings, script, time and books over /__fake/batches."""
    with run_fake_openai(seed=7) as fake:
        told = fake.batches(settings={"lies": True, "enqueued_limit": 5}, foreign={"tokens": 9}, advance=60)
    assert told["settings"]["enqueued_limit"] == 5
    assert [batch["status"] for batch in told["batches"]] == ["validating"]
