"""The work of `catchup vectorize` as others do it: python bench/peers.py NAME, of those in PEERS.

Runs in environments of their own, made from bench/peers.txt and bench/langchain.txt, and imports nothing of this
project. All read pages of 2,048 rows by key and set the flags with one UPDATE a page, one page after the other.

`loop` embeds a page in one request and upserts it in the largest packs that fit, one at a time; `batches` leaves the
upserts to Pinecone's own `batch_size`, which sends eight at once; `loop-grpc` is the loop of somebody who asks the
client for gRPC and knows how many records a request then holds. `langchain` is its indexing API over its packages as
published: PineconeVectorStore (langchain-pinecone 0.2.13, which wants a Pinecone client below 8) and a record manager
that remembers, in the same database. `index` passes its batch size on as the size of an upsert, so that is at most what
fits into one, and a request for embeddings is no larger. `langchain-own-store` is what somebody could make of it who
writes a store himself, with requests as large as ours and a record manager that forgets: the most it can do.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from openai import OpenAI
from pinecone import Pinecone

MODEL, DIMENSIONS, TEXTS = "text-embedding-3-small", 512, 2_048
UPSERTED = 170
"""Records a request: the client prints float32 as doubles, 11.5 kB a record with its metadata; 2 MB is the limit."""
UPSERTED_BY_GRPC = 700
"""2.7 kB a record."""
UPSERTED_BY_LANGCHAIN = 160
"""Its older client puts blanks between the numbers: 11.8 kB a record."""
NAMESPACE = os.environ.get("BENCH_NAMESPACE", "llm-summaries")

Row = tuple[str, str, str, str, int, str]
READ = """
select id, llm_summary, title, channel_name, view_count, to_char(published_at, 'YYYY-MM-DD"T"HH24:MI:SSOF')
from videos where llm_summary_embedding_synced is not true and llm_summary is not null and id > %s
order by id limit %s
"""
MARK = "update videos set llm_summary_embedding_synced = true where id = any(%s)"


def pages(connection: psycopg.Connection[Any]) -> Iterator[list[Row]]:
    last = ""
    while page := connection.execute(READ, (last, TEXTS)).fetchall():
        last = page[-1][0]
        yield page
        connection.execute(MARK, ([row[0] for row in page],))


def describe(row: Row) -> dict[str, Any]:
    _, summary, title, channel, views, published = row
    return {"title": title, "channel": channel, "view_count": views, "published_at": published, "summary": summary}


def embed_and_upsert(connection: psycopg.Connection[Any], index: Any, at_once: int, **how: Any) -> None:
    client = OpenAI()
    for page in pages(connection):
        answer = client.embeddings.create(model=MODEL, dimensions=DIMENSIONS, input=[row[1] for row in page])
        records = [
            {"id": row[0], "values": each.embedding, "metadata": describe(row)}
            for row, each in zip(page, answer.data, strict=True)
        ]
        for start in range(0, len(records), at_once):
            index.upsert(vectors=records[start : start + at_once], namespace=NAMESPACE, **how)


def loop(connection: psycopg.Connection[Any], index: Any) -> None:
    embed_and_upsert(connection, index, UPSERTED)


def loop_grpc(connection: psycopg.Connection[Any], _: Any) -> None:
    client = Pinecone(api_key=os.environ["PINECONE_API_KEY"], grpc_scheme="http")
    embed_and_upsert(connection, client.index(host=os.environ["PINECONE_INDEX_HOST"], grpc=True), UPSERTED_BY_GRPC)


def batches(connection: psycopg.Connection[Any], index: Any) -> None:
    embed_and_upsert(connection, index, TEXTS, batch_size=UPSERTED, show_progress=False)


def langchain(connection: psycopg.Connection[Any], index: Any) -> None:
    from langchain_classic.indexes import SQLRecordManager  # noqa: PLC0415 - seconds that the others need not wait
    from langchain_core.documents import Document  # noqa: PLC0415
    from langchain_core.indexing import index as index_documents  # noqa: PLC0415
    from langchain_openai import OpenAIEmbeddings  # noqa: PLC0415
    from langchain_pinecone import PineconeVectorStore  # noqa: PLC0415

    index = open_index(pool_threads=8)  # more than four, says its page
    embeddings = OpenAIEmbeddings(
        model=MODEL, dimensions=DIMENSIONS, chunk_size=TEXTS, check_embedding_ctx_length=False
    )
    store = PineconeVectorStore(index=index, embedding=embeddings, text_key="summary", namespace=NAMESPACE)
    known = SQLRecordManager(NAMESPACE, db_url=os.environ["DATABASE_URL"].replace("://", "+psycopg://", 1))
    known.create_schema()
    for page in pages(connection):
        documents = [Document(id=row[0], page_content=row[1], metadata=describe(row)) for row in page]
        done = index_documents(
            documents, known, store, batch_size=UPSERTED_BY_LANGCHAIN, key_encoder=lambda each: str(each.id)
        )
        assert done["num_added"] == len(page), done


def langchain_own_store(connection: psycopg.Connection[Any], index: Any) -> None:
    from langchain_core.documents import Document  # noqa: PLC0415 - seconds that the other two need not wait
    from langchain_core.indexing import InMemoryRecordManager  # noqa: PLC0415
    from langchain_core.indexing import index as index_documents  # noqa: PLC0415
    from langchain_core.vectorstores import InMemoryVectorStore  # noqa: PLC0415
    from langchain_openai import OpenAIEmbeddings  # noqa: PLC0415

    embeddings = OpenAIEmbeddings(
        model=MODEL, dimensions=DIMENSIONS, chunk_size=TEXTS, check_embedding_ctx_length=False
    )

    class Store(InMemoryVectorStore):
        """Only what `index` calls goes to Pinecone: nothing else is measured."""

        def add_documents(self, documents: list[Document], ids: list[str] | None = None, **_: Any) -> list[str]:
            vectors = embeddings.embed_documents([each.page_content for each in documents])
            records = list(zip(ids or (), vectors, [each.metadata for each in documents], strict=True))
            index.upsert(vectors=records, namespace=NAMESPACE, batch_size=UPSERTED, show_progress=False)
            return list(ids or ())

        def delete(self, ids: Sequence[str] | None = None, **_: Any) -> None:
            index.delete(ids=list(ids or ()), namespace=NAMESPACE)

    known, store = InMemoryRecordManager(NAMESPACE), Store(embeddings)
    known.create_schema()
    for page in pages(connection):
        documents = [Document(id=row[0], page_content=row[1], metadata=describe(row)) for row in page]
        done = index_documents(documents, known, store, batch_size=TEXTS, key_encoder=lambda each: str(each.id))
        assert done["num_added"] == len(page), done


PEERS: dict[str, Callable[[psycopg.Connection[Any], Any], None]] = {
    "loop": loop,
    "loop-grpc": loop_grpc,
    "batches": batches,
    "langchain": langchain,
    "langchain-own-store": langchain_own_store,
}


def open_index(**how: Any) -> Any:
    return Pinecone(api_key=os.environ["PINECONE_API_KEY"]).Index(host=os.environ["PINECONE_INDEX_HOST"], **how)


def main() -> None:
    started = time.monotonic()
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        PEERS[sys.argv[1]](connection, open_index())
    print(f'{{"work_s": {time.monotonic() - started:.3f}}}')


if __name__ == "__main__":
    main()
