"""The same space against somebody else's server: needledb, which no lock names; without it these tests are skipped."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from queries.errors import DataRejected, Misconfigured
from queries.pinecone_space import PineconeSpace
from queries.vectors import VectorRecord

PROGRAM = shutil.which("needledb", path=str(Path(sys.executable).parent)) or shutil.which("needledb")
KEY = "pcsk_test_0123456789abcdef"
DIMENSION = 32

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needledb is not installed: pip install needledb")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("needledb")
    command = [str(PROGRAM), "serve", "--host", "127.0.0.1", "--port", str(port), "--data", str(folder)]
    address = f"http://127.0.0.1:{port}/indexes"
    with subprocess.Popen([*command, "--log-level", "warning"], env={"NEEDLEDB_API_KEY": KEY, "PATH": ""}) as server:
        try:
            make(address)
            yield f"{address}/videos"
        finally:
            server.terminate()
            server.wait(20)


def make(address: str) -> None:
    """The index, as soon as the server listens."""
    body = json.dumps({"name": "videos", "dimension": DIMENSION, "metric": "cosine"}).encode()
    request = Request(address, body, {"Api-Key": KEY, "content-type": "application/json"})  # noqa: S310 - loopback, built here
    deadline = time.monotonic() + 30
    while True:
        try:
            with urlopen(request, timeout=5):  # noqa: S310 - loopback, built here
                return
        except URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def records(count: int) -> list[VectorRecord]:
    made = np.random.default_rng(3).normal(size=(count, DIMENSION)).astype("<f4")
    return [VectorRecord(f"v{n:04}", row.tobytes(), {"c": f"c{n % 3}", "n": n}) for n, row in enumerate(made)]


def open_space(host: str, namespace: str = "ns") -> PineconeSpace:
    return PineconeSpace(KEY, index_host=host, index="videos", namespace=namespace, controller_host=host)


async def test_a_round_of_everything(host: str) -> None:
    """Put, see, list, count, ask and delete give the same answers as with the fake."""
    space, sent = open_space(host), records(500)
    await space.create(DIMENSION, index=False)
    await space.put(sent)
    await space.put(sent[:10])
    every = {each.id for each in sent}
    assert await space.seen([*every, "never"]) == every
    assert {each async for page in space.ids() for each in page} == every
    told = await space.facts()
    assert (told.index_exists, told.exists, told.dimension, told.count) == (True, True, DIMENSION, 500)
    found = await space.query(sent[7].values, 5, {"c": "c1"})
    assert found[0].id == "v0007"
    assert {each.metadata["c"] for each in found} == {"c1"}
    await space.delete([each.id for each in sent[:400]])
    assert await space.seen([each.id for each in sent]) == {each.id for each in sent[400:]}
    assert not (await open_space(host, "typo").facts()).exists
    await space.close()


async def test_its_refusals_mean_the_same(host: str) -> None:
    """Another author's words for a wrong dimension, a zero vector and a wrong key fall into the same classes."""
    space = open_space(host)
    with pytest.raises(Misconfigured) as caught:
        await space.put([VectorRecord("a", np.ones(4, "<f4").tobytes(), {})])
    assert caught.value.code == "dimension"
    with pytest.raises(DataRejected):
        await space.put([VectorRecord("a", np.zeros(DIMENSION, "<f4").tobytes(), {})])
    stranger = PineconeSpace("pcsk_wrong_0123456789", index_host=host, index="videos", namespace="ns")
    with pytest.raises(Misconfigured):
        await stranger.put(records(1))
    await asyncio.gather(space.close(), stranger.close())
