"""Draws docs/run.svg: a real run over the demo's sample, through the screen's own code. `python -m docs.picture`

The provider is the tests' fake of OpenAI, held to 1,200 requests a minute, so that there is a limit to follow.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.text import Text

from cli.flags import RunFlags
from cli.job_command import run_job
from cli.screen import Screen, draw
from demo.load import load_sample
from jobs.default_targets import VIDEO_SUMMARIES
from jobs.engine.verdict import Exit, Verdict
from jobs.engine.watch import Plan, Snapshot
from queries.embedded import start
from queries.migrations import Registration, migrate
from tests.servers.fake_process import run_fake_openai

PICTURE = Path(__file__).resolve().parent / "run.svg"
_WIDTH = 104
_COMMAND = "catchup backfill-summaries --max-cost 1"
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class Keeping(Screen):
    """The real screen, drawn into nothing while it remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__(Console(file=io_void(), width=_WIDTH, force_terminal=True))
        self.record = Console(record=True, file=io_void(), width=_WIDTH, force_terminal=True, highlight=False)
        self._middle: Snapshot | None = None

    def plan(self, plan: Plan) -> None:
        super().plan(plan)
        self.record.print(Text(f"$ {_COMMAND}\n", style="bold"))
        whole, self.console = self.console, self.record
        super().plan(plan)
        self.console = whole

    def progress(self, snapshot: Snapshot) -> None:
        super().progress(snapshot)
        total = snapshot.total_estimate or 0
        if snapshot.last_text and (self._middle is None or snapshot.books.settled() < 0.7 * total):
            self._middle = replace(snapshot, books=deepcopy(snapshot.books))  # the books go on counting

    def finish(self, verdict: Verdict) -> None:
        if self._middle is not None:
            self.record.print()
            self.record.print(draw(self._middle, self._title, _WIDTH))
            self.record.print()
        self.console = self.record
        super().finish(verdict)


def io_void() -> IO[str]:
    return open(os.devnull, "w", encoding="utf-8")


def main() -> int:
    """Everything happens in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with start(Path(folder) / ".catchup/db") as server, run_fake_openai(rpm=1_200, latency=0.4) as fake:
            os.environ |= {
                "CATCHUP_STATE_DIR": str(Path(folder) / "state"),
                "DATABASE_URL": server.dsn,
                "OPENAI_BASE_URL": fake.url,
                "OPENAI_API_KEY": "sk-of-the-fake",
            }
            load_sample(server.dsn)
            asyncio.run(migrate(server.dsn, [Registration(VIDEO_SUMMARIES.name, VIDEO_SUMMARIES.spec)]))
            view = Keeping()
            code = run_job("backfill-summaries", RunFlags(max_cost=1.0), _COMMAND, view)
        os.chdir("/")
    if code == Exit.DONE:
        svg = view.record.export_svg(title="catchup", unique_id="catchup")
        PICTURE.write_text(_FONTS.sub("", svg), encoding="utf-8")  # no viewer should fetch a font for it
    return code


if __name__ == "__main__":
    sys.exit(main())
