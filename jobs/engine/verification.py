"""The whole difference between the rows that should have a vector and the vectors that exist, both ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace

from jobs.embedding import Embedding
from jobs.engine.database import Database
from jobs.engine.insistence import Insistence
from jobs.engine.job import Ask, Skip, prepare
from jobs.engine.options import Only
from jobs.engine.orphans import find_left_behind, find_strangers
from jobs.engine.scan import Scan
from jobs.engine.work import Work
from queries.table import Key, PageQuery, Redo, Row, Slice, TableSpec
from queries.vectors import VectorSpace

_SAMPLE = 200


@dataclass(slots=True)
class Difference:
    """Keys by what is wrong with them; a row can be in one of the first four only. Ids of vectors that no row wants.

    `claimed` are the missing ones whose flag says done, `denied` the good ones whose flag says not. `unverified` are
    there, and the ledger does not know from which text. `left_behind` are the orphans whose row is there and wants
    none, `strangers` those that the ledger has never written. `guards` and `sample` are of rows that would be paid for.
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
    left_behind: frozenset[str] = frozenset()
    strangers: frozenset[str] = frozenset()
    not_wanted: dict[str, int] = field(default_factory=dict)
    guards: dict[Key, str] = field(default_factory=dict)
    sample: list[Row] = field(default_factory=list)
    free_sample: list[Row] = field(default_factory=list)

    @property
    def is_none(self) -> bool:
        return not (self.missing or self.stale or self.other_model or self.denied or self.orphans)

    def to_repair(self, *, adopt: bool) -> Only:
        """Rows that a run has to look at again. Adopting marks vectors that the ledger does not know as good."""
        free = frozenset([*self.denied, *(self.unverified if adopt else ())])
        keys = frozenset([*self.missing, *self.stale, *self.other_model]) | free
        return Only(keys, tuple(self.sample or self.free_sample), free)


class Verification:
    """Reads only. Ids are listed before the rows are read: what a run adds meanwhile is not called an orphan."""

    def __init__(self, work: Work, database: Database) -> None:
        assert work.target.embedding is not None, "only what is embedded can be verified"  # noqa: S101
        self._work = work
        self._database = database
        self._embedding: Embedding = work.target.embedding
        self._found = Difference()
        self._unknown: set[Key] = set()  # rows in chunks that the ledger does not know
        self._listed: Counter[Key | None] | None = None  # how many vectors each row has; counted where that is asked
        self._lacking: dict[Key, tuple[Key | None, tuple[str, ...]]] = {}  # the key before each, and its ids

    async def go(self) -> Difference:
        if self._work.space is None:
            await self._compare_column()
        else:
            await self._compare_space(self._work.space)
        return self._found

    async def _compare_space(self, space: VectorSpace) -> None:
        ids = await self._list_ids(space)
        self._found.vectors = len(ids)
        before = self._work.options.slice.above
        async for row in self._rows(Redo("any")):
            self._found.rows += 1
            expected = self._expect(row)
            if self._compare(row, expected, ids):
                self._lacking[row.key] = (before, expected if isinstance(expected, tuple) else ())
            before = row.key
        options = self._work.options
        if not options.where and options.slice == Slice():  # of a part of the table nobody can say what is too many
            self._found.orphans = sorted(id_ for id_ in ids if not self._belongs(id_))
            self._found.left_behind = await find_left_behind(self._work, self._database, self._found.orphans)
            self._found.strangers = await find_strangers(self._work, self._database, self._found.orphans)
        await self._look_again(space)

    def _key_of(self, id_: str) -> Key | None:
        return self._embedding.key_of(id_, len(self._work.target.spec.key))

    def _belongs(self, id_: str) -> bool:
        """A further chunk of a row whose vectors the ledger does not know yet: after its repair it does."""
        return bool(self._unknown) and self._key_of(id_) in self._unknown

    async def _list_ids(self, space: VectorSpace) -> set[str]:
        """All of them, page by page: a count proves nothing where as many were deleted as were added."""

        async def list_all() -> set[str]:
            return {id_ async for page in space.ids() for id_ in page}

        return await self._service(space).insist(list_all)

    def _service(self, space: VectorSpace) -> Insistence:
        return Insistence(space.name, self._work.clock, self._work.options.max_outage_s)

    def _expect(self, row: Row) -> tuple[str, ...] | Skip:
        """Ids that this row should have: as many as the ledger says, or as its text is cut into."""
        known = row.known
        if known is not None and known.same_text:
            return self._embedding.ids_of(row.key, known.parts)
        item = prepare(self._work.job, row, self._work.means)
        if isinstance(item, Skip):  # its text is gone, or nothing to embed: a vector of what it was is one too many
            return item
        return self._embedding.ids_of(row.key, known.parts if known else item.texts if isinstance(item, Ask) else 1)

    def _compare(self, row: Row, expected: tuple[str, ...] | Skip, ids: set[str]) -> bool:
        """Takes what belongs to this row out of the ids. True where it lacks some."""
        known, found = row.known, self._found
        if isinstance(expected, Skip):
            self._note_unwanted(expected)
            return False
        is_odd = False
        if known is None and self._embedding.has_many:  # another number of chunks is not of this text, or not cut so
            self._unknown.add(row.key)
            is_odd = self._count_listed(ids)[row.key] != len(expected)
        here = [id_ for id_ in expected if id_ in ids]
        ids.difference_update(here)
        if len(here) < len(expected):
            return self._note_missing(row)
        if known is None and not is_odd:
            self._note_free(row, found.unverified)
        elif known is not None and not known.same_text:
            self._note(row, found.stale)
        elif known is None or (known.model, known.prompt_hash) != (self._work.model, self._work.target.prompt_hash):
            self._note(row, found.other_model)
        elif row.is_due:
            self._note_free(row, found.denied)
        else:
            found.good += 1
        return False

    def _count_listed(self, ids: Iterable[str]) -> Counter[Key | None]:
        if self._listed is None:
            self._listed = Counter(self._key_of(id_) for id_ in ids)
        return self._listed

    def _note_unwanted(self, skip: Skip) -> None:
        self._found.not_wanted[skip.reason] = self._found.not_wanted.get(skip.reason, 0) + 1

    def _note_missing(self, row: Row) -> bool:
        """A row that would be skipped wants no vector, whatever its flag says."""
        item = prepare(self._work.job, row, self._work.means)
        if isinstance(item, Skip):
            self._note_unwanted(item)
            return False
        self._note(row, self._found.missing)
        if row.was and not row.is_due:  # a target without cells has no flag that could lie
            self._found.claimed.append(row.key)
        return True

    def _note(self, row: Row, where: list[Key]) -> None:
        where.append(row.key)
        self._found.guards[row.key] = row.guard
        if len(self._found.sample) < _SAMPLE:
            self._found.sample.append(row)

    def _note_free(self, row: Row, where: list[Key]) -> None:
        where.append(row.key)
        if len(self._found.free_sample) < _SAMPLE:
            self._found.free_sample.append(row)

    async def _look_again(self, space: VectorSpace) -> None:
        """Listing may lag, and rows may have been finished since: what is there by now is compared as it is now."""
        lacking = self._lacking
        seen = await self._see(space, [id_ for _, expected in lacking.values() for id_ in expected])
        late = [key for key, (_, expected) in lacking.items() if seen.issuperset(expected)]
        if not late:
            return
        self._forget(frozenset(late))
        above = lacking[late[0]][0]
        async for page in self._pages(Redo("any"), above=above, upto=late[-1]):
            rows = [
                (row, self._expect(row)) for row in page if row.key in lacking and seen.issuperset(lacking[row.key][1])
            ]
            wanted = [id_ for _, expected in rows if isinstance(expected, tuple) for id_ in expected]
            there = set(await self._see(space, wanted))
            self._listed = None
            for row, expected in rows:
                self._compare(row, expected, there)

    def _forget(self, keys: frozenset[Key]) -> None:
        found = self._found
        for noted in (found.missing, found.claimed):
            noted[:] = [key for key in noted if key not in keys]
        found.sample = [row for row in found.sample if row.key not in keys]
        found.guards = {key: guard for key, guard in found.guards.items() if key not in keys}

    async def _see(self, space: VectorSpace, ids: Sequence[str]) -> frozenset[str]:
        service = self._service(space)
        seen: set[str] = set()
        for start in range(0, len(ids), 1_000):
            part = ids[start : start + 1_000]
            seen |= await service.insist(lambda part=part: space.seen(part))  # type: ignore[misc]
        return frozenset(seen)

    async def _compare_column(self) -> None:
        """The vector stands in the row: it is there or not, and the ledger knows from which text."""
        found, target = self._found, self._work.target
        async for _ in self._rows(Redo("any"), _keys_only(target.spec)):
            found.rows += 1
        async for row in self._rows(None):
            self._note_missing(row)
        async for row in self._rows(Redo("outdated", self._work.model, target.prompt_hash)):
            self._note(row, found.stale if row.known and not row.known.same_text else found.other_model)

        wrong = len(found.missing) + len(found.stale) + len(found.other_model) + sum(found.not_wanted.values())
        found.good = found.rows - wrong
        found.vectors = found.rows - len(found.missing) - sum(found.not_wanted.values())

    async def _rows(self, redo: Redo | None, spec: TableSpec | None = None) -> AsyncIterator[Row]:
        slice_ = self._work.options.slice
        async for page in self._pages(redo, spec, above=slice_.above, upto=slice_.upto):
            for row in page:
                yield row

    async def _pages(
        self, redo: Redo | None, spec: TableSpec | None = None, *, above: Key | None, upto: Key | None
    ) -> AsyncIterator[list[Row]]:
        work = self._work
        query = PageQuery(
            spec=spec or work.target.spec,
            target=work.target.name,
            fingerprint="",
            above=above,
            upto=upto,
            limit=1,
            where=work.options.where,
            redo=redo,
            retry_failed=True,
            with_known=True,
            in_window=True,
        )
        async for page in Scan(work.ledger, self._database, query, work.clock).pages_from(above):
            yield page


def _keys_only(spec: TableSpec) -> TableSpec:
    """All rows that should have a vector, without their texts and without the vectors themselves."""
    wanted = tuple(condition for condition in spec.pending if condition.column not in spec.cells)
    return replace(spec, read=(), beside=(), cells=(), joined=None, pending=wanted)
