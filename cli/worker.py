"""catchup worker: takes videos from their workers' queue and does the work, as many of these as are needed."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import quantities
from cli.flags import RunFlags, WorldFlags, option, read_price, read_workers, takes
from cli.main import new_app
from cli.opening import open_place, run_task
from cli.quantities import show_usd
from cli.untrusted import clean
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from cli.settings import Settings
    from cli.signals import Signals
    from cli.view import View
    from jobs.engine.verdict import Exit, Verdict
    from jobs.engine.watch import Plan, Snapshot
    from jobs.rich_steps import Steps
    from jobs.rich_worker import Processed
    from queries.consuming import Consumer, Outcome
    from queries.road import Road

app = new_app("Take videos from the workers' queue and do the work; run as many as needed.")
_NAME = "worker"
_STOP_S = 20.0  # beyond the grace: the last write, and the broker's own goodbye
_LAST_WRITE_S = 5.0  # of these: a database that is away is not waited for, the message goes back as it is


@dataclass(frozen=True, kw_only=True)
class WorkerFlags(WorldFlags):
    """How far this process goes; which queue and which models is configuration."""

    max_cost: Annotated[
        float | None, option(read=quantities.read_usd, metavar="USD", help="Ceiling of this process for paid calls.")
    ] = None
    max_runtime: Annotated[
        float | None,
        option(read=quantities.read_duration_s, metavar="TIME", help="End in time by itself: 10m, 2h (exit 4)."),
    ] = None
    max_outage: Annotated[
        float | None, option(read=quantities.read_duration_s, metavar="TIME", help="Give up after this long (10m).")
    ] = None
    max_videos: Annotated[int | None, option(min=1, metavar="N", help="End after so many messages (exit 0).")] = None
    concurrency: Annotated[
        int | None, option(read=read_workers, metavar="auto|N", help="Parallel calls for the scenes of a video.")
    ] = None
    max_rate: Annotated[
        int | None, option(min=1, metavar="N", help="At most this many calls a minute by this process.")
    ] = None
    db_load: Annotated[
        float | None,
        option(read=quantities.read_share, metavar="SHARE", help="Share of time the database may be busy with it."),
    ] = None
    model: Annotated[str | None, option(help="Use this model for both steps instead of the targets'.")] = None
    price: Annotated[
        str | None, option(read=read_price, metavar="IN/OUT", help="US dollars per million tokens of this model.")
    ] = None
    provider: Annotated[str | None, option(metavar="openai|local", help="Who writes; local only when said here.")] = (
        None
    )


@app.command("worker", epilog="Example: catchup worker --max-runtime 1h")
@takes(WorkerFlags)
def worker(flags: WorkerFlags) -> None:
    """Take videos from the workers' queue and do the work; run as many as needed.

    BROKER_URL and [queue] of catchup.toml say which queue. All workers share one rate limit and the hour's and day's
    ceilings through the database. Ctrl-C or SIGTERM finishes or gives back what is in hand."""

    async def do(settings: Settings, view: View, signals: Signals) -> int:
        return await _do(flags, settings, view, signals)

    raise typer.Exit(run_task(flags, do, before="stopped before any message was taken"))


async def _do(flags: WorkerFlags, settings: Settings, view: View, signals: Signals) -> int:
    from cli.job_command import finish
    from cli.queues import open_consumer
    from cli.rich import open_steps

    consumer = open_consumer(settings)
    command = shlex.join(["catchup", *sys.argv[1:]])
    as_run = _run_flags(flags)
    async with (
        open_place(settings, flags, view, more=(f"queue: {consumer.where}",)) as place,
        open_steps(settings, as_run, place.road, place.choice.kind, _Silent(), command, _NAME) as steps,
    ):
        work = _Working(flags, settings, place.road, steps, consumer, _key_of(settings, steps))
        signals.ask = work.ask_stop
        verdict = await work.go()
        signals.ask, signals.had_run = None, True
    finish(verdict, as_run, view)
    return int(verdict.exit)


def _run_flags(flags: WorkerFlags) -> RunFlags:
    names = ("env_file", "local", "allow_host", "json", "quiet", "verbose", "max_cost", "max_outage")
    more = ("concurrency", "max_rate", "db_load", "model", "price", "provider")
    return RunFlags(yes=True, retry_failed=True, **{name: getattr(flags, name) for name in (*names, *more)})


def _key_of(settings: Settings, steps: Steps) -> tuple[int | str, str]:
    """Where the video's id stands among a message's arguments, and the column that it is."""
    assert settings.queue is not None, "checked with the broker"  # noqa: S101
    column = steps.summary.target.spec.key[0]
    wanted = {f"{{{column}}}", f"{{{column}:int}}"}
    layout = settings.queue.layout
    places = [(place, each) for place, each in (*enumerate(layout.args), *layout.kwargs.items())]
    for place, each in places:
        if each in wanted and isinstance(place, int | str):
            return place, column
    raise Misconfigured(
        f"catchup.toml, [queue]: no argument is {{{column}}}, so a message does not say which video is meant",
        fix=f'write args = ["{{{column}}}"]',
    )


class _Silent:
    """Nobody watches the runs of a worker: a line a message says enough."""

    def plan(self, plan: Plan) -> None:
        pass

    async def confirm(self, plan: Plan, why: str) -> bool:
        return True

    def notice(self, text: str) -> None:
        pass

    def progress(self, snapshot: Snapshot) -> None:
        pass


class _Working:
    """The consumer's thread asks for each message; the work is done on this loop."""

    def __init__(
        self,
        flags: WorkerFlags,
        settings: Settings,
        road: Road,
        steps: Steps,
        consumer: Consumer,
        key: tuple[int | str, str],
    ) -> None:
        self.flags, self.settings, self.consumer, self.key = flags, settings, consumer, key
        from jobs.rich_crew import Crew

        self.crew = Crew(steps, road, flags.max_videos)
        self.loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self.in_hand: Future[Processed] | None = None

    def ask_stop(self, exit_: Exit, why: str) -> None:
        self.crew.ask_stop(exit_, why)
        self.ended.set()

    async def go(self) -> Verdict:
        async with self.crew.at_work(self.ended):
            self.consumer.start(self._handle, self._on_lost)
            try:
                async with asyncio.timeout(self.flags.max_runtime):
                    await self.ended.wait()
            except TimeoutError:
                self.crew.end_in_time(self.flags.max_runtime or 0.0)
            grace_s = self.settings.limits.grace
            self.loop.call_later(grace_s + _LAST_WRITE_S, self._let_go)
            await asyncio.to_thread(self.consumer.stop, grace_s + _STOP_S)
        return self.crew.verdict()

    def _let_go(self) -> None:
        """As a kill would, but with the message given back; what was paid is in the journal."""
        if self.in_hand is not None:
            self.in_hand.cancel()

    def _on_lost(self, why: str) -> None:
        self.loop.call_soon_threadsafe(self._lost, why)

    def _lost(self, why: str) -> None:
        from jobs.engine.verdict import Exit

        self.ask_stop(Exit.STOPPED, f"the broker is lost: {why}")

    def _handle(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        """In the library's thread."""
        from queries.consuming import Outcome

        place, _ = self.key
        try:
            video = str(args[place] if isinstance(place, int) else kwargs[place])
        except (IndexError, KeyError):
            self._say("?", "a message without a video's id: left out")
            return Outcome("taken")
        self.in_hand = asyncio.run_coroutine_threadsafe(self.crew.take(video), self.loop)
        try:
            done = self.in_hand.result()
        except CancelledError:
            return Outcome("back")
        if done.totals is not None or done.next.value == "taken":
            self._say(video, done.said, done)
        return Outcome(done.next.value, done.wait_s)

    def _say(self, video: str, said: str, done: Processed | None = None) -> None:
        from cli.report import write_json

        usd = done.totals.spent_usd if done is not None and done.totals is not None else 0.0
        if self.flags.json:
            write_json({"type": "video", "video": video, "said": said, "usd": round(usd, 6)})
        elif not self.flags.quiet:
            cost = f"  {show_usd(usd)}" if usd else ""
            sys.stdout.write(f"{clean(video, 60)}  {clean(said, 200)}{cost}\n")
            sys.stdout.flush()
