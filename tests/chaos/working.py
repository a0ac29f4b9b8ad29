"""catchup worker on the stage: the scenes of --inline, taken from a queue in which each message is there many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.rich_targets import STATUS
from jobs.targets import Target
from queries.dramatiq_queue import open_dramatiq
from queries.messages import Message
from tests.chaos.describing import WORKERS, Describing, ask
from tests.chaos.judge import Finding, note
from tests.chaos.stage import mix_kinds
from tests.chaos.witness import Records, WitnessProcess
from tests.chaos.world import Truth, World
from tests.servers.message_bench import TASK, Broker
from tests.servers.redis import RedisServer

TIMES = 9
"""More than a trial starts workers: each takes one message a video, and the last ones find all of it done."""
VIDEOS = 10


class Working(Describing):
    """That a killed worker's message comes back is the broker's, and tests/test_cli_worker.py asks for it."""

    job = "worker"
    title = "messages of videos"
    schema = f"{Describing.schema}alter table public.videos add column error_message text;"
    telltales: Mapping[str, str] = {"booked-after-send": "ledger"}

    def __init__(self, redis: RedisServer) -> None:
        self.broker = Broker("dramatiq-redis", redis.url, "chaos")

    @property
    def targets(self) -> Sequence[Target]:
        return (*super().targets, STATUS)

    def words(self) -> Sequence[str]:
        how = ("--concurrency", str(WORKERS), "--db-load", "100%", "--model", "gpt-4o-mini")
        return ("worker", "--json", "--max-videos", str(VIDEOS), *how)

    def environment(self) -> dict[str, str]:
        return {"BROKER_URL": self.broker.url}

    def settings(self) -> str:
        return f'[queue]\nlibrary = "dramatiq"\nname = "{self.broker.queue}"\n'

    def choose_kinds(self, seed: int, items: int) -> dict[str, str]:
        del items
        return mix_kinds(seed, VIDEOS, "v", {"rich": 0.1})

    def prepare(self, world: World, witness: WitnessProcess, *, mischief: bool, garbled: bool) -> None:
        super().prepare(world, witness, mischief=mischief, garbled=garbled)
        self.broker.take_all()
        queue = open_dramatiq(self.broker.url, self.broker.queue, TASK, "dramatiq")
        for time in range(TIMES):
            for key in world.kinds:
                queue.publish(Message(f"{key}-{time}", (key,)))
        queue.close()

    def judge_results(
        self, finding: Finding, world: World, truth: Truth, records: Records, *, edits_done: bool
    ) -> None:
        super().judge_results(finding, world, truth, records, edits_done=edits_done)
        for key, status in ask(world, "select id, status from videos where status <> 'READY'"):
            note(finding.misnamed, f"{key} is left {status}")
