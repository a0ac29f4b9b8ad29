"""--follow: one line that says where the videos are, until they are done. Ctrl-C ends the watching, nothing else."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from cli.layout import Line, Tone, as_plain, count
from cli.quantities import show_duration
from cli.report import write_json
from cli.untrusted import clean

if TYPE_CHECKING:
    from cli.flags import RunFlags
    from jobs.following import Following, Progress

_EVERY_S = 30.0
_NAMED_MOST = 10


async def follow(following: Following, flags: RunFlags, deadline_s: float | None) -> int:
    """0 when all are ready, 3 when some failed, 4 when the time is over first."""
    from jobs.engine.verdict import Exit

    said_at, progress = None, None
    async for progress in following.go():
        now = time.monotonic()
        is_late = deadline_s is not None and now >= deadline_s
        if said_at is None or progress.is_done or is_late or now - said_at >= _interval_s(flags):
            _say(progress, flags)
            said_at = now
        if is_late and not progress.is_done:
            sys.stderr.write("the runtime limit is reached: the same command goes on watching\n")
            return int(Exit.STOPPED)
    assert progress is not None, "it is looked at least once"  # noqa: S101
    if not flags.json:
        sys.stdout.write(as_plain(_end_lines(progress)))
        sys.stdout.flush()
    return int(Exit.SOME_NAMED if progress.failed or progress.back or progress.gone else Exit.DONE)


def _interval_s(flags: RunFlags) -> float:
    if flags.json:
        return 1.0
    return 2.0 if sys.stderr.isatty() and not flags.quiet else _EVERY_S


def _say(progress: Progress, flags: RunFlags) -> None:
    if flags.json:
        write_json({"type": "follow", **_as_json(progress)})
    elif not flags.quiet:
        sys.stderr.write(f"{progress_line(progress)}\n")
        sys.stderr.flush()


def _as_json(progress: Progress) -> dict[str, Any]:
    names = [name for name in progress.__dataclass_fields__ if name != "failures"]
    failures = [{"key": f.key, "state": f.state, "error": f.error} for f in progress.failures]
    return {**{name: getattr(progress, name) for name in names}, "failures": failures, "done": progress.is_done}


def progress_line(progress: Progress) -> str:
    p = progress
    parts = [f"sent {p.sent:,}", f"waiting {p.waiting:,}", f"processing {p.processing:,}", f"ready {p.ready:,}"]
    parts += [f"failed {p.failed:,}"]
    parts += [f"back {p.back:,}"] if p.back else []
    parts += [f"gone {p.gone:,}"] if p.gone else []
    parts += [f"queue {p.queue:,}" if p.queue is not None else "queue not reached", f"{p.per_min:,.1f}/min"]
    if not p.is_done:
        parts += [f"about {show_duration(p.eta_s)} left" if p.eta_s is not None else "no end in sight yet"]
    return " · ".join(parts)


def _end_lines(progress: Progress) -> list[Line]:
    bad = progress.failed + progress.back
    tone: Tone = "bad" if bad else "good"
    lines = [Line("", f"followed to the end: {count(progress.ready, 'video')} ready, {progress.failed:,} failed", tone)]
    for failure in progress.failures[:_NAMED_MOST]:
        why = failure.error or (
            "its worker put it back without the work" if failure.state == "back" else "no reason given"
        )
        lines.append(Line(f"  {clean(failure.key, 40)}", f"{failure.state}: {clean(why, 160)}"))
    if bad > _NAMED_MOST:
        lines.append(Line("", f"{bad - _NAMED_MOST:,} more: their error_message says why"))
    return lines
