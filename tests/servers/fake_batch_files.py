"""Files at the fake provider: how they are taken in, lost on the way, and listed page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.servers.fake_batch_lies import Lie


@dataclass
class StoredFile:
    id: str
    name: str
    purpose: str
    data: bytes = field(repr=False)
    created_at: float
    lie: Lie = field(default_factory=Lie)
    spoilt: int = 0
    """How many downloads of it were spoilt already."""

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": int(self.created_at),
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass(frozen=True)
class Refusal:
    message: str
    status: int = 400
    code: str | None = None


LOST: Final = "lost"
"""The connection ends in the middle of the upload, and nothing is stored."""


async def read_upload(
    request: web.Request, lie: Lie, name: str, now: float, bytes_most: int
) -> StoredFile | Refusal | str:
    """What the multipart body held, or LOST; `lost` cuts it after its first bytes."""
    fields: dict[str, str] = {}
    data, filename = b"", ""
    async for part in await request.multipart():
        if part.name == "file":
            filename = part.filename or ""
            pieces = []
            while piece := await part.read_chunk(1 << 18):
                pieces.append(piece)
                if lie.upload == "lost":
                    return LOST
            data = b"".join(pieces)
        elif part.name:
            fields[part.name] = (await part.read()).decode()
    if lie.upload == "failing":
        return Refusal("The server had an error while processing your request", 503, "server_error")
    if len(data) > bytes_most:
        return Refusal(f"File is too large: {len(data)} bytes, maximum is {bytes_most}.", 413)
    if not data or not filename or fields.get("purpose") != "batch":
        return Refusal("'file' and 'purpose' are required properties")
    return StoredFile(name, filename, "batch", data, now)


def list_page(newest_first: Sequence[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """One page of a cursor list, `after` an id, as the service pages all of its lists."""
    start = next((n + 1 for n, each in enumerate(newest_first) if each["id"] == query.get("after")), 0)
    limit = int(query.get("limit", 20))
    page = list(newest_first[start : start + limit])
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(newest_first) > start + limit,
    }
