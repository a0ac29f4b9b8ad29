"""OpenAI's Files and Batches by its typed client: one attempt a call, and nothing believed that is not well-formed."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import openai
from openai.types import Batch, FileObject

from queries.batches import Downloaded, Endpoint, Progress, RemoteBatch, read_token_limit_words
from queries.errors import (
    CatchupError,
    Gone,
    ItemPermanent,
    Misconfigured,
    Throttle,
    Transient,
    UnknownOutcome,
    Unreachable,
)
from queries.openai_bodies import clean_words
from queries.openai_client import OpenAIClient, Watch
from queries.openai_errors import SERVICE, malformed
from queries.whole_file import WholeFile

ANSWER_AT_MOST = 2**40
"""A result file has no limit of its own: 50,000 answers."""
BATCHES_A_PAGE = 100
FILES_A_PAGE = 1_000
_PIECE = 1 << 18
_T = TypeVar("_T")


class OpenAIBatches:
    """One provider; `timeout_s` is how long nothing may move, not how long a file may take."""

    name = "openai"

    def __init__(
        self,
        api_key: str,
        base_url: str | None = None,
        *,
        timeout_s: float = 120.0,
        allow_hosts: Collection[str] = (),
    ) -> None:
        self._client = OpenAIClient(
            api_key, base_url, timeout_s=timeout_s, answer_at_most=ANSWER_AT_MOST, allow_hosts=allow_hosts
        )
        self._secrets = (api_key,)
        self.base_url = self._client.base_url

    async def upload(self, path: Path, name: str, on_bytes: Progress | None = None) -> str:
        watch = Watch()
        with path.open("rb") as file, _Told(file, os.fstat(file.fileno()).st_size, watch, on_bytes) as told:
            made = await self._make(
                lambda sdk: sdk.files.create(
                    file=(name, io.BufferedReader(told, _PIECE), "application/jsonl"), purpose="batch"
                ),
                watch,
            )
        if not isinstance(made, FileObject) or not isinstance(made.id, str) or not made.id:
            raise _unknown("the upload was answered by something that names no file")
        return made.id

    async def find_file(self, name: str, size: int | None = None) -> str | None:
        async for each in self._files():
            if each.filename == name and size in (None, each.bytes):
                return each.id
        return None

    async def create(self, file_id: str, endpoint: Endpoint, metadata: Mapping[str, str]) -> RemoteBatch:
        made = await self._make(
            lambda sdk: sdk.batches.create(
                completion_window="24h", endpoint=endpoint, input_file_id=file_id, metadata=dict(metadata)
            )
        )
        try:
            return self._read(made)
        except Transient:
            raise _unknown("the batch was answered by something that names none") from None

    async def get(self, batch_id: str) -> RemoteBatch:
        return self._read(await self._look(lambda sdk: sdk.batches.retrieve(batch_id), about=batch_id))

    async def list_all(self) -> AsyncIterator[RemoteBatch]:
        after: str | openai.Omit = openai.omit
        while True:
            page = await self._look(lambda sdk, at=after: sdk.batches.list(limit=BATCHES_A_PAGE, after=at))  # type: ignore[misc]  # a default binds the loop's value
            found = [self._read(each) for each in _items(page)]
            for batch in found:
                yield batch
            if not found or not page.has_more or found[-1].id == after:
                return
            after = found[-1].id

    async def cancel(self, batch_id: str) -> RemoteBatch:
        try:
            return self._read(await self._look(lambda sdk: sdk.batches.cancel(batch_id), about=batch_id))
        except Unreachable:
            raise
        except (Transient, ItemPermanent):  # it may have ended before: what it came to is the answer
            return await self.get(batch_id)

    async def download(self, file_id: str, to: Path, on_bytes: Progress | None = None) -> Downloaded:
        watch = Watch()

        async def receive(sdk: openai.AsyncOpenAI) -> Downloaded:
            # A proxy that ends an answer too early, between two lines, may announce what it sends and no more.
            of = _count(getattr(await sdk.files.retrieve(file_id), "bytes", 0))
            # Packed, its length could not be compared with what was announced.
            streaming = sdk.files.with_streaming_response.content(
                file_id, extra_headers={"Accept-Encoding": "identity"}
            )
            async with streaming as answer:
                told = answer.headers.get("content-length", "")
                length = int(told) if told.isdecimal() else None
                with WholeFile(to) as whole:
                    async for piece in answer.iter_bytes(_PIECE):
                        whole.write(piece)
                        watch.moved()
                        if on_bytes is not None:
                            on_bytes(whole.size, length or of)
                    if whole.is_cut(length) or whole.size < of:
                        raise malformed("a result file that ends too early")
                    return Downloaded(whole.keep(), whole.size)

        return await self._look(receive, about=file_id, watch=watch)

    async def delete_file(self, file_id: str) -> None:
        with contextlib.suppress(Gone):
            await self._look(lambda sdk: sdk.files.delete(file_id), about=file_id)

    async def close(self) -> None:
        await self._client.close()

    async def _files(self) -> AsyncIterator[FileObject]:
        after: str | openai.Omit = openai.omit
        while True:
            page = await self._look(
                lambda sdk, at=after: sdk.files.list(purpose="batch", limit=FILES_A_PAGE, order="desc", after=at)  # type: ignore[misc]  # as above
            )
            found = [each for each in _items(page) if isinstance(each, FileObject)]
            for each in found:
                yield each
            if not found or not page.has_more or found[-1].id == after:
                return
            after = found[-1].id

    async def _look(
        self, make: Callable[[openai.AsyncOpenAI], Awaitable[_T]], *, about: str = "", watch: Watch | None = None
    ) -> _T:
        """A request that costs nothing and may be repeated: whatever broke on the way is passing."""
        try:
            return await self._client.call(make, about=about, watch=watch)
        except UnknownOutcome as cut:
            said = "The provider's answer did not come, or not whole."
            raise Transient(said, service=SERVICE, code=cut.code, retry_after_s=cut.retry_after_s) from None

    async def _make(self, make: Callable[[openai.AsyncOpenAI], Awaitable[Any]], watch: Watch | None = None) -> Any:
        """A request that makes something: whatever broke after sending, it may exist now."""
        try:
            return await self._client.call(make, watch=watch)
        except Unreachable:
            raise
        except Transient as failed:
            raise _unknown("the provider failed on it", failed.code, failed.words) from None
        except (ItemPermanent, Misconfigured) as refused:
            raise _read_refusal(refused) from None

    def _read(self, found: Any) -> RemoteBatch:
        if not isinstance(found, Batch) or not isinstance(found.id, str) or not isinstance(found.status, str):
            raise malformed("no batch")
        counts = found.request_counts
        ended_at = (found.completed_at, found.failed_at, found.expired_at, found.cancelled_at)
        return RemoteBatch(
            id=found.id,
            status=found.status,
            input_file_id=_word(found.input_file_id),
            endpoint=_word(found.endpoint),
            model=_word(found.model),
            output_file_id=_word(found.output_file_id) or None,  # some services write "" (UPSTREAMS B6)
            error_file_id=_word(found.error_file_id) or None,
            total=_count(getattr(counts, "total", 0)),
            completed=_count(getattr(counts, "completed", 0)),
            failed=_count(getattr(counts, "failed", 0)),
            created_at=_time(found.created_at),
            in_progress_at=_time(found.in_progress_at),
            finalizing_at=_time(found.finalizing_at),
            completed_at=next((at for each in ended_at if (at := _time(each)) is not None), None),
            expires_at=_time(found.expires_at),
            metadata={k: v for k, v in found.metadata.items() if isinstance(v, str)} if found.metadata else {},
            errors=self._errors(found),
        )

    def _errors(self, found: Batch) -> tuple[tuple[str, str], ...]:
        told = getattr(found.errors, "data", None)
        rows = told if isinstance(told, list) else []
        return tuple(
            (_word(getattr(each, "code", "")), clean_words(_word(getattr(each, "message", "")), self._secrets, ""))
            for each in rows
        )


class _Told(io.RawIOBase):
    """A file that says how much of it was read; the SDK streams it piece by piece."""

    def __init__(self, file: Any, size: int, watch: Watch, on_bytes: Progress | None) -> None:
        self._file, self._size, self._watch, self._on_bytes, self._sent = file, size, watch, on_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, into: Any) -> int:
        read = int(self._file.readinto(into))
        self._sent += read
        self._watch.moved()
        if self._on_bytes is not None and read:
            self._on_bytes(self._sent, self._size)
        return read


def _items(page: Any) -> list[Any]:
    found = getattr(page, "data", None)
    if not isinstance(found, list):
        raise malformed("no list")
    return found


def _read_refusal(refused: ItemPermanent | Misconfigured) -> CatchupError:
    if _is_missing(refused.words):
        return Gone("The input file is not there any more.", service=SERVICE, code=refused.code, words=refused.words)
    if read_token_limit_words(refused.code, refused.words) is not None:
        return Throttle("No room for more tokens.", service=SERVICE, code=refused.code, words=refused.words)
    return refused


def _is_missing(words: str) -> bool:
    return words.startswith(("No such File", "No such file", "No batch found", "No file found"))


def _unknown(what: str, code: str = "malformed", words: str = "") -> UnknownOutcome:
    return UnknownOutcome(f"It may exist at the provider: {what}.", service=SERVICE, code=code, words=words)


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _time(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
