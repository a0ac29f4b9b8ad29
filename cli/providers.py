"""Who is paid and where vectors go, from settings and flags. Nothing local stands in for a service by accident."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

from cli.project import LOOPBACK
from cli.settings import Settings
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from jobs.engine.job import Service
    from jobs.targets import Target
    from queries.prices import Price
    from queries.road import Road
    from queries.tokens import TokenCounter
    from queries.vectors import VectorSpace

LOCAL_CHAT = "extractive-v1"
_MARKS = 2  # word pieces that open and close each text


class Provider(NamedTuple):
    service: Service
    tokens: TokenCounter
    price: Price
    model: str


def choose_provider(wanted: str | None, kind: str) -> Literal["openai", "local"]:
    """Extractive sentences get into somebody's own database only when that is said."""
    match wanted:
        case "openai" | "local":
            return "openai" if wanted == "openai" else "local"
        case None:
            return "local" if kind == "embedded" else "openai"
        case _:
            raise Misconfigured(f"there is no provider {wanted!r}", fix="--provider openai or --provider local")


def fit_to_provider(target: Target, provider: str) -> Target:
    """The local model has its own name and its own dimensions."""
    if provider == "openai":
        return target
    if target.embedding is None:
        return replace(target, model=LOCAL_CHAT, image="")  # it sees no pictures
    from queries.minilm import NAME
    from queries.minilm_model import DIMENSIONS, WINDOW

    embedding = replace(target.embedding, dimensions=DIMENSIONS)
    if embedding.chunking.kind != "whole":  # a longer whole text is read at its beginning, and the verdict says so
        embedding = replace(embedding, chunking=embedding.chunking.within(WINDOW - _MARKS))
    return replace(target, model=NAME, embedding=embedding)


def open_provider(
    settings: Settings, name: str, target: Target, price: str | None, dry_run: bool, allow_hosts: Iterable[str]
) -> Provider:
    from queries.prices import load_price
    from queries.tokens import TokenCounter

    loaded = load_price(target.model, price)
    if target.embedding is not None:
        _check_dimensions(target, target.embedding.dimensions, loaded)
    if name == "local":
        service = _open_local(target)
    else:
        service = _open_openai(settings, target, {*settings.allow_hosts, *allow_hosts}, dry_run)
    own = _own_count() if name == "local" and target.embedding is not None else None
    tokens = TokenCounter(target.model, settings.state_dir / "vocabularies", own)
    return Provider(service, tokens, loaded, target.model)


def _own_count() -> Callable[[str], int]:
    from queries.minilm import count_pieces

    return count_pieces


def _check_dimensions(target: Target, dimensions: int, price: Price) -> None:
    """Before anything is paid: the provider would refuse, or give what no index of these dimensions takes."""
    if price.gives(dimensions) and (price.max_output == 0 or price.dated == "--price"):
        return
    if price.dimensions == 0:
        said = "does not embed"
    else:
        said = f"gives at most {price.dimensions}" if price.is_cut else f"gives {price.dimensions} and no other"
    where = f"model and dimensions of [targets.{target.name}] in catchup.toml"
    raise Misconfigured(
        f"target {target.name} wants {dimensions} dimensions, and {target.model} {said}",
        fix=f"set {'--model and --dimensions' if target.replaces else where} to what belongs together",
        code="dimensions",
    )


def _open_local(target: Target) -> Service:
    if target.embedding is not None:
        from queries.minilm import LocalEmbed

        return LocalEmbed()
    from queries.extractive import LocalChat

    return LocalChat()


def _open_openai(settings: Settings, target: Target, allowed: set[str], dry_run: bool) -> Service:
    host = urlsplit(settings.openai_base_url or "").hostname
    if settings.openai_api_key:
        key = settings.openai_api_key.get_secret_value().strip()
    elif dry_run or host in LOOPBACK:
        key = "none-needed"
    else:
        instead = "vectors of a small model" if target.embedding else "extractive sentences"
        raise Misconfigured(
            "OPENAI_API_KEY is not set",
            fix=f"set it in the environment or .env; or --provider local for {instead} without an account",
        )
    timeout_s = settings.limits.call_timeout
    if target.embedding is not None:
        from queries.openai_embed import OpenAIEmbed

        return OpenAIEmbed(key, settings.openai_base_url, timeout_s=timeout_s, allow_hosts=allowed)
    from queries.openai_chat import OpenAIChat

    return OpenAIChat(key, settings.openai_base_url, timeout_s=timeout_s, allow_hosts=allowed)


def choose_store(target: Target, wanted: str | None, kind: str) -> Target:
    """With the embedded database vectors stay in it; anywhere else the target says where they go, or the flag."""
    embedding = target.embedding
    if embedding is None or embedding.into == "column":
        if wanted is not None:
            raise Misconfigured(
                f"--store: target {target.name} keeps no vectors outside of its rows", fix="leave it out"
            )
        return target
    match wanted:
        case "pinecone" | "pgvector":
            into: Literal["pinecone", "pgvector"] = "pinecone" if wanted == "pinecone" else "pgvector"
        case None:
            into = "pgvector" if kind == "embedded" or embedding.into == "pgvector" else "pinecone"
        case _:
            raise Misconfigured(f"there is no store {wanted!r}", fix="--store pinecone or --store pgvector")
    return replace(target, embedding=replace(embedding, into=into))


def open_space(settings: Settings, target: Target, road: Road, allow_hosts: Iterable[str]) -> VectorSpace | None:
    """None where vectors stand in the row itself, or there are none."""
    embedding = target.embedding
    if embedding is None or embedding.into == "column":
        return None
    if embedding.into == "pgvector":
        from queries.pgvector_space import PgvectorSpace

        name = (target.replaces or target).name
        return PgvectorSpace(road, embedding.namespace or name, model=target.model, target=name)
    if settings.pinecone_api_key is None:
        raise Misconfigured(
            "PINECONE_API_KEY is not set",
            fix="set it in the environment or .env; or --store pgvector for vectors in the same database",
        )
    from queries.pinecone_space import PineconeSpace

    return PineconeSpace(
        settings.pinecone_api_key.get_secret_value().strip(),
        index_host=settings.pinecone_index_host,
        controller_host=settings.pinecone_controller_host,
        index=embedding.index,
        namespace=embedding.namespace,
        allow_hosts={*settings.allow_hosts, *allow_hosts},
        timeout_s=settings.limits.call_timeout,
        over_grpc=settings.pinecone_grpc,
    )
