"""Where a run's vectors go, looked at before anything is paid: does it exist, does it fit, is it ours."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from jobs.embedding import Embedding
from jobs.engine.work import Work
from jobs.targets import Target
from queries.errors import ItemPermanent, Misconfigured
from queries.ledger import Place
from queries.table import TableFacts, TableSpec
from queries.vectors import SpaceFacts, VectorSpace

Answer = TypeVar("Answer")
Insist = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
_VECTOR = re.compile(r"(?:.*\.)?(?:half)?vec(?:tor)?(?:\((\d+)\))?")


def place_of(work: Work, embedding: Embedding) -> str:
    return name_place(work.space, work.target.spec)


def name_place(space: VectorSpace | None, spec: TableSpec) -> str:
    """The name under which the ledger remembers whose vectors are there."""
    return f"{space.name} {space.where}" if space else f"column {spec.schema}.{spec.table}.{spec.cells[0]}"


async def check_destination(work: Work, facts: TableFacts | None, insist: Insist) -> None:
    """Refuses what cannot work. Makes the space where the operator asked for it; a dry run makes nothing."""
    embedding = work.target.embedding
    if embedding is None:
        return
    place = place_of(work, embedding)
    known = await insist(lambda: work.ledger.places.find(place)) if facts is not None else None
    if work.space is None:
        if facts is not None:
            _check_column(work, facts, embedding.dimensions)
    else:
        await _check_space(work, work.space, embedding, known, insist, has_ledger=facts is not None)
    if facts is not None:
        await _check_model(work, embedding, known, insist)


def _check_column(work: Work, facts: TableFacts, dimensions: int) -> None:
    cell = work.target.spec.cells[0]
    declared = facts.columns[cell].type
    found = _VECTOR.fullmatch(declared)
    if found is None:
        raise Misconfigured(
            f"column {cell} of {work.target.spec.table} is {declared}, not a vector",
            fix=f"alter it to vector({dimensions}), or name another column in catchup.toml",
        )
    if found[1] and int(found[1]) != dimensions:
        raise Misconfigured(
            f"column {cell} holds {found[1]} dimensions, target {work.target.name} makes {dimensions}",
            fix="set dimensions of the target to the column's",
        )


async def _check_space(
    work: Work, space: VectorSpace, embedding: Embedding, known: Place | None, insist: Insist, *, has_ledger: bool
) -> None:
    facts: SpaceFacts = await insist(space.facts)
    options = work.options
    _check_existence(space, facts, may_index=options.create_index, may_space=options.create_namespace)
    if facts.dimension is not None and facts.dimension != embedding.dimensions:
        raise Misconfigured(
            f"{space.where} holds {facts.dimension} dimensions, target {work.target.name} makes {embedding.dimensions}",
            fix="set the target's dimensions to the index's, or name another index",
            service=space.name,
        )
    if not facts.exists and not options.dry_run:
        await insist(lambda: space.create(embedding.dimensions, index=not facts.index_exists))
    if not has_ledger or (known is not None and known.target != work.target.name):
        return  # whose place it is will be said of it
    if work.target.replaces and facts.count and known is None:
        raise Misconfigured(
            f"{space.where} holds vectors of which the ledger knows neither model nor text",
            fix="name a namespace that does not exist yet",
            service=space.name,
        )
    if facts.sample:
        await _check_scheme(work, space, embedding, facts.sample, insist, is_ours=known is not None)


def _check_existence(space: VectorSpace, facts: SpaceFacts, *, may_index: bool, may_space: bool) -> None:
    if not facts.index_exists and not may_index:
        raise Misconfigured(
            f"{space.where}: there is no such index",
            fix="correct the name, or say --create-index to make it",
            service=space.name,
        )
    if not facts.exists and not (may_space or may_index):
        raise Misconfigured(
            f"{space.where}: there is no such namespace, and writing to it would make one",
            fix="correct the name, or say --create-namespace if it is meant to be new",
            service=space.name,
        )


async def _check_scheme(
    work: Work, space: VectorSpace, embedding: Embedding, sample: tuple[str, ...], insist: Insist, *, is_ours: bool
) -> None:
    """Ids of another scheme would stand beside ours for ever: of those that are there, one must be a row of ours.

    In a place that the ledger knows to be ours the rows of the sample may all be deleted ones: the form is enough.
    """
    spec = work.target.spec
    ours = [key for id_ in sample if (key := embedding.key_of(id_, len(spec.key)))]
    if is_ours and ours:
        return
    try:
        found = await insist(lambda: work.ledger.read_back(spec, ours)) if ours else {}
    except ItemPermanent:  # not even of the key's type
        found = {}
    if not found:
        raise Misconfigured(
            f"the ids in {space.where} are of another scheme: {', '.join(sample[:3])}; "
            f"target {work.target.name} would write {embedding.vector_id}",
            fix="set vector_id of the target to their template, or use another namespace",
            service=space.name,
        )


async def _check_model(work: Work, embedding: Embedding, known: Place | None, insist: Insist) -> None:
    """The model belongs to the place: vectors of two models can be stored there, and never compared."""
    place, dimensions, target = place_of(work, embedding), embedding.dimensions, work.target
    if not work.options.dry_run:
        known = await insist(lambda: work.ledger.places.claim(place, work.model, dimensions, target.name))
    if known is None:
        return
    if known.target != target.name:
        _refuse_owner(target, embedding, place, known)
    if (known.model, known.dimensions) != (work.model, dimensions):
        raise Misconfigured(
            f"{place} holds vectors of {known.model} with {known.dimensions} dimensions, "
            f"and this run would add some of {work.model} with {dimensions}",
            fix="use that model, or fill a new namespace: --reembed --into NAMESPACE",
        )


def _refuse_owner(target: Target, embedding: Embedding, place: str, known: Place) -> NoReturn:
    """Two targets in one place have the same ids for their vectors: each would overwrite the other's."""
    if target.replaces:
        raise Misconfigured(
            f"{place} is for vectors of target {known.target} with {known.model}",
            fix="name a namespace that does not exist yet",
        )
    if known.target.partition("@")[0] == target.name:
        raise Misconfigured(
            f"{place} is not where the ledger has target {target.name}: it was switched elsewhere, "
            "or catchup.toml was changed by hand",
            fix=f"give [targets.{target.name}] the namespace, model and dimensions that it was switched to; "
            f"this place is gone over to with --reembed --into {embedding.namespace or '__default__'} --switch",
        )
    raise Misconfigured(
        f"{place} is for vectors of target {known.target} with {known.model}: those of {target.name} would take "
        "their ids",
        fix=f"give [targets.{target.name}] a place of its own, or call it {known.target} if that is its old name",
    )
