"""Vectors that no row wants: whose they are, and whether it is really so, is settled before one of them is deleted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from jobs.embedding import Embedding
from jobs.engine.database import Database
from jobs.engine.destination import place_of
from jobs.engine.insistence import Insistence
from jobs.engine.work import Work
from queries.errors import ItemPermanent, Misconfigured
from queries.table import Key, TableFacts

if TYPE_CHECKING:
    from jobs.engine.verification import Difference

_ASKED = 1_000
_AT_ONCE = 1_000
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_BITS = {"smallint": 15, "integer": 31, "bigint": 63}


async def find_left_behind(work: Work, database: Database, ids: Sequence[str]) -> frozenset[str]:
    """Those of the orphans whose row is there, and wants no vector: its text is gone, or the target leaves it out."""
    embedding, columns = _embedding(work), len(work.target.spec.key)
    key_of = {id_: key for id_ in ids if (key := embedding.key_of(id_, columns)) is not None}
    there = await _find_rows(work, database, sorted(set(key_of.values()))) if key_of else frozenset()
    return frozenset(id_ for id_, key in key_of.items() if key in there)


async def find_strangers(work: Work, database: Database, ids: Sequence[str]) -> frozenset[str]:
    """Those of the orphans that nobody of ours wrote, as far as the ledger knows: perhaps another database's."""
    embedding, columns, name = _embedding(work), len(work.target.spec.key), work.target.name
    key_of = {id_: embedding.key_of(id_, columns) for id_ in ids}
    keys = sorted({key for key in key_of.values() if key is not None})
    known = await database.insist(lambda: work.ledger.places.known_keys(name, keys)) if keys else frozenset()
    return frozenset(id_ for id_, key in key_of.items() if key not in known)


async def delete_orphans(work: Work, database: Database, found: Difference, *, strangers: bool) -> int:
    """How many were deleted; a dry run deletes none. A row that has come back meanwhile keeps its vector."""
    assert work.space is not None, "only of a place of vectors anybody can say what is too many"  # noqa: S101
    doomed = [id_ for id_ in found.orphans if strangers or id_ not in found.strangers]
    await _check(work, database, found, len(doomed))
    if work.options.dry_run:
        return len(doomed)
    return await _delete(work, database, found, doomed)


async def _delete(work: Work, database: Database, found: Difference, ids: Sequence[str]) -> int:
    assert work.space is not None  # noqa: S101
    service, deleted = Insistence(work.space.name, work.clock, work.options.max_outage_s), 0
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        back = await find_left_behind(work, database, [id_ for id_ in part if id_ not in found.left_behind])
        doomed = [id_ for id_ in part if id_ not in back]
        if doomed:
            await service.insist(lambda doomed=doomed: work.space.delete(doomed))  # type: ignore[misc]
        deleted += len(doomed)
    return deleted


async def _check(work: Work, database: Database, found: Difference, doomed: int) -> None:
    """What looks like orphans, and is not: another target's vectors, rows that this role may not see, a wrong table."""
    assert work.space is not None  # noqa: S101
    where, table = work.space.where, work.target.spec.table
    place = await database.insist(lambda: work.ledger.places.find(place_of(work, _embedding(work))))
    if place is None or place.target != work.target.name:
        owner = place.target if place else "no target"
        _refuse(
            work,
            f"{where} belongs to {owner}, not to {work.target.name}",
            "delete them with the target that wrote them",
        )
    facts: TableFacts = await database.insist(lambda: work.ledger.facts(work.target.spec))
    if facts.row_security and not facts.bypasses_row_security:
        _refuse(
            work,
            f"row level security may hide rows of {table} from role {facts.role}, and their vectors look like orphans",
            "use a role that sees every row, such as service_role",
        )
    if not found.rows:
        _refuse(
            work,
            f"{table} has no row that wants a vector, and {where} has {found.vectors:,} vectors",
            "look at the database and the target's conditions; if it is meant, delete the namespace itself",
        )
    if doomed > _ASKED and not work.options.yes:
        _refuse(work, f"{doomed:,} vectors would be deleted from {where}", "look at them with --out, then --yes")


def _refuse(work: Work, what: str, fix: str) -> NoReturn:
    raise Misconfigured(f"{what}: nothing was deleted", fix=fix, service=work.space.name if work.space else "")


async def _find_rows(work: Work, database: Database, keys: Sequence[Key]) -> frozenset[Key]:
    """Those of the keys that are in the table; one that is not even of its type is not."""
    spec = work.target.spec
    facts: TableFacts = await database.insist(lambda: work.ledger.facts(spec))
    types = [facts.columns[name].type for name in spec.key]
    return await _read(work, database, [key for key in keys if all(map(_can_be, types, key))])


def _can_be(type_: str, text: str) -> bool:
    """Whether a column of this type can print like that; what is not known may."""
    if type_ in _BITS:
        return bool(_WHOLE.fullmatch(text)) and -(1 << _BITS[type_]) <= int(text) < 1 << _BITS[type_]
    return type_ != "uuid" or bool(_UUID.fullmatch(text))


async def _read(work: Work, database: Database, keys: Sequence[Key]) -> frozenset[Key]:
    if not keys:
        return frozenset()
    try:
        return frozenset(await database.insist(lambda: work.ledger.read_back(work.target.spec, keys)))
    except ItemPermanent:  # the database refuses a page of keys for one that is not of the column's type
        if len(keys) == 1:
            return frozenset()
    middle = len(keys) // 2
    return await _read(work, database, keys[:middle]) | await _read(work, database, keys[middle:])


def _embedding(work: Work) -> Embedding:
    assert work.target.embedding is not None, "only of a target of vectorize"  # noqa: S101
    return work.target.embedding
