"""The fake Pinecone as a witness: it keeps every change with the moment from which readers see it.

python -m tests.chaos.pinecone '{"lag_s": 0.2}' (prints its port)
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping

import numpy as np
from aiohttp import web

from tests.chaos.shelves import mark_of
from tests.servers.fake_pinecone import FakePinecone
from tests.servers.fake_pinecone_world import Index, Stored

NAMESPACE = "llm-summaries"


class Witness(FakePinecone):
    def reset(self) -> None:
        super().reset()
        self.moves: list[tuple[float, str, str]] = []

    def _write(self, index: Index, namespace: str, changes: dict[str, Stored | None]) -> dict[str, str]:
        visible = time.time() + self.settings.lag_s
        for id_, stored in changes.items():
            self.moves.append((visible, id_, "" if stored is None else mark_of(_bytes(stored))))
        return super()._write(index, namespace, changes)

    async def _tell(self, request: web.Request) -> web.Response:
        if "moves" in request.query:
            return web.json_response({"moves": self.moves})
        if "contents" in request.query:
            self.settle()
            return web.json_response({"contents": {k: _bytes(v).hex() for k, v in self.vectors(NAMESPACE).items()}})
        return await super()._tell(request)

    async def _reset(self, request: web.Request) -> web.Response:
        self.reset()
        stock: Mapping[str, str] = (await request.json()).get("stock", {})
        for id_, values in stock.items():
            self.vectors(NAMESPACE)[id_] = Stored(np.frombuffer(bytes.fromhex(values), "<f4"))
        return web.json_response({})


def _bytes(stored: Stored) -> bytes:
    assert stored.values is not None
    return stored.values.tobytes()


async def serve() -> None:
    async with Witness(**json.loads(sys.argv[1])) as fake:
        print(json.dumps({"port": fake.port}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
