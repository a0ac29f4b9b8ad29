"""The whole difference between the rows that should have a vector and the vectors that exist, both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from jobs.embedding import Embedding
from jobs.engine.database import Database
from jobs.engine.insistence import Insistence
from jobs.engine.job import Skip, prepare
from jobs.engine.options import Only
from jobs.engine.scan import Scan
from jobs.engine.work import Work
from queries.table import Key, PageQuery, Redo, Row, Slice, TableSpec

_SAMPLE = 200


@dataclass(slots=True)
class Difference:
    """Keys by what is wrong with them; a row can be in one of the first four only. Ids of vectors that no row wants.

    `claimed` are the missing ones whose flag says done, `denied` the good ones whose flag says not. `unverified` are
    there, and the ledger does not know from which text.
    """

    rows: int = 0
    vectors: int = 0
    good: int = 0
    missing: list[Key] = field(default_factory=list)
    stale: list[Key] = field(default_factory=list)
    other_model: list[Key] = field(default_factory=list)
    unverified: list[Key] = field(default_factory=list)
    claimed: list[Key] = field(default_factory=list)
    denied: list[Key] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    not_wanted: dict[str, int] = field(default_factory=dict)
    sample: list[Row] = field(default_factory=list)

    @property
    def is_none(self) -> bool:
        return not (self.missing or self.stale or self.other_model or self.denied or self.orphans)

    def to_repair(self, *, adopt: bool) -> Only:
        """Rows that a run has to look at again. Adopting marks vectors that the ledger does not know as good."""
        keys = [*self.missing, *self.stale, *self.other_model, *self.denied]
        keys += self.unverified if adopt else ()
        return Only(frozenset(keys), tuple(row for row in self.sample if row.key in set(keys[: 10 * _SAMPLE])))


class Verification:
    """Reads only. Ids are listed before the rows are read: what a run adds meanwhile is not called an orphan."""

    def __init__(self, work: Work, database: Database) -> None:
        assert work.target.embedding is not None, "only what is embedded can be verified"  # noqa: S101
        self._work = work
        self._database = database
        self._embedding: Embedding = work.target.embedding
        self._found = Difference()
        self._left: list[str] = []  # vectors of rows whose text is gone since
        self._unknown: set[Key | None] = set()  # keys, as ids have them, of rows that the ledger does not know
        self._expected: dict[Key, tuple[str, ...]] = {}  # of the rows that seem to lack something

    async def go(self) -> Difference:
        if self._work.space is None:
            await self._compare_column()
        else:
            await self._compare_space()
        return self._found

    async def _compare_space(self) -> None:
        ids = await self._list_ids()
        self._found.vectors = len(ids)
        async for row in self._rows(Redo("any")):
            self._found.rows += 1
            self._compare(row, ids)
        options = self._work.options
        if not options.where and options.slice == Slice():  # of a part of the table nobody can say what is too many
            self._found.orphans = sorted([*self._left, *(id_ for id_ in ids if not self._belongs(id_))])
        await self._look_again()

    def _belongs(self, id_: str) -> bool:
        """A further chunk of a row whose vectors the ledger does not know: how many it has, nobody can say."""
        return self._embedding.has_many and self._embedding.key_of(id_) in self._unknown

    async def _list_ids(self) -> set[str]:
        """All of them, page by page: a count proves nothing where as many were deleted as were added."""
        space = self._work.space
        assert space is not None  # noqa: S101
        service = Insistence(space.name, self._work.clock, self._work.options.max_outage_s)

        async def list_all() -> set[str]:
            return {id_ async for page in space.ids() for id_ in page}

        return await service.insist(list_all)

    def _compare(self, row: Row, ids: set[str]) -> None:
        """Takes what belongs to this row out of the ids."""
        known, found = row.known, self._found
        expected = self._embedding.ids_of(row.key, known.parts if known else 1)
        here = [id_ for id_ in expected if id_ in ids]
        ids.difference_update(here)
        is_done = any(_is_set(value) for value in list(row.was.values())[:1])
        if known is None:
            self._unknown.add(self._embedding.key_of(expected[0]))
        if known is not None and not known.same_text and (skip := self._why_unwanted(row)):
            self._left += here
            found.not_wanted[skip] = found.not_wanted.get(skip, 0) + 1
        elif len(here) < len(expected):
            self._expected[row.key] = expected
            self._note_missing(row, is_done=is_done)
        elif known is None:
            self._note(row, found.unverified)
        elif not known.same_text:
            self._note(row, found.stale)
        elif (known.model, known.prompt_hash) != (self._work.model, self._work.target.prompt_hash):
            self._note(row, found.other_model)
        elif is_done or not row.was:  # a target without cells has no flag that could lie
            found.good += 1
        else:
            self._note(row, found.denied)

    def _why_unwanted(self, row: Row) -> str:
        """Its text is gone, or nothing that could be embedded: then a vector of what it was is one too many."""
        item = prepare(self._work.job, row, self._work.means)
        return item.reason if isinstance(item, Skip) else ""

    def _note_missing(self, row: Row, *, is_done: bool) -> None:
        """A row that would be skipped wants no vector, unless its flag says that it has one."""
        skip = self._why_unwanted(row)
        if skip and not is_done:
            self._found.not_wanted[skip] = self._found.not_wanted.get(skip, 0) + 1
            return
        self._note(row, self._found.missing)
        if is_done:
            self._found.claimed.append(row.key)

    def _note(self, row: Row, where: list[Key]) -> None:
        where.append(row.key)
        if len(self._found.sample) < _SAMPLE:
            self._found.sample.append(row)

    async def _look_again(self) -> None:
        """Listing may lag behind, and rows may have been finished since: what is there by now is not missing."""
        space, found = self._work.space, self._found
        assert space is not None  # noqa: S101
        if not found.missing:
            return
        service = Insistence(space.name, self._work.clock, self._work.options.max_outage_s)
        wanted = sorted({id_ for ids in self._expected.values() for id_ in ids})
        seen: set[str] = set()
        for start in range(0, len(wanted), 1_000):
            part = wanted[start : start + 1_000]
            seen |= await service.insist(lambda part=part: space.seen(part))  # type: ignore[misc]
        late = {key for key, ids in self._expected.items() if seen.issuperset(ids)}
        found.good += len(late)
        found.missing = [key for key in found.missing if key not in late]
        found.claimed = [key for key in found.claimed if key not in late]

    async def _compare_column(self) -> None:
        """The vector stands in the row: it is there or not, and the ledger knows from which text."""
        found, target = self._found, self._work.target
        async for _ in self._rows(Redo("any"), _keys_only(target.spec)):
            found.rows += 1
        async for row in self._rows(None):
            self._note_missing(row, is_done=False)
        async for row in self._rows(Redo("outdated", self._work.model, target.prompt_hash)):
            self._note(row, found.stale if row.known and not row.known.same_text else found.other_model)

        wrong = len(found.missing) + len(found.stale) + len(found.other_model) + sum(found.not_wanted.values())
        found.good = found.rows - wrong
        found.vectors = found.rows - len(found.missing) - sum(found.not_wanted.values())

    async def _rows(self, redo: Redo | None, spec: TableSpec | None = None) -> AsyncIterator[Row]:
        work = self._work
        query = PageQuery(
            spec=spec or work.target.spec,
            target=work.target.name,
            fingerprint="",
            above=work.options.slice.above,
            upto=work.options.slice.upto,
            limit=1,
            where=work.options.where,
            redo=redo,
            retry_failed=True,
            with_known=True,
            in_window=True,
        )
        async for page in Scan(work.ledger, self._database, query, work.clock).pages_from(query.above):
            for row in page:
                yield row


def _keys_only(spec: TableSpec) -> TableSpec:
    """All rows that should have a vector, without their texts and without the vectors themselves."""
    wanted = tuple(condition for condition in spec.pending if condition.column not in spec.cells)
    return replace(spec, read=(), beside=(), cells=(), joined=None, pending=wanted)


def _is_set(value: str | None) -> bool:
    return value is not None and value not in ("false", "f")
