"""--ids-from: which videos are meant, what is wrong with the list, and which of them can be sent."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.layout import count
from cli.untrusted import clean
from queries.errors import Misconfigured

if TYPE_CHECKING:
    from queries.ledger import Ledger
    from queries.table import Key, PageQuery, Row, TableSpec

_NAMED_MOST = 10
_LOOKED_AT = 60  # over REST they travel in a URL, which servers cut at 8 kB
_WHOLE = re.compile(r"-?\d{1,19}")


@dataclass(frozen=True, slots=True)
class Listed:
    """`rows` can be sent; `elsewhere` are there and not to be sent; `missing` are not in the table."""

    rows: tuple[Row, ...]
    elsewhere: tuple[str, ...]
    missing: tuple[str, ...]

    def say(self) -> list[str]:
        said = [f"--ids-from: {count(len(self.rows), 'video')} to send"]
        for ids, why in (
            (self.missing, "not in the table"),
            (self.elsewhere, "in the table and not to be sent (another status, done, or its message waits)"),
        ):
            if ids:
                more = f" and {len(ids) - _NAMED_MOST:,} more" if len(ids) > _NAMED_MOST else ""
                said.append(f"--ids-from: {len(ids):,} {why}: {', '.join(map(clean, ids[:_NAMED_MOST]))}{more}")
        return said


def read_ids(file: Path, column_type: str) -> list[str]:
    """One a line, as the database writes them; empty lines and lines after # are nothing. Every bad line is named."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise Misconfigured(f"--ids-from {file}: {reason}", fix="name a text file with one id a line, or -") from None
    ids: dict[str, None] = {}
    bad: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        said = line.strip()
        if not said or said.startswith("#"):
            continue
        id_ = _as_key(said, column_type)
        if id_ is None:
            bad.append(f"line {number}: {clean(said, 60)!r}")
        else:
            ids[id_] = None
    if bad:
        more = f"; and {len(bad) - _NAMED_MOST:,} more" if len(bad) > _NAMED_MOST else ""
        raise Misconfigured(
            f"--ids-from {file}: {count(len(bad), 'line')} no id of type {column_type}: "
            f"{'; '.join(bad[:_NAMED_MOST])}{more}",
            fix="correct or remove them; nothing was sent",
        )
    if not ids:
        raise Misconfigured(f"--ids-from {file} holds no id", fix="one id a line")
    return list(ids)


def _as_key(text: str, column_type: str) -> str | None:
    """As the column prints it; None where it cannot be one."""
    match column_type:
        case "uuid":
            try:
                return str(uuid.UUID(text))
            except ValueError:
                return None
        case "bigint" | "integer" | "smallint":
            return str(int(text)) if _WHOLE.fullmatch(text) else None
        case _:
            return text if text.isprintable() else None


async def find_listed(ledger: Ledger, query: PageQuery, ids: Sequence[str]) -> Listed:
    """Reads only, a few at a time; in the order of the list."""
    from dataclasses import replace

    rows: dict[Key, Row] = {}
    for start in range(0, len(ids), _LOOKED_AT):
        among = tuple(ids[start : start + _LOOKED_AT])
        page = await ledger.look(replace(query, among=among, in_window=False, limit=len(among)))
        rows |= {row.key: row for row in page.rows}
    rest = [(id_,) for id_ in ids if (id_,) not in rows]
    there = await ledger.read_back(query.spec, rest) if rest else {}
    return Listed(
        tuple(rows[(id_,)] for id_ in ids if (id_,) in rows),
        tuple(key[0] for key in rest if key in there),
        tuple(key[0] for key in rest if key not in there),
    )


async def key_type(ledger: Ledger, spec: TableSpec) -> str:
    if len(spec.key) != 1:
        raise Misconfigured("--ids-from needs a table with a key of one column", fix="use --slice or --where")
    return (await ledger.facts(spec)).columns[spec.key[0]].type
