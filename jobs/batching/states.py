"""From what is known of a chunk to what is done next: pure, and the whole of it is a table in the tests."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from queries.batch_ledger import Chunk
from queries.batches import IN_PROGRESS, KEPT_DAYS, VALIDATING, RemoteBatch, read_token_limit

STALE_S = 25 * 3_600.0  # the provider says 24 h; an hour later it has broken its word
WARN_AGE_S = 20 * 86_400.0
KEPT_S = KEPT_DAYS * 86_400.0
PATIENCE_S = 86_400.0  # a file that is missing may come back so long: sending its rows again would be paid again
KNOWN = frozenset(
    {"validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"}
)
CAN_BE_CANCELLED = frozenset({VALIDATING, IN_PROGRESS})


class Act(Enum):
    UPLOAD = auto()  # the file, looked for by its name first where it was tried before
    CREATE = auto()  # the batch, looked for by its metadata first where it was tried before
    POLL = auto()
    WAIT = auto()
    CANCEL = auto()
    COLLECT = auto()  # whatever files there are; what has no answer in them goes back
    PUT_BACK = auto()  # nothing was done for any row of it


@dataclass(frozen=True, slots=True)
class Next:
    """`reason` is why rows without an answer go back; `counts` where nobody can say why they have none."""

    act: Act
    reason: str = ""
    counts: bool = False


def next_act(chunk: Chunk, remote: RemoteBatch | None, *, has_file: bool) -> Next:
    """`remote` is what the provider said just now; `has_file` that the file we wrote is still here."""
    if not chunk.batch_id:
        return _on_the_way(chunk, has_file=has_file)
    if remote is None:
        return Next(Act.POLL)
    if not remote.has_ended:
        return Next(Act.WAIT)
    return _at_the_end(remote)


def _on_the_way(chunk: Chunk, *, has_file: bool) -> Next:
    if not chunk.out:  # they were put back, and the process died before it could close this
        return Next(Act.PUT_BACK, "nothing of it is out")
    if chunk.file_id or chunk.create_age_s is not None:
        return Next(Act.CREATE)
    if has_file or chunk.upload_age_s is not None:
        return Next(Act.UPLOAD)
    return Next(Act.PUT_BACK, "its file is not here")


def _at_the_end(remote: RemoteBatch) -> Next:
    """Both files are read whenever they are named, whatever the state and the counts say (UPSTREAMS B5, B6)."""
    has_results = bool(remote.output_file_id or remote.error_file_id)
    match remote.status:
        case "completed":
            return Next(Act.COLLECT, "missing", counts=True)
        case "expired" | "cancelled":
            return Next(Act.COLLECT, remote.status)
        case _:
            reason = "no room" if read_token_limit(remote) else "refused"
            return Next(Act.COLLECT if has_results else Act.PUT_BACK, reason)


def is_unnamed(remote: RemoteBatch) -> bool:
    """It says that lines are done and names no file of them; counts are not believed, but are a reason to wait."""
    return remote.completed > 0 and not remote.output_file_id and remote.status != "failed"


def is_past_waiting(chunk: Chunk) -> bool:
    """A file that is missing now is not taken for late any more."""
    return (chunk.create_age_s or 0.0) >= KEPT_S or (chunk.gone_s or 0.0) >= PATIENCE_S


def is_stalled(chunk: Chunk, remote: RemoteBatch, stall_s: float) -> bool:
    """No progress for so long, or older than the provider's own promise."""
    idle_s = chunk.idle_s if chunk.idle_s is not None else chunk.age_s
    return not remote.has_ended and (idle_s >= stall_s or (chunk.create_age_s or 0.0) >= STALE_S)


def say_state(chunk: Chunk, remote: RemoteBatch) -> str:
    """For the operator: what the provider says, marked as its own word."""
    known = "" if remote.status in KNOWN else ", a state we do not know"
    told = f", {remote.completed:,} of {remote.total:,} done as it says" if remote.total else ""
    return f"{chunk.chunk} is {remote.status}{known}{told}"
