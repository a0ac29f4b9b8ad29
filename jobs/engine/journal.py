"""The local, append-only record of what was asked and paid, so that no paid answer is lost or bought again.

A line is `crc32 json`. A torn last line is dropped (a kill does that); damage anywhere else is refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.engine import fault_points
from queries.errors import Misconfigured
from queries.ledger import RowVerdict
from queries.table import Key

VERSION = 1
_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Paid:
    """An answer that was paid for and is not yet confirmed by the database."""

    key: Key
    guard: str
    was: Mapping[str, str | None]
    cells: Mapping[str, str | None]


@dataclass(slots=True)
class Past:
    """What a journal says happened before this process: the input of a replay."""

    header: dict[str, Any]
    paid: dict[Key, Paid] = field(default_factory=dict)
    judged: dict[Key, RowVerdict] = field(default_factory=dict)
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    unanswered: dict[int, float] = field(default_factory=dict)
    crashes: dict[Key, int] = field(default_factory=dict)
    confirmed: set[Key] = field(default_factory=set)
    spent_usd: float = 0.0
    possibly_usd: float = 0.0
    booked_usd: float = 0.0
    booked_possibly_usd: float = 0.0
    calls: int = 0
    booked_calls: int = 0
    torn: bool = False


class Journal:
    """Appends with reserved space, synced in groups before anything is claimed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = path.with_suffix(".mark")
        self._handle = -1
        self._mark_handle = -1
        self._end = 0
        self._allocated = 0
        self._synced = 0
        self._attempt = 0

    def create(self, header: Mapping[str, Any]) -> None:
        self._open()
        self.append("head", {"v": VERSION, **header})

    def resume(self) -> Past:
        """Reads what is there, cuts a torn tail off, and goes on behind it."""
        past, end, attempt = read(self.path)
        self._open()
        self._end, self._attempt = end, attempt
        os.ftruncate(self._handle, end)
        self._allocated = end
        key = self._marked()
        if key:
            self.append("crash", {"k": key})
            past.crashes[key] = past.crashes.get(key, 0) + 1
            self.mark(None)
        for number in past.unanswered:
            self.append("none", {"n": number, "usd": past.unanswered[number]})
        past.possibly_usd += sum(past.unanswered.values())
        past.unanswered.clear()
        return past

    def _marked(self) -> Key | None:
        content = os.pread(self._mark_handle, 65536, 0)
        try:
            return tuple(json.loads(content.partition(b"\n")[0]))
        except ValueError:  # empty, or killed while marking: then no row was at fault
            return None

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._handle = os.open(self.path, flags, 0o600)
        self._mark_handle = os.open(self._mark, flags, 0o600)

    def reserve(self, size: int) -> None:
        """Makes sure the disk can take `size` more bytes: called before money is spent on an answer."""
        if self._end + size <= self._allocated:
            return
        grow = max(_STEP, size)
        try:
            _allocate(self._handle, self._allocated, grow)
        except OSError as error:
            raise Misconfigured(
                f"the journal cannot grow: {error.strerror}", fix=f"free space on the disk of {self.path.parent}"
            ) from None
        self._allocated += grow

    def append(self, kind: str, record: Mapping[str, Any]) -> None:
        body = json.dumps([kind, record], ensure_ascii=True, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        self.reserve(len(line))
        os.pwrite(self._handle, line, self._end)
        self._end += len(line)

    def attempted(self, keys: Sequence[Key], worst_usd: float) -> int:
        """Booked before it is sent; returns the attempt's number."""
        self._attempt += 1
        self.append("try", {"n": self._attempt, "k": keys, "usd": worst_usd})
        return self._attempt

    def answered(self, attempt: int, usd: float, paid: Sequence[Paid], verdicts: Sequence[RowVerdict] = ()) -> None:
        """What the money bought: texts to store, or the verdict that there is none to be had."""
        rows = [{"k": p.key, "g": p.guard, "w": dict(p.was), "c": dict(p.cells)} for p in paid]
        bad = [[v.key, v.guard, v.state, v.reason, v.detail] for v in verdicts]
        self.append("paid", {"n": attempt, "usd": usd, "rows": rows, "bad": bad})

    def ended(self, attempt: int, possibly_usd: float) -> None:
        """The attempt brought no answer; what it may have cost is booked as possible."""
        self.append("none", {"n": attempt, "usd": possibly_usd})

    def writing(self, write_id: str, facts: Mapping[str, Any]) -> None:
        """The intent to write, so that the very same batch can be asked about after a kill."""
        self.append("write", {"id": write_id, **facts})

    def confirmed(self, write_id: str) -> None:
        self.append("done", {"id": write_id})

    def voided(self, write_id: str) -> None:
        """The database rolled this batch back: its rows and its money are open again."""
        self.append("void", {"id": write_id})

    def mark(self, key: Key | None) -> None:
        """Names the row whose text is being worked on: if that kills the process, we know which it was."""
        text = json.dumps(key).encode() + b"\n" if key else b""
        os.pwrite(self._mark_handle, text, 0)
        os.ftruncate(self._mark_handle, len(text))

    async def sync(self) -> None:
        """On the disk, not only in the page cache: power may go."""
        if self._synced == self._end:
            return
        target = self._end
        fault_points.reach("journal.before_fsync")
        await asyncio.to_thread(os.fdatasync if hasattr(os, "fdatasync") else os.fsync, self._handle)
        self._synced = target
        fault_points.reach("journal.after_fsync")

    def close(self, *, keep: bool) -> None:
        """Nothing of the user's texts stays behind once the database has all of it."""
        if self._handle < 0:
            return
        if keep:
            os.ftruncate(self._handle, self._end)
        os.close(self._handle)
        os.close(self._mark_handle)
        self._handle = self._mark_handle = -1
        if not keep:
            self.path.unlink(missing_ok=True)
            self._mark.unlink(missing_ok=True)


def read(path: Path) -> tuple[Past, int, int]:
    """The past, the length of its sound part, and the last attempt's number."""
    content = path.read_bytes()
    sound = content.find(b"\0")
    content = content if sound < 0 else content[:sound]
    past, end, attempt = Past(header={}), 0, 0
    lines = content.split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        record = _parse(line)
        if record is None:
            if number == len(lines) - 1:
                past.torn = True
                break
            raise Misconfigured(
                f"{path} is damaged at line {number}", fix="keep a copy and ask; nothing was changed or restarted"
            )
        attempt = max(attempt, _fold(past, *record))
        end += len(line) + 1
    past.torn = past.torn or bool(lines[-1])
    if not past.header:
        if past.torn or not content:
            return past, 0, 0
        raise Misconfigured(f"{path} has no header", fix="it is not a journal of this tool; move it away")
    found = past.header.get("v")
    if found != VERSION:
        raise Misconfigured(
            f"{path} has format {found}, this version reads {VERSION}", fix="use the version that wrote it"
        )
    return past, end, attempt


def _parse(line: bytes) -> tuple[str, dict[str, Any]] | None:
    checksum, _, body = line.partition(b" ")
    try:
        if checksum != b"%08x" % zlib.crc32(body):
            return None
        kind, record = json.loads(body)
    except ValueError:
        return None
    return str(kind), dict(record)


def _fold(past: Past, kind: str, record: dict[str, Any]) -> int:
    number = int(record.get("n", 0))
    if kind == "head":
        past.header = record
    elif kind == "try":
        past.calls += 1
        past.unanswered[number] = float(record["usd"])
    elif kind == "paid":
        past.unanswered.pop(number, None)
        past.spent_usd += float(record["usd"])
        for row in record["rows"]:
            key = tuple(row["k"])
            past.paid[key] = Paid(key, row["g"], row["w"], row["c"])
        for bad in record["bad"]:
            past.paid.pop(tuple(bad[0]), None)
            past.judged[tuple(bad[0])] = RowVerdict(tuple(bad[0]), *bad[1:])
    elif kind == "none":
        past.unanswered.pop(number, None)
        past.possibly_usd += float(record["usd"])
    elif kind == "crash":
        key = tuple(record["k"])
        past.crashes[key] = past.crashes.get(key, 0) + 1
    elif kind == "write":
        past.intents[str(record["id"])] = record
        past.booked_usd += float(record["usd"])
        past.booked_possibly_usd += float(record["possibly_usd"])
        past.booked_calls += int(record["calls"])
    elif kind == "void":
        undone = past.intents.pop(str(record["id"]))
        past.booked_usd -= float(undone["usd"])
        past.booked_possibly_usd -= float(undone["possibly_usd"])
        past.booked_calls -= int(undone["calls"])
    elif kind == "done":
        intent = past.intents.pop(str(record["id"]))
        for key in intent["keys"]:
            past.paid.pop(tuple(key), None)
            past.confirmed.add(tuple(key))
        for verdict in intent["verdicts"]:
            past.judged.pop(tuple(verdict[0]), None)
    return number


def _allocate(handle: int, offset: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, offset, size)
    else:
        os.pwrite(handle, b"\0" * size, offset)
