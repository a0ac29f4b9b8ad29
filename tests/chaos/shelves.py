"""Where vectors lie, as the harness sees it: what is there for readers, and every change with its moment."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psycopg

from tests.servers.fake_pinecone_process import PineconeProcess
from tests.servers.fake_process import ROOT

LAG_S = 0.12
"""So much later readers of the fake Pinecone see a write."""
TABLE = """
create table public.moves (
    no bigint generated always as identity primary key, at timestamptz not null default clock_timestamp(),
    id text not null, vector text
);
create function public.note_move() returns trigger language plpgsql as $$ begin
    insert into public.moves (id, vector)
    values (coalesce(new.id, old.id), case when tg_op = 'DELETE' then null else new.embedding::text end);
    return null;
end $$;
"""


@dataclass(frozen=True, slots=True)
class Move:
    """From this moment on (of the machine's clock) readers find this vector under the id, or none."""

    at: float
    id: str
    mark: str


class Shelf(ABC):
    store: str

    def environment(self) -> dict[str, str]:
        return {}

    @abstractmethod
    def keep(self, dsn: str) -> None:
        """What is there now was there before every trial."""

    @abstractmethod
    def reset(self) -> None:
        """A trial begins."""

    @abstractmethod
    def moves(self, dsn: str) -> list[Move]:
        """Since the trial began, in order."""

    @abstractmethod
    def contents(self, dsn: str) -> dict[str, str]:
        """Each id's mark, once every reader sees every write."""


class PineconeShelf(Shelf):
    store = "pinecone"

    def __init__(self, process: PineconeProcess) -> None:
        self._process = process
        self._kept: Mapping[str, str] = {}

    def environment(self) -> dict[str, str]:
        return {"PINECONE_API_KEY": "pc-test-sentinel-0123456789", "PINECONE_INDEX_HOST": self._process.url}

    def keep(self, dsn: str) -> None:
        del dsn
        self._kept = self._process.call("stats?contents")["contents"]

    def reset(self) -> None:
        self._process.call("reset", {"stock": self._kept})

    def moves(self, dsn: str) -> list[Move]:
        del dsn
        return [Move(*each) for each in self._process.call("stats?moves")["moves"]]

    def contents(self, dsn: str) -> dict[str, str]:
        del dsn
        told = self._process.call("stats?contents")["contents"]
        return {id_: mark_of(bytes.fromhex(values)) for id_, values in told.items()}


class TableShelf(Shelf):
    """In the world's own database: a trial's template brings its past along."""

    store = "pgvector"

    def keep(self, dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(TABLE.encode())
            connection.execute(
                f"create trigger note_move after insert or update or delete on {_table(connection)} "
                "for each row execute function public.note_move()".encode()
            )

    def reset(self) -> None:
        pass

    def moves(self, dsn: str) -> list[Move]:
        with psycopg.connect(dsn, autocommit=True) as connection:
            rows = connection.execute("select extract(epoch from at)::float8, id, vector from moves order by no")
            return [Move(at, id_, "" if vector is None else _read(vector)) for at, id_, vector in rows]

    def contents(self, dsn: str) -> dict[str, str]:
        with psycopg.connect(dsn, autocommit=True) as connection:
            rows = connection.execute(f"select id, embedding::text from {_table(connection)}".encode())
            return {id_: _read(vector) for id_, vector in rows}


def mark_of(values: bytes) -> str:
    """What two equal vectors, float32 for float32, have in common."""
    return hashlib.md5(values, usedforsecurity=False).hexdigest()


def _read(vector: str) -> str:
    return mark_of(np.array(json.loads(vector), dtype="<f4").tobytes())


def _table(connection: psycopg.Connection) -> str:
    found = connection.execute("select format('catchup.%I', table_name) from catchup.spaces").fetchone()
    assert found is not None
    return str(found[0])


@contextmanager
def run_pinecone(**settings: object) -> Iterator[PineconeProcess]:
    command = [sys.executable, "-m", "tests.chaos.pinecone", json.dumps(settings)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield PineconeProcess(json.loads(child.stdout.readline())["port"])
        finally:
            child.terminate()
            child.wait(10)
