"""submit-batch on the stage: the rows of summaries, paid by whole files, at a provider that works them at once.

What is worked in a file is not in flight for the client: no kill may have any of it paid again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.request import urlopen

from tests.chaos.judge import Finding, note
from tests.chaos.summaries import Summaries
from tests.chaos.witness import Records, WitnessProcess
from tests.chaos.world import Truth, World

ROWS_A_FILE = 12
TELLTALES = {
    "created-without-looking": "extra",
    "uploaded-without-looking": "unbacked",
    "no-lock": "unexplained",
}
BLOWS = {
    "created-without-looking": "batch.created:1:kill",
    "uploaded-without-looking": "batch.uploaded:1:kill",
}


class Batches(Summaries):
    """Each file is small, so that forty rows are several; what is few at the end goes by the live road."""

    job = "submit-batch"
    title = "batches"
    telltales = TELLTALES

    def __init__(self) -> None:
        self._witness: WitnessProcess | None = None

    def words(self) -> Sequence[str]:
        return (self.job, "--yes", "--json", "--db-load", "100%", "--tail-live", "3", "--concurrency", "4")

    def environment(self) -> dict[str, str]:
        return {"CHAOS_FILES": str(ROWS_A_FILE)}

    def blow_of(self, plant: str) -> str:
        return BLOWS.get(plant, "")

    def prepare(self, world: World, witness: WitnessProcess, *, mischief: bool, garbled: bool) -> None:
        self._witness = witness
        super().prepare(world, witness, mischief=mischief, garbled=garbled)
        witness.batches()

    def judge_results(
        self, finding: Finding, world: World, truth: Truth, records: Records, *, edits_done: bool
    ) -> None:
        super().judge_results(finding, world, truth, records, edits_done=edits_done)
        told = self._tell()
        chunks = Counter(each["metadata"]["catchup_chunk"] for each in told["batches"])
        for chunk, times in chunks.items():
            if times > 1:
                note(finding.extra, f"{chunk} was handed in {times} times")
        used = {each["input_file_id"] for each in told["batches"]}
        for each in told["files"]:
            if each["purpose"] == "batch" and each["id"] not in used:
                note(finding.unbacked, f"{each['filename']} belongs to no batch")

    def _tell(self) -> dict[str, Any]:
        assert self._witness is not None
        with urlopen(f"http://127.0.0.1:{self._witness.port}/__fake/batches", timeout=10) as answer:
            return dict(json.load(answer))
