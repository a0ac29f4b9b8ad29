"""All vectors of a target once more, by another model, elsewhere, while the old ones serve; then they change places."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from jobs.embedding import Embedding
from jobs.engine.database import Database
from jobs.engine.database_load import DatabaseLoad
from jobs.engine.destination import name_place
from jobs.engine.verdict import Named
from jobs.engine.verification import Difference, Verification
from jobs.engine.work import Work
from jobs.targets import Target, check_embedding
from queries.errors import Misconfigured
from queries.ledger import Place
from queries.table import Slice
from queries.vectors import VectorSpace

_Answer = TypeVar("_Answer")
_DEFAULT = "__default__"  # what Pinecone itself calls the namespace without a name
_NAMED_MOST = 200


@dataclass(frozen=True, slots=True)
class Into:
    """The place to be filled; what is not said is as the target has it."""

    namespace: str
    model: str | None = None
    dimensions: int | None = None
    index: str | None = None


def fill_beside(base: Target, into: Into) -> Target:
    """A target of its own, with its own lease, runs and ledger. It has no cells: the flag belongs to the old place."""
    embedding = base.embedding
    if embedding is None or embedding.into == "column":
        raise Misconfigured(
            f"target {base.name} keeps its vector in the row itself: there is no namespace to fill beside it",
            fix="add a second column of the new dimensions to the table, and a second target with it to catchup.toml; "
            "when that is done, let your queries read it (docs/targets.md, Changing the model)",
        )
    made = replace(
        embedding,
        namespace=into.namespace,
        dimensions=into.dimensions or embedding.dimensions,
        index=into.index or embedding.index,
    )
    model = into.model or base.model
    if _place(base, made) == _place(base, embedding) and (model, made.dimensions) != (base.model, embedding.dimensions):
        raise Misconfigured(
            f"target {base.name} is in {made.place} now, with {base.model} in {embedding.dimensions} dimensions: "
            "the model belongs to the namespace",
            fix="name a namespace that does not exist yet",
        )
    pending = tuple(condition for condition in base.spec.pending if condition.column not in base.spec.cells)
    target = replace(
        base,
        name=name_beside(base, made, embedding),
        spec=replace(base.spec, cells=(), pending=pending),
        cells={},
        model=model,
        keep_provenance=True,
        embedding=made,
        is_first=False,
        replaces=base,
    )
    return check_embedding(target, made)


def name_beside(base: Target, at: Embedding, other: Embedding) -> str:
    """The name in the ledger for what a target has in a place that is not, or no longer, its own."""
    index = f"{at.index}/" if at.index != other.index else ""
    return f"{base.name}@{index}{_place(base, at)[1]}"


def _place(base: Target, at: Embedding) -> tuple[str, str]:
    if at.into == "pgvector":
        return "", at.namespace or base.name
    return at.index, at.namespace or _DEFAULT


@dataclass(frozen=True, slots=True)
class Beside:
    """A target that is filled beside the one it is to replace, and the place of that one."""

    work: Work
    left: VectorSpace

    @property
    def base(self) -> Target:
        assert self.work.target.replaces is not None, "a target made by fill_beside"  # noqa: S101
        return self.work.target.replaces

    @property
    def embeddings(self) -> tuple[Embedding, Embedding]:
        """The new and the old one."""
        made, old = self.work.target.embedding, self.base.embedding
        assert made is not None, "a target of vectorize says how it is embedded"  # noqa: S101
        assert old is not None, "a target of vectorize says how it is embedded"  # noqa: S101
        return made, old

    @property
    def is_there(self) -> bool:
        """The configuration names the new place already."""
        made, old = self.embeddings
        return _place(self.base, made) == _place(self.base, old)

    @property
    def left_name(self) -> str:
        made, old = self.embeddings
        return name_beside(self.base, old, made)

    @property
    def places(self) -> tuple[str, str]:
        return name_place(self.work.space, self.work.target.spec), name_place(self.left, self.base.spec)

    async def is_switched(self) -> bool:
        """The ledger has gone over, and the configuration has not: that is all that is left to do."""
        ours, left = [await self._known(place) for place in self.places]
        made, _ = self.embeddings
        if ours is None or left is None or (ours.target, left.target) != (self.base.name, self.left_name):
            return False
        return (ours.model, ours.dimensions) == (self.work.model, made.dimensions)

    async def is_by_hand(self) -> bool:
        """The configuration names a place that the ledger does not have the target in."""
        known = await self._known(self.places[0])
        return known is not None and known.target != self.base.name and known.target.startswith(f"{self.base.name}@")

    async def _known(self, place: str) -> Place | None:
        return await self._insist(lambda: self.work.ledger.places.find(place))

    async def find_difference(self) -> Difference:
        """Of the whole table, whatever part of it the last run was for."""
        options = replace(self.work.options, dry_run=True, slice=Slice(), where=(), limit=None)
        work = replace(self.work, options=options)
        return await Verification(work, _database(work)).go()

    async def switch(self) -> bool:
        """In one transaction the ledger of the new place becomes the target's. False where it has been that already."""
        place, left_place = self.places
        return await self._insist(
            lambda: self.work.ledger.places.switch(
                target=self.base.name,
                filled=self.work.target.name,
                place=place,
                left=self.left_name,
                left_place=left_place,
            )
        )

    async def _insist(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        return await _database(self.work).insist(call)


def _database(work: Work) -> Database:
    options = work.options
    return Database(DatabaseLoad(options.db_load, work.clock), work.ledger, work.clock, options.max_outage_s)


def name_difference(found: Difference) -> tuple[Named, ...]:
    """Row by row what keeps the new place from being switched to."""
    kinds = (
        ("missing", "it has no vector there", found.missing),
        ("stale", "its vector is of an older text", found.stale),
        ("other model", "its vector was made by another model or in another way", found.other_model),
        ("unknown", "the ledger does not know from which text its vector is", found.unverified),
        ("orphaned", "a vector that belongs to no row", [(id_,) for id_ in found.orphans]),
    )
    named = [Named(" ".join(key), state, why, "") for state, why, keys in kinds for key in keys[:_NAMED_MOST]]
    return tuple(named[:_NAMED_MOST])


def count_difference(found: Difference) -> int:
    rows = (found.missing, found.stale, found.other_model, found.unverified)
    return sum(len(keys) for keys in rows) + len(found.orphans)
