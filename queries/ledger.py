"""The ledger in the user's database: runs, leases, pages, guarded writes, verdicts, money. One attempt each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from queries.errors import LeaseHeld, Misconfigured
from queries.ledger_answers import believed, expected
from queries.ledger_json import (
    batch_json,
    keys_in_chunks,
    page_json,
    parse_cells,
    parse_counts,
    parse_facts,
    parse_home,
    parse_key,
    parse_lump,
    parse_page,
    parse_run,
    parse_verdict,
    parse_written,
    slice_json,
    spec_json,
)
from queries.ledger_types import (
    SCHEMA_VERSION,
    Ceilings,
    Hello,
    Holder,
    Home,
    Lease,
    Lump,
    Place,
    RowVerdict,
    RunRecord,
    Spend,
    WriteBatch,
    WriteResult,
    WriteRow,
)
from queries.page_rows import parse_page_rows
from queries.places import Places
from queries.postgres_errors import MissingFunction
from queries.road import Road, RowsRoad
from queries.table import Key, Page, PageQuery, Row, Slice, TableFacts, TableSpec

__all__ = [
    "SCHEMA_VERSION",
    "Ceilings",
    "Hello",
    "Holder",
    "Home",
    "Lease",
    "Ledger",
    "Lump",
    "Place",
    "RowVerdict",
    "RunRecord",
    "Spend",
    "WriteBatch",
    "WriteResult",
    "WriteRow",
]

_KEY_BYTES = 3_000


class Ledger:
    """Typed calls of the functions in queries/sql, over either road. It never retries and never guesses."""

    def __init__(self, road: Road) -> None:
        self.road = road
        self.places = Places(road)
        self._took_s: float | None = None

    def show(self, key: Key) -> str:
        """The row's name, for an operator."""
        return " ".join(key)

    async def hello(self, spec: TableSpec | None = None, target: str = "") -> Hello:
        asked = {"target": target, "schema": spec.schema if spec else None, "table": spec.table if spec else None}
        try:
            answer = await self._read("catchup_hello", asked)
        except MissingFunction:
            return Hello(None, "", (), False)
        with believed("catchup_hello", writing=False):
            hello = Hello(
                int(answer["version"]), str(answer["role"]), tuple(answer["cells"]), answer["least_privilege"] is True
            )
        if hello.schema_version != SCHEMA_VERSION:
            raise Misconfigured(
                f"the database has catchup schema version {hello.schema_version}, this client needs {SCHEMA_VERSION}",
                fix="run `catchup migrate` with the newer of the two",
                service="database",
            )
        return hello

    async def facts(self, spec: TableSpec) -> TableFacts:
        answer = await self._read("catchup_facts", {"spec": spec_json(spec)})
        with believed("catchup_facts", writing=False):
            return parse_facts(answer)

    async def look(self, query: PageQuery) -> Page:
        answer = await self._read("catchup_page", page_json(query))
        with believed("catchup_page", writing=False):
            return parse_page(answer, query)

    async def look_quickly(self, query: PageQuery) -> Page:
        """The same page; over a road of rows their values are parsed by whoever looks at them, if anybody does."""
        if not isinstance(self.road, RowsRoad):
            return await self.look(query)
        found = await self.road.read_rows("catchup_page_rows", page_json(query))
        with believed("catchup_page_rows", writing=False):
            if found and found[0][0] is None and found[0][2] is not None:
                expected(json.loads(found[0][2]))
            if found:
                self._took_s = float(found[-1][-1]) / 1000
            return parse_page_rows(found, query.spec, in_window=query.in_window)

    async def page(self, query: PageQuery) -> list[Row]:
        return (await self.look(query)).rows

    async def count_up_to(self, query: PageQuery, at_most: int) -> int:
        return (await self.count_window(query, at_most))[0]

    async def count_window(self, query: PageQuery, at_most: int) -> tuple[int, Key | None]:
        """Candidates among the next `query.limit` keys, and the last of those; None at the end of the slice."""
        answer = await self._read("catchup_count", {**page_json(query), "at_most": at_most})
        with believed("catchup_count", writing=False):
            last = None if answer["last"] is None else parse_key(answer["last"])
            return parse_counts({"count": answer["count"]})["count"], last

    async def upper(self, spec: TableSpec, slice_: Slice) -> Key | None:
        answer = await self._read("catchup_upper", {"spec": spec_json(spec), **slice_json(slice_)})
        with believed("catchup_upper", writing=False):
            return None if answer["key"] is None else parse_key(answer["key"])

    async def read_back(self, spec: TableSpec, keys: Sequence[Key]) -> dict[Key, dict[str, str | None]]:
        found: dict[Key, dict[str, str | None]] = {}
        for chunk in keys_in_chunks(keys, _KEY_BYTES):
            answer = await self._read("catchup_read_back", {"spec": spec_json(spec), "keys": chunk})
            with believed("catchup_read_back", writing=False):
                found |= {parse_key(row["key"]): parse_cells(row["cells"], spec) for row in answer["rows"]}
        return found

    async def open_run(
        self,
        *,
        run_id: str,
        job: str,
        target: str,
        fingerprint: str,
        params: Mapping[str, Any],
        slice_: Slice,
        home: Home,
        upper: Key | None,
    ) -> None:
        run = {"run_id": run_id, "job": job, "target": target, "fingerprint": fingerprint, "params": dict(params)}
        await self._call("catchup_open_run", {**run, **slice_json(slice_), "home": asdict(home), "upper": upper})

    async def reopen_run(self, run_id: str, home: Home) -> RunRecord:
        answer = await self._call("catchup_reopen_run", {"run_id": run_id, "home": asdict(home)})
        if answer.get("run") is None:
            raise Misconfigured(f"no run {run_id} in this database", fix="see `catchup runs list`", service="database")
        with believed("catchup_reopen_run", writing=True):
            return parse_run(answer["run"])

    async def unfinished_run(self, target: str, slice_: Slice, job: str | None = None) -> RunRecord | None:
        """Of this job, or of any."""
        asked = {"target": target, "slice": slice_json(slice_), "states": ["running", "stopped"], "limit": 1}
        asked |= {"jobs": [job]} if job else {}
        return next(iter(await self._runs(asked)), None)

    async def last_finished(self, target: str) -> RunRecord | None:
        return next(iter(await self._runs({"target": target, "states": ["finished"], "limit": 1})), None)

    async def run(self, run_id: str) -> RunRecord | None:
        return next(iter(await self._runs({"run_id": run_id, "limit": 1})), None)

    async def runs(self, limit: int = 20) -> list[RunRecord]:
        return await self._runs({"limit": limit})

    async def ask_cancel(self, run_id: str) -> None:
        await self._call("catchup_ask_cancel", {"run_id": run_id})

    async def cancel_dead(self, run_id: str) -> None:
        """Fences whoever may still run it and gives back the money nobody spent."""
        await self._call("catchup_cancel_dead", {"run_id": run_id})

    async def named(self, run_id: str, limit: int = 100) -> list[RowVerdict]:
        answer = await self._read("catchup_named", {"run_id": run_id, "limit": limit})
        with believed("catchup_named", writing=False):
            return [parse_verdict(verdict) for verdict in answer["verdicts"]]

    async def standing(self, target: str, fingerprint: str, at_most: int = 1001) -> dict[str, int]:
        asked = {"target": target, "fingerprint": fingerprint, "at_most": at_most}
        answer = await self._read("catchup_standing", asked)
        with believed("catchup_standing", writing=False):
            return parse_counts(answer["reasons"])

    async def take_lease(
        self,
        *,
        target: str,
        spec: TableSpec,
        slice_: Slice,
        run_id: str,
        home: Home,
        ttl_s: float = 60,
        dead: Holder | None = None,
    ) -> Lease:
        """`dead` is a holder the client proved dead; its generation must still be the one in the ledger."""
        asked = {
            "target": target,
            "spec": spec_json(spec),
            **slice_json(slice_),
            "run_id": run_id,
            "home": asdict(home),
        }
        proved = {"run_id": dead.run_id, "generation": dead.generation} if dead else None
        answer = await self._call("catchup_take_lease", {**asked, "ttl_s": ttl_s, "dead": proved})
        with believed("catchup_take_lease", writing=True):
            if "held" not in answer:
                return Lease(answer["run_id"], parse_counts({"generation": answer["generation"]})["generation"])
            held = answer["held"]
            holder = Holder(
                held["run_id"], int(held["generation"]), parse_home(held["home"]), float(held["seconds_left"])
            )
        raise LeaseHeld(
            f"run {holder.run_id} on {holder.home.host} (pid {holder.home.pid}) works on {target}",
            holder=asdict(holder),
            seconds_left=holder.seconds_left,
            fix=f"wait for it; if it is dead, its lease ends in {holder.seconds_left:.0f} s",
        )

    async def beat(self, lease: Lease, ttl_s: float = 60) -> bool:
        answer = await self._call("catchup_beat", {**asdict(lease), "ttl_s": ttl_s})
        with believed("catchup_beat", writing=True):
            return bool(answer["cancel_asked"])

    async def release(self, lease: Lease) -> None:
        await self._call("catchup_release", asdict(lease))

    async def write(self, batch: WriteBatch) -> WriteResult:
        """All of the batch or nothing. The same write id again returns what the first one did."""
        answer = await self._call("catchup_write", batch_json(batch))
        if "undeclared" in answer:
            raise Misconfigured(
                f"target {batch.target} may not write {', '.join(map(str, answer['undeclared']))}: not registered",
                fix="run `catchup migrate` as the owner to register the target's cells",
                service="database",
            )
        with believed("catchup_write", writing=True):
            return parse_written(answer, len(batch.rows))

    async def take_lump(self, *, run_id: str, want_usd: float, ceilings: Ceilings) -> Lump:
        answer = await self._call("catchup_take_lump", {"run_id": run_id, "want_usd": want_usd, **asdict(ceilings)})
        with believed("catchup_take_lump", writing=True):
            return parse_lump(answer)

    async def settle_run(self, run_id: str, *, spent_usd: float, possibly_usd: float) -> None:
        """Both sums are of the whole run, all its sessions. What it holds beyond them goes back to the windows."""
        await self._call("catchup_settle_run", {"run_id": run_id, "spent_usd": spent_usd, "possibly_usd": possibly_usd})

    async def close_run(
        self, *, run_id: str, generation: int, state: Literal["stopped", "finished", "cancelled"], stop_reason: str
    ) -> None:
        asked = {"run_id": run_id, "generation": generation, "state": state, "stop_reason": stop_reason}
        await self._call("catchup_close_run", asked)

    async def prune(self, older_than_days: int) -> dict[str, int]:
        answer = await self._call("catchup_prune", {"older_than_days": older_than_days})
        with believed("catchup_prune", writing=True):
            return parse_counts(answer)

    async def _runs(self, asked: Mapping[str, Any]) -> list[RunRecord]:
        answer = await self._read("catchup_runs", asked)
        with believed("catchup_runs", writing=False):
            return [parse_run(run) for run in answer["runs"]]

    async def _read(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        return self._timed(expected(await self.road.read(function, payload)))

    async def _call(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        return self._timed(expected(await self.road.call(function, payload)))

    def _timed(self, answer: dict[str, Any]) -> dict[str, Any]:
        took_ms = answer.pop("took_ms", None)
        if isinstance(took_ms, int | float):
            self._took_s = took_ms / 1000
        return answer

    def take_took_s(self) -> float | None:
        """How long the server worked for the last page or write, if it said so; told once."""
        took_s, self._took_s = self._took_s, None
        return took_s
