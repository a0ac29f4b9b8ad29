"""What an operator does to one batch between two visits: what may be there is looked for before it is given up."""

from __future__ import annotations

from jobs.batching.folder import remote_name
from jobs.batching.provider import CHUNK, LISTED_S
from queries.batch_ledger import Chunk
from queries.batches import Batches, RemoteBatch
from queries.errors import Misconfigured


async def cancel_there(batches: Batches, chunk: Chunk, *, abandon: bool) -> str:
    """What the provider says. Given up is nothing that may have been made there and is not listed yet."""
    found = await _find(batches, chunk)
    if found is not None:
        remote = await batches.cancel(found)
        return f"the provider says it is {remote.status}"
    if chunk.create_age_s is not None and abandon and chunk.create_age_s < LISTED_S:
        raise Misconfigured(
            f"{chunk.chunk} may have been made {chunk.create_age_s:.0f} s ago, and be in no list yet",
            fix=f"try again in {LISTED_S - chunk.create_age_s:.0f} s, or let the next visit look for it",
        )
    if abandon:
        await _delete_file(batches, chunk)
    return "it is not handed in yet"


async def _find(batches: Batches, chunk: Chunk) -> str | None:
    """By its id, or where that was never saved by what stands on it."""
    if chunk.batch_id or chunk.create_age_s is None:
        return chunk.batch_id or None
    found: list[RemoteBatch] = [each async for each in batches.list_all() if each.metadata.get(CHUNK) == chunk.chunk]
    return next((each.id for each in found), None)


async def _delete_file(batches: Batches, chunk: Chunk) -> None:
    """An uploaded file that no batch will be made of."""
    file_id = chunk.file_id
    if not file_id and chunk.upload_age_s is not None:
        file_id = await batches.find_file(remote_name(chunk), chunk.size_bytes) or ""
    if file_id:
        await batches.delete_file(file_id)
