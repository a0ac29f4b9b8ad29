"""Takes each chunk as far as it goes now: states.py decides what is next, provider.py and collecting.py do it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from jobs.batching.provider import NoRoom
from jobs.batching.states import (
    CAN_BE_CANCELLED,
    KEPT_S,
    WARN_AGE_S,
    Act,
    Next,
    is_past_waiting,
    is_stalled,
    is_unnamed,
    next_act,
    say_state,
)
from jobs.engine.verdict import Exit
from queries.batch_ledger import Chunk
from queries.batches import RemoteBatch, TokenLimit, read_token_limit
from queries.errors import CatchupError, Gone, Misconfigured, RunFatal
from queries.openai_errors import classify

if TYPE_CHECKING:
    from jobs.batching.session import BatchSession

_GONE_AGAIN = (20.0, 40.0)  # before a file is called lost: not because one answer said so
_UNTOLD_SHARE = 0.9  # of what was refused, where the refusal names no limit
_TOO_MUCH_SHARE = 0.8  # of what was refused although the limit that was named is larger


class Driving:
    def __init__(self, session: BatchSession) -> None:
        self._session = session
        self._provider = session.provider
        self._folder = session.folder

    async def drive_all(self) -> None:
        for chunk in list(self._session.chunks.values()):
            if self._session.stop.is_asked:
                return
            await self.drive(chunk)

    async def drive(self, chunk: Chunk) -> None:  # noqa: PLR0911 - one way out for each end of a chunk
        """Until it waits for the provider, or is closed."""
        remote: RemoteBatch | None = None
        while not self._session.stop.is_asked:
            todo = next_act(chunk, remote, has_file=self._has_file(chunk))
            match todo.act:
                case Act.UPLOAD if self._has_file(chunk) or await self._is_uploaded(chunk):
                    await self._session.wait_until_may_pay()
                    chunk = self._keep(await self._provider.upload(chunk))
                case Act.UPLOAD:
                    return await self._put_back(chunk, Next(Act.PUT_BACK, "its file is not here"), None)
                case Act.CREATE:
                    created = await self._create(chunk)
                    if created is None:
                        return None
                    chunk = created
                case Act.POLL:
                    chunk, remote = await self._provider.look(chunk)
                    self._keep(chunk)
                    if remote is None:
                        return await self._look_missing(chunk)
                case Act.WAIT if remote is not None:
                    return await self._wait(chunk, remote)
                case Act.COLLECT if remote is not None:
                    return await self._collect(chunk, remote, todo)
                case _:
                    return await self._put_back(chunk, todo, remote)
        return None

    def _keep(self, chunk: Chunk) -> Chunk:
        self._session.chunks[chunk.chunk] = chunk
        return chunk

    def _has_file(self, chunk: Chunk) -> bool:
        """Sealed: all of its rows were claimed, and the file is the one that was written for them."""
        path = self._folder.input(chunk.chunk)
        return "input" in chunk.files and path.exists() and path.stat().st_size == chunk.size_bytes

    async def _is_uploaded(self, chunk: Chunk) -> bool:
        return chunk.upload_age_s is not None and await self._provider.find_upload(chunk)

    async def _create(self, chunk: Chunk) -> Chunk | None:
        """None where the chunk is closed: there was no room, or nothing to make a batch of."""
        await self._session.wait_until_may_pay()
        try:
            return self._keep(await self._provider.create(chunk))
        except NoRoom as refusal:
            await self._learn(chunk, refusal.told)
            await self._close_back(chunk, "no room")
        except Gone:  # the uploaded file is not there any more, and no batch was made of it
            if self._has_file(chunk):
                return self._keep(await self._provider.note(chunk, file_id="", forget_tries=True))
            await self._close_back(chunk, "its file is gone")
        return None

    async def _look_missing(self, chunk: Chunk) -> None:
        """Polling faults never send anything again; only the end of what the provider keeps makes it lost."""
        if (chunk.create_age_s or 0.0) < KEPT_S:
            self._session.say(f"{chunk.chunk}: the provider does not know {chunk.batch_id} at this moment; it is kept")
            return
        await self._lose(chunk)

    async def _wait(self, chunk: Chunk, remote: RemoteBatch) -> None:
        said = say_state(chunk, remote)
        self._session.waiting_for = said
        if "do not know" in said:
            self._session.say(said)
        if (chunk.create_age_s or 0.0) > WARN_AGE_S:
            self._session.say(f"{chunk.chunk} is older than 20 days: results are kept for 30")
        if not is_stalled(chunk, remote, self._session.errand.options.stall_s):
            return
        idle_h = (chunk.idle_s or chunk.age_s) / 3600
        self._session.say(f"stalled: {said}; no progress for {idle_h:.1f} h" + self._say_rescue(remote))
        if self._session.errand.options.rescue and remote.status not in ("finalizing", "cancelling"):
            self._keep(await self._provider.cancel(chunk, "cancelled by --rescue"))

    def _say_rescue(self, remote: RemoteBatch) -> str:
        if self._session.errand.options.rescue:
            return " (it is being cancelled)" if remote.status in CAN_BE_CANCELLED else ""
        return "; --rescue cancels it, takes what is done and sends the rest again"

    async def _collect(self, chunk: Chunk, remote: RemoteBatch, todo: Next) -> None:
        session = self._session
        session.phase = "collecting"
        chunk, gone = await self._fetch(chunk, remote)
        is_short = bool(gone) or is_unnamed(remote)
        if is_short:
            chunk = await self._provider.note(chunk, gone=True)
        self._keep(chunk)
        may_come = is_short and not is_past_waiting(chunk)
        is_lost = "output" in gone  # what stands in the other file was never paid
        fatal = await session.collecting.collect(
            chunk, None if is_lost or may_come else todo.reason, counts=todo.counts
        )
        if session.stop.is_asked:
            return
        if is_short and await self._is_still_out(chunk):
            await (self._say_missing(chunk) if may_come else self._lose(chunk))
        else:
            await self._close_collected(chunk, remote, todo)
        if fatal is not None:  # of some line, after all that was paid is stored
            session.stop.ask_for(fatal)

    async def _is_still_out(self, chunk: Chunk) -> bool:
        """Rows that had no line in what was there."""
        return self._keep(await self._provider.note(chunk)).out > 0

    async def _say_missing(self, chunk: Chunk) -> None:
        self._session.waiting_for = f"the results of {chunk.chunk}"
        self._session.say(
            f"{chunk.chunk} has ended, and the provider does not have its results at this moment: they are asked "
            f"for at every visit, and called lost after a day (by now {(chunk.gone_s or 0.0) / 3600:.1f} h)"
        )

    async def _close_collected(self, chunk: Chunk, remote: RemoteBatch, todo: Next) -> None:
        if todo.reason == "no room" and (told := read_token_limit(remote)) is not None:
            await self._learn(chunk, told)
        await self._close(chunk)
        if todo.reason == "refused":
            self._stop_for_refusal(chunk, remote)

    async def _fetch(self, chunk: Chunk, remote: RemoteBatch) -> tuple[Chunk, list[str]]:
        again = _GONE_AGAIN if is_past_waiting(chunk) else ()
        for wait_s in (*again, None):
            chunk, gone = await self._provider.fetch(chunk, remote)
            if not gone or wait_s is None:
                break
            await self._session.work.clock.sleep(wait_s)
        return chunk, gone

    async def _lose(self, chunk: Chunk) -> None:
        """What was paid for cannot be had any more: said by name, and asked again only by who says so."""
        session = self._session
        days = (chunk.create_age_s or 0.0) / 86_400
        session.say(f"{chunk.chunk}: its results are lost, the provider has the files no more ({days:.0f} days old)")
        if session.work.options.yes:
            await session.put_back(chunk, "results lost", None)
        else:
            detail = "the provider has the file no more; --retry-failed asks, and pays, again"
            await session.collecting.give_up(chunk, "results lost", detail)
        await session.book_lost(chunk)
        await self._close(chunk)

    async def _put_back(self, chunk: Chunk, todo: Next, remote: RemoteBatch | None) -> None:
        if remote is not None and todo.reason == "no room" and (told := read_token_limit(remote)) is not None:
            await self._learn(chunk, told)
        if "input" not in chunk.files:  # killed while rows were being claimed: it holds those that were
            chunk = await self._provider.note(chunk, requests=chunk.out + sum(chunk.books.values()))
        await self._close_back(chunk, todo.reason)
        if remote is not None and todo.reason == "refused":
            self._stop_for_refusal(chunk, remote)

    async def _close_back(self, chunk: Chunk, reason: str) -> None:
        """Nothing was done for it, and nothing is owed: its rows go with the next one."""
        await self._session.put_back(chunk, reason, None)
        await self._provider.drop_file(chunk)
        await self._close(chunk)

    async def _close(self, chunk: Chunk) -> None:
        session = self._session
        closed = await session.database.insist(lambda: session.desk.close(session.lease, chunk.chunk))
        if closed.out:
            self._keep(closed)
            return
        session.chunks.pop(chunk.chunk, None)
        if not closed.is_balanced:
            said = ", ".join(f"{count} {how}" for how, count in closed.books.items())
            session.stop.ask(
                Exit.UNEXPECTED, f"the books of {chunk.chunk} do not balance: {closed.requests} rows were sent, {said}"
            )
            return
        session.note_closed(closed)
        self._folder.drop_input(chunk.chunk)
        await session.give_back()

    async def _learn(self, chunk: Chunk, told: TokenLimit) -> None:
        session = self._session
        theirs = int(chunk.tokens * session.ratio)
        limit = told.limit or int(theirs * _UNTOLD_SHARE)
        if theirs < limit:  # it should have found room: others take it, or tokens are counted in another way there
            limit = int(theirs * _TOO_MUCH_SHARE)
        await session.database.insist(lambda: session.desk.learn_limit(chunk.place, chunk.model, limit))
        session.say(
            f"{chunk.chunk} with {chunk.tokens:,} tokens found no room: the organisation may have {limit:,} enqueued; "
            "its rows wait"
        )

    def _stop_for_refusal(self, chunk: Chunk, remote: RemoteBatch) -> None:
        self._session.stop.ask_for(explain_refusal(chunk, remote))


def explain_refusal(chunk: Chunk, remote: RemoteBatch) -> CatchupError:
    """A batch that failed as a whole: its rows are back, and sending them again would fail as well."""
    code, words = remote.errors[0] if remote.errors else ("", "it gave no reason")
    body = json.dumps({"error": {"code": code, "message": words}}).encode()
    said = classify(400, body, {})
    if isinstance(said, RunFatal):
        return said
    return Misconfigured(
        f"the provider refused {chunk.chunk} as a whole",
        service="openai",
        code=code,
        words=words,
        fix="nothing was paid and its rows are back; look at its words, the model and the prompt",
    )
