"""Named places where tests kill, stall or break the process. Inert unless CATCHUP_FAULTS arms one.

CATCHUP_FAULTS is `point:n:action`; `*` counts every point. Actions: kill, raise, hang, enospc.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter

POINTS = (
    "page.read",
    "send.before",
    "answer.received",
    "journal.before_fsync",
    "journal.after_fsync",
    "space.before",
    "space.put",
    "space.seen",
    "write.before",
    "write.sent",
    "write.confirmed",
    "verify.before",
    "state.tmp_written",
    "state.renamed",
    "lock.acquired",
    "ledger.reserved",
    "ledger.settled",
    "signal.received",
    "switch.ledger",
    "batch.planned",
    "batch.claimed",
    "batch.uploaded",
    "batch.file_saved",
    "batch.created",
    "batch.id_saved",
    "batch.fetched",
    "batch.part_imported",
    "mq.before",
    "mq.published",
    "mq.confirmed",
    "exit.report",
)

_armed = os.environ.get("CATCHUP_FAULTS", "")
_trace = os.environ.get("CATCHUP_FAULT_TRACE", "")
_reached: Counter[str] = Counter()


def reach(point: str) -> None:
    """Counts the point and, when it is the armed one, does what the test asked for."""
    if not _armed and not _trace:
        return
    _reached[point] += 1
    _reached["*"] += 1
    if _trace:
        with open(_trace, "a", encoding="ascii") as trace:
            trace.write(f"{_reached['*']} {point} {_reached[point]}\n")
    if not _armed:
        return
    name, nth, action = _armed.split(":")
    if name in (point, "*") and _reached[name] == int(nth):
        _strike(point, action)


def _strike(point: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "hang":
        time.sleep(30)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, f"no space left (planted at {point})")
    else:
        raise RuntimeError(f"planted at {point}")
