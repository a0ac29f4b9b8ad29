"""What a journal says happened before this process: read back, checked line by line, folded into what is owed."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from queries.errors import Misconfigured
from queries.ledger import RowVerdict
from queries.record import record
from queries.table import Key
from queries.vectors import VectorRecord

VERSION = 1
_SUMS = ("spent_usd", "possibly_usd", "booked_usd", "booked_possibly_usd", "calls", "booked_calls")
_LONGEST_LINE = 64 << 20


@record(frozen=True, slots=True)
class Paid:
    """An answer that was paid for and is not yet confirmed by the database.

    `kept`: nothing was paid, so many vectors are there already and only the flag is missing. `is_sent`: a message,
    which counts whatever becomes of the row.
    """

    key: Key
    guard: str
    was: Mapping[str, str | None]
    cells: Mapping[str, str | None]
    vectors: tuple[VectorRecord, ...] = ()
    drop: tuple[str, ...] = ()
    kept: int = 0
    is_sent: bool = False


def _as_base64(values: bytes) -> str:
    return b64encode(values).decode()


def paid_json(paid: Paid, write: Callable[[bytes], str | bytes] = _as_base64) -> dict[str, Any]:
    """As it stands in the journal: short names, and vectors as base64, or as `write` hands them to an encoder."""
    line: dict[str, Any] = {"k": paid.key, "g": paid.guard, "w": paid.was, "c": paid.cells}
    if paid.vectors or paid.drop:
        line["v"] = [[v.id, write(v.values), v.metadata] for v in paid.vectors]
        line["d"] = paid.drop
    if paid.kept:
        line["kept"] = paid.kept
    if paid.is_sent:
        line["sent"] = True
    return line


def read_paid(line: Mapping[str, Any]) -> Paid:
    vectors = tuple(VectorRecord(id_, b64decode(values), metadata) for id_, values, metadata in line.get("v", ()))
    return Paid(
        tuple(line["k"]),
        line["g"],
        line["w"],
        line["c"],
        vectors,
        tuple(line.get("d", ())),
        line.get("kept", 0),
        "sent" in line,
    )


@dataclass(slots=True)
class Past:
    """What a journal says happened before this process: the input of a replay."""

    header: dict[str, Any]
    paid: dict[Key, Paid] = field(default_factory=dict)
    judged: dict[Key, RowVerdict] = field(default_factory=dict)
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    unanswered: dict[int, float] = field(default_factory=dict)
    crashes: dict[Key, int] = field(default_factory=dict)
    confirmed: set[Key] = field(default_factory=set)
    spent_usd: float = 0.0
    possibly_usd: float = 0.0
    booked_usd: float = 0.0
    booked_possibly_usd: float = 0.0
    calls: int = 0
    booked_calls: int = 0
    torn: bool = False

    @property
    def unbooked_usd(self) -> float:
        """Spent, or possibly, by the process that died and not yet on the ledger's books."""
        return self.spent_usd + self.possibly_usd - self.booked_usd - self.booked_possibly_usd


def read(path: Path, *, with_confirmed: bool = True) -> tuple[Past, int, int]:
    """The past, the length of its sound part, and the last attempt's number. One line in memory at a time."""
    past, end, attempt = Past(header={}), 0, 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            record = _parse(line.removesuffix(b"\n")) if line.endswith(b"\n") else None
            if record is None:
                past.torn = bool(line.rstrip(b"\0"))
                if lines.read(_LONGEST_LINE).strip(b"\0"):
                    fix = "keep a copy and ask; nothing was changed or restarted"
                    raise Misconfigured(f"{path} is damaged at line {number}", fix=fix)
                break
            attempt = max(attempt, fold(past, *record))
            end += len(line)
            if not with_confirmed:
                past.confirmed.clear()
    if not past.header:
        if end == 0:
            return past, 0, 0
        raise Misconfigured(f"{path} has no header", fix="it is not a journal of this tool; move it away")
    found = past.header.get("v")
    if found != VERSION:
        raise Misconfigured(
            f"{path} has format {found}, this version reads {VERSION}", fix="use the version that wrote it"
        )
    return past, end, attempt


def carry_over(past: Past, attempt: int) -> list[tuple[str, dict[str, Any]]]:
    """The shortest journal that says the same: what is owed, and the sums of all the rest."""
    sums = {name: getattr(past, name) for name in _SUMS}
    carried = {
        "n": attempt,
        "sums": sums,
        "unanswered": list(past.unanswered.items()),
        "crashes": list(past.crashes.items()),
        "intents": list(past.intents.values()),
    }
    rows = [paid_json(paid) for paid in past.paid.values()]
    bad = [[v.key, v.guard, v.state, v.reason, v.detail] for v in past.judged.values()]
    return [
        ("head", past.header),
        ("carry", carried),
        *(("paid", {"n": 0, "usd": 0.0, "rows": [row], "bad": []}) for row in rows),
        ("paid", {"n": 0, "usd": 0.0, "rows": [], "bad": bad}),
        ("known", {"keys": list(past.confirmed)}),
    ]


def _parse(line: bytes) -> tuple[str, dict[str, Any]] | None:
    checksum, _, body = line.partition(b" ")
    try:
        if checksum != b"%08x" % zlib.crc32(body):
            return None
        kind, record = json.loads(body)
    except ValueError:
        return None
    return str(kind), dict(record)


def fold(past: Past, kind: str, record: Mapping[str, Any]) -> int:
    """Takes one record into account; returns the number of the attempt it tells of."""
    match kind:
        case "head":
            past.header = dict(record)
        case "carry":
            _fold_carry(past, record)
        case "known":
            past.confirmed.update(tuple(key) for key in record["keys"])
        case "crash":
            key = tuple(record["k"])
            past.crashes[key] = past.crashes.get(key, 0) + 1
        case "try" | "paid" | "none":
            _fold_call(past, kind, record)
        case "write" | "void" | "done":
            _fold_write(past, kind, record)
    return int(record.get("n", 0))


def _fold_carry(past: Past, record: Mapping[str, Any]) -> None:
    for name, value in record["sums"].items():
        setattr(past, name, value)
    past.unanswered = {int(n): float(usd) for n, usd in record["unanswered"]}
    past.crashes = {tuple(key): int(times) for key, times in record["crashes"]}
    past.intents = {str(intent["id"]): intent for intent in record["intents"]}


def _fold_call(past: Past, kind: str, record: Mapping[str, Any]) -> None:
    number, usd = int(record["n"]), float(record["usd"])
    if kind == "try":
        past.calls += 1
        past.unanswered[number] = usd
        return
    past.unanswered.pop(number, None)
    if kind == "none":
        past.possibly_usd += usd
        return
    past.spent_usd += usd
    for row in record["rows"]:
        paid = read_paid(row)
        past.paid[paid.key] = paid
    for bad in record["bad"]:
        past.paid.pop(tuple(bad[0]), None)
        past.judged[tuple(bad[0])] = RowVerdict(tuple(bad[0]), *bad[1:])


def _fold_write(past: Past, kind: str, record: Mapping[str, Any]) -> None:
    if kind == "write":
        past.intents[str(record["id"])] = dict(record)
        _book(past, record, 1)
        return
    intent = past.intents.pop(str(record["id"]))
    if kind == "void":
        _book(past, intent, -1)
        return
    for key in intent["keys"]:
        past.paid.pop(tuple(key), None)
        past.confirmed.add(tuple(key))
    for verdict in intent["verdicts"]:
        past.judged.pop(tuple(verdict[0]), None)


def _book(past: Past, intent: Mapping[str, Any], sign: int) -> None:
    past.booked_usd += sign * float(intent["usd"])
    past.booked_possibly_usd += sign * float(intent["possibly_usd"])
    past.booked_calls += sign * int(intent["calls"])
