"""Each remote act, carried to its end: intent first, then the act; what may have been done is looked for first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from jobs.batching.folder import Folder, remote_name
from jobs.batching.options import BatchWork
from jobs.batching.states import CAN_BE_CANCELLED
from jobs.engine import fault_points
from jobs.engine.clock import Clock
from jobs.engine.database import Database
from jobs.engine.insistence import Insistence
from queries.batch_ledger import Chunk
from queries.batches import RemoteBatch, TokenLimit, read_token_limit_words
from queries.errors import Gone, Throttle
from queries.ledger import Lease

# A batch that exists may not be in the list yet (DECISIONS 31). Nobody says how long.
LISTED_S = 180.0
_LOOK_AGAIN_S = 15.0
CHUNK, RUN = "catchup_chunk", "catchup_run"
Moved = Callable[[str, int, int], None]


class NoRoom(Exception):
    """The organisation's limit of enqueued tokens was refused at once, and not later by the batch's state."""

    def __init__(self, told: TokenLimit) -> None:
        super().__init__("no room")
        self.told = told


class Provider:
    """One chunk at a time; what is done is in the ledger before it is done."""

    def __init__(self, errand: BatchWork, database: Database, lease: Lease, folder: Folder, on_bytes: Moved) -> None:
        work = errand.work
        self._batches, self._desk = errand.batches, errand.desk
        self._endpoint = errand.endpoint
        self._database, self._lease, self._folder = database, lease, folder
        self._clock: Clock = work.clock
        self._on_bytes = on_bytes
        self.service = Insistence("the provider's batches", work.clock, work.options.max_outage_s)

    async def note(self, chunk: Chunk, **what: Any) -> Chunk:
        return await self._database.insist(lambda: self._desk.note(self._lease, chunk.chunk, **what))

    async def upload(self, chunk: Chunk) -> Chunk:
        """Twice the same bytes under one name would be one file too many: it is looked for first."""
        may_exist = chunk.upload_age_s is not None
        path, name = self._folder.input(chunk.chunk), remote_name(chunk)
        if not may_exist:
            chunk = await self.note(chunk, uploading=True)

        async def attempt() -> str:
            nonlocal may_exist
            found = await self._batches.find_file(name, chunk.size_bytes) if may_exist else None
            if found is not None:
                return found
            may_exist = True
            return await self._batches.upload(path, name, lambda done, of: self._on_bytes(chunk.chunk, done, of))

        file_id = await self.service.insist(attempt)
        fault_points.reach("batch.uploaded")
        chunk = await self.note(chunk, file_id=file_id)
        fault_points.reach("batch.file_saved")
        return chunk

    async def find_upload(self, chunk: Chunk) -> bool:
        """Whether an earlier try, maybe on another host, has brought the file there."""
        name = remote_name(chunk)
        return await self.service.insist(lambda: self._batches.find_file(name, chunk.size_bytes)) is not None

    async def create(self, chunk: Chunk) -> Chunk:
        """NoRoom where the limit is refused at once; Gone where the file is not there any more."""
        asked_s = chunk.create_age_s
        asked_at = None if asked_s is None else self._clock.now() - asked_s
        if asked_at is None:
            chunk = await self.note(chunk, creating=True)
        metadata = {CHUNK: chunk.chunk, RUN: chunk.run_id}

        async def attempt() -> RemoteBatch:
            nonlocal asked_at
            found = None if asked_at is None else await self._find(chunk, asked_at)
            if found is not None:
                return found
            asked_at = self._clock.now()
            try:
                return await self._batches.create(chunk.file_id, self._endpoint, metadata)
            except Throttle as refusal:
                told = read_token_limit_words(refusal.code, refusal.words)
                if told is None:
                    raise
                raise NoRoom(told) from None

        remote = await self.service.insist(attempt)
        fault_points.reach("batch.created")
        chunk = await self.note(chunk, batch_id=remote.id, remote=as_facts(remote))
        fault_points.reach("batch.id_saved")
        return chunk

    async def _find(self, chunk: Chunk, asked_at: float) -> RemoteBatch | None:
        """By what we wrote on it; not until it would be listed for certain is it taken for missing."""
        while True:
            found = [each async for each in self._batches.list_all() if each.metadata.get(CHUNK) == chunk.chunk]
            if found:
                best, *more = sorted(found, key=lambda each: (each.status == "failed", each.created_at or 0))
                for each in more:
                    if each.status in CAN_BE_CANCELLED:
                        await self._batches.cancel(each.id)
                return best
            left = asked_at + LISTED_S - self._clock.now()
            if left <= 0:
                return None
            self.service.waiting_for = f"the list of batches: {chunk.chunk} may have been created"
            await self._clock.sleep(min(_LOOK_AGAIN_S, left))

    async def look(self, chunk: Chunk) -> tuple[Chunk, RemoteBatch | None]:
        """None where the provider says that it does not exist: that may pass, and is no reason to send it again."""
        try:
            remote = await self.service.insist(lambda: self._batches.get(chunk.batch_id))
        except Gone:
            return chunk, None
        if as_facts(remote) != chunk.remote:
            chunk = await self.note(chunk, remote=as_facts(remote))
        return chunk, remote

    async def cancel(self, chunk: Chunk, why: str) -> Chunk:
        remote = await self.service.insist(lambda: self._batches.cancel(chunk.batch_id))
        return await self.note(chunk, remote=as_facts(remote), note=why)

    async def fetch(self, chunk: Chunk, remote: RemoteBatch) -> tuple[Chunk, list[str]]:
        """Both files, kept here under their hash; returns the kinds that the provider has not any more."""
        gone = []
        for kind, file_id in (("output", remote.output_file_id), ("error", remote.error_file_id)):
            if not file_id or self._is_here(chunk, kind, file_id):
                continue
            try:
                chunk = await self._fetch_one(chunk, kind, file_id)
            except Gone:
                gone.append(kind)
        return chunk, gone

    def _is_here(self, chunk: Chunk, kind: str, file_id: str) -> bool:
        """As it came: a file that was changed since is asked for again."""
        known = chunk.files.get(kind, {})
        return bool(known) and (file_id, self._folder.hash_of(chunk.chunk, kind)) == (known["id"], known["sha256"])

    async def _fetch_one(self, chunk: Chunk, kind: str, file_id: str) -> Chunk:
        path = self._folder.result(chunk.chunk, kind)

        def moved(done: int, of: int) -> None:
            self._on_bytes(chunk.chunk, done, of)

        got = await self.service.insist(lambda: self._batches.download(file_id, path, moved))
        path.chmod(0o600)
        chunk = await self.note(chunk, files={kind: {"id": file_id, "sha256": got.sha256, "bytes": got.size}})
        fault_points.reach("batch.fetched")
        return chunk

    async def drop_file(self, chunk: Chunk) -> None:
        """An uploaded file that no batch was made of."""
        if chunk.file_id:
            await self.service.insist(lambda: self._batches.delete_file(chunk.file_id))

    async def list_all(self) -> list[RemoteBatch]:
        async def all_of_them() -> list[RemoteBatch]:
            return [each async for each in self._batches.list_all() if not each.has_ended]

        return await self.service.insist(all_of_them)


def as_facts(remote: RemoteBatch) -> dict[str, Any]:
    """For the ledger: what the provider said last."""
    facts = asdict(remote)
    facts["metadata"] = dict(remote.metadata)
    facts["errors"] = [list(each) for each in remote.errors]
    return facts
