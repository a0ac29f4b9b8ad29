"""The local, append-only record of what was asked and paid, so that no paid answer is lost or bought again.

A torn last line is dropped (a kill does that); damage anywhere else is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.engine import fault_points, moving
from jobs.engine.journal_lines import encode, encode_paid, wrap_rows, write_answer, write_line
from jobs.engine.past import VERSION, Paid, Past, carry_over, fold, read
from jobs.engine.state_dir import write_whole
from jobs.engine.stop import NO_SPACE
from queries.errors import Misconfigured
from queries.ledger import RowVerdict
from queries.table import Key

_STEP = 1 << 20
_LARGE = 32 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_MARK_MOST = 4_096  # one block: a key is shorter, since Postgres indexes at most 2,704 bytes of one


class Journal:
    """Appends with reserved space, synced in groups before anything is claimed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = path.with_suffix(".mark")
        self._handle = -1
        self._marked_row: mmap.mmap | None = None
        self._end = 0
        self._allocated = 0
        self._synced = 0
        self._attempt = 0
        self._compact_at = _LARGE
        # What the file says, but for the rows that are owed: of those, where in it they stand. None until it is known.
        self._told: Past | None = None
        self._owed: dict[Key, tuple[int, int]] = {}

    def create(self, header: Mapping[str, Any]) -> None:
        self._open()
        self._told = Past(header={})
        self._tell("head", {"v": VERSION, **header})

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
        assert self._marked_row is not None  # noqa: S101 - opened before it is read
        try:
            return tuple(json.loads(self._marked_row[:].partition(b"\n")[0]))
        except ValueError:  # empty, or killed while marking: then no row was at fault
            return None

    def _open(self) -> None:
        self._handle = os.open(self.path, _FLAGS, 0o600)
        handle = os.open(self._mark, _FLAGS, 0o600)
        try:
            self._allocate(handle, os.fstat(handle).st_size, _MARK_MOST)
            self._marked_row = mmap.mmap(handle, _MARK_MOST)
        finally:
            os.close(handle)

    def _allocate(self, handle: int, offset: int, size: int) -> None:
        try:
            _allocate(handle, offset, size)
        except OSError as error:
            raise Misconfigured(
                f"the journal cannot grow: {error.strerror}", fix=f"free space on the disk of {self.path.parent}"
            ) from None

    def reserve(self, size: int) -> None:
        """Makes sure the disk can take `size` more bytes: called before money is spent on an answer."""
        if self._end + size <= self._allocated:
            return
        grow = max(_STEP, size)
        self._allocate(self._handle, self._allocated, grow)
        self._allocated += grow

    def append(self, kind: str, record: Mapping[str, Any]) -> None:
        self._append(write_line(kind, record))

    def _append(self, line: bytes | bytearray) -> None:
        self.reserve(len(line))
        os.pwrite(self._handle, line, self._end)
        self._end += len(line)

    def _tell(self, kind: str, record: Mapping[str, Any]) -> None:
        self.append(kind, record)
        if self._told is not None:
            fold(self._told, kind, record)

    def attempted(self, keys: Sequence[Key], worst_usd: float) -> int:
        """Booked before it is sent; returns the attempt's number."""
        self._attempt += 1
        self._tell("try", {"n": self._attempt, "k": keys, "usd": worst_usd})
        return self._attempt

    def answered(self, attempt: int, usd: float, paid: Sequence[Paid], verdicts: Sequence[RowVerdict] = ()) -> None:
        """What the money bought: texts to store, or the verdict that there is none to be had."""
        bad = [[v.key, v.guard, v.state, v.reason, v.detail] for v in verdicts]
        record: dict[str, Any] = {"n": attempt, "usd": usd, "rows": [], "bad": bad}
        line, places = write_answer(record, paid)
        whence = self._end
        self._append(line)
        if self._told is None:
            return
        fold(self._told, "paid", record)
        for each, (start, size) in zip(paid, places, strict=True):
            self._owed[each.key] = (whence + start, size)
        for verdict in verdicts:
            self._owed.pop(verdict.key, None)

    def ended(self, attempt: int, possibly_usd: float) -> None:
        """The attempt brought no answer; what it may have cost is booked as possible."""
        self._tell("none", {"n": attempt, "usd": possibly_usd})

    def writing(self, write_id: str, facts: Mapping[str, Any]) -> None:
        """The intent to write, so that the very same batch can be asked about after a kill."""
        self._tell("write", {"id": write_id, **facts})

    def confirmed(self, write_id: str) -> None:
        keys = self._told.intents[write_id]["keys"] if self._told is not None else ()
        self._tell("done", {"id": write_id})
        for key in keys:
            self._owed.pop(tuple(key), None)
        if self._told is not None:
            self._told.confirmed.clear()  # it would grow with the table

    def voided(self, write_id: str) -> None:
        """The database rolled this batch back: its rows and its money are open again."""
        self._tell("void", {"id": write_id})

    def mark(self, key: Key | None) -> None:
        """Names the row whose text is being worked on: if that kills the process, we know which it was."""
        # In memory that is the file: the kernel has it whatever becomes of us, and a system call would take 4 us. Its
        # blocks are there before the first mark, also when the disk is full by then.
        assert self._marked_row is not None  # noqa: S101 - opened before the first row
        said = (encode(key) + b"\n")[:_MARK_MOST] if key else b"\n"
        self._marked_row[: len(said)] = said

    async def sync(self) -> None:
        """On the disk, not only in the page cache: power may go."""
        if self._synced == self._end:
            return
        target = self._end
        fault_points.reach("journal.before_fsync")
        await asyncio.to_thread(os.fdatasync if hasattr(os, "fdatasync") else os.fsync, self._handle)
        self._synced = target
        fault_points.reach("journal.after_fsync")

    async def shorten(self) -> None:
        """A run over ten million rows must not leave ten million answers on the disk: only what is owed is kept.

        For the one who syncs, between two writes. What comes meanwhile is written here as ever, and moved behind.
        """
        if self._end <= self._compact_at:
            return
        try:
            if self._told is None:
                self._rewrite(with_confirmed=False)
            else:
                await self._move(self._told)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._compact_at = self._end + _LARGE  # the long one stays; who pays asks for room anyway

    async def _move(self, told: Past) -> None:
        lines = b"".join([write_line(kind, record) for kind, record in carry_over(told, self._attempt)])
        whence, beside = self._end, self.path.with_name(f".{self.path.name}.{os.getpid()}")
        source, place = os.dup(self._handle), os.open(beside, _FLAGS | os.O_TRUNC, 0o600)
        try:
            runs = moving.find_runs(self._owed)
            end, owed = await moving.to_the_end(moving.move_rows, source, place, lines, runs, wrap_rows)
            await moving.follow(source, place, whence, lambda: self._end, end)
            fault_points.reach("state.tmp_written")
            beside.replace(self.path)
        except BaseException:
            os.close(place)
            beside.unlink(missing_ok=True)
            raise
        finally:
            os.close(source)
        behind = {key: (at - whence + end, size) for key, (at, size) in self._owed.items() if at >= whence}
        self._owed = {key: owed[key] for key in self._owed if key not in behind} | behind
        self._go_on(place, end + self._end - whence, synced=end)
        fault_points.reach("state.renamed")

    def _rewrite(self, *, with_confirmed: bool) -> None:
        """From what the file says: where this process has not followed it, or wants more than is owed."""
        past, _, _ = read(self.path, with_confirmed=with_confirmed)
        rows = {key: encode_paid(paid) for key, paid in past.paid.items()}
        past.paid.clear()
        lines = [write_line(kind, record) for kind, record in carry_over(past, self._attempt)]
        end, owed = sum(map(len, lines)), {}
        for key, row in rows.items():
            begin, line = wrap_rows(row)
            owed[key] = (end + begin, len(row))
            lines.append(line)
            end += len(line)
        write_whole(self.path, b"".join(lines))
        self._told, self._owed = past, owed
        self._go_on(os.open(self.path, _FLAGS, 0o600), end, synced=end)

    def _go_on(self, handle: int, end: int, *, synced: int) -> None:
        os.close(self._handle)
        self._handle, self._end, self._allocated, self._synced = handle, end, end, synced
        self._compact_at = max(_LARGE, 5 * end)

    def forget_texts(self) -> None:
        """Nothing is owed: what stays is which rows are done, for a replica that does not know it yet."""
        with contextlib.suppress(OSError):  # no room for the short form: then the long one stays
            self._rewrite(with_confirmed=True)

    def close(self, *, keep: bool) -> None:
        """Nothing of the user's texts stays behind once the database has all of it."""
        if self._handle < 0:
            return
        if keep:
            os.ftruncate(self._handle, self._end)
        os.close(self._handle)
        self._handle = -1
        if self._marked_row is not None:
            self._marked_row.close()
        if not keep:
            self.path.unlink(missing_ok=True)
            self._mark.unlink(missing_ok=True)


def _allocate(handle: int, offset: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, offset, size)
    else:
        os.pwrite(handle, b"\0" * size, offset)
