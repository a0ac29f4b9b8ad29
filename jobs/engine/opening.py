"""Before anything is paid: the ledger, the table's facts, the lease, and whether an earlier run goes on."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.engine.database import Database
from jobs.engine.journal import Journal
from jobs.engine.lease import take_lease
from jobs.engine.options import Options
from jobs.engine.past import Past
from jobs.engine.state_dir import StateDir, lock_id
from jobs.targets import Target
from queries.errors import CatchupError, LeaseHeld, Misconfigured
from queries.ledger import Hello, Home, Lease, Ledger, RunRecord
from queries.table import Key, PageQuery, Slice, TableFacts


@dataclass(frozen=True, slots=True)
class Opened:
    """A run that holds its lease; `past` is set when it goes on from an earlier process."""

    run_id: str
    lease: Lease
    record: RunRecord | None
    journal: Journal
    past: Past | None
    upper: Key | None


def run_params(target: Target, model: str, options: Options) -> dict[str, Any]:
    """What makes two runs the same work: kept with the run, so that a difference can be named."""
    return {
        "target": target.name,
        "table": f"{target.spec.schema}.{target.spec.table}",
        "cells": list(target.spec.cells),
        "read": list(target.spec.read),
        "pending": [f"{c.column} {c.op} {c.value or ''}".strip() for c in target.spec.pending],
        "prompt": target.prompt_hash,
        "model": model,
        "where": [list(pair) for pair in options.where],
        "redo": [options.redo.by, options.redo.value] if options.redo and not options.redo.and_pending else None,
        "store": target.embedding.into if target.embedding else None,
        "minimum": [options.min_characters, options.min_words],
        **_filled_params(target),
        **({"picked": [list(pair) for pair in options.picked]} if options.picked else {}),
    }


def _filled_params(target: Target) -> dict[str, Any]:
    base, made = target.replaces, target.embedding
    if base is None or made is None:
        return {}
    return {"replaces": base.name, "into": made.namespace, "index": made.index, "dimensions": made.dimensions}


def query_of(target: Target, options: Options, fingerprint: str) -> PageQuery:
    """What a run of this target with these options selects."""
    # one key is held by its lease and read by its list: a page's cursor would take it for its own end
    bounds = Slice() if options.slice.is_one_key else options.slice
    redo = options.redo
    return PageQuery(
        spec=target.spec,
        target=target.name,
        fingerprint=fingerprint,
        above=bounds.above,
        upto=bounds.upto,
        limit=1,
        where=options.where,
        among=options.among,
        redo=redo,
        retry_failed=options.retry_failed,
        with_known=target.embedding is not None or target.message is not None,
        in_window=redo is not None
        and options.among is None
        and (redo.and_pending or redo.by in ("any", "unmade", "unsent")),
    )


def check_table(target: Target, facts: TableFacts) -> list[str]:
    """Refuses what cannot work before a cent is spent; returns what the operator should know."""
    spec = target.spec
    for name in (*spec.key, *spec.read, *spec.beside, *spec.cells, *spec.filters):
        if name not in facts.columns:
            raise Misconfigured(
                f"{spec.table} has no column {name}", fix=f"correct target {target.name} in catchup.toml"
            )
    if not any(set(unique) <= set(spec.key) for unique in facts.unique_keys):
        raise Misconfigured(
            f"{spec.table} has no unique key on ({', '.join(spec.key)})", fix="name the columns of its primary key"
        )
    blind = [name for name in (*spec.key, *spec.read, *spec.beside, *spec.cells) if not facts.columns[name].selectable]
    if blind:
        raise Misconfigured(
            f"role {facts.role} may not read {', '.join(blind)}", fix="grant SELECT, or use another key"
        )
    fixed = [name for name in spec.cells if not facts.columns[name].updatable]
    if fixed:
        raise Misconfigured(f"role {facts.role} may not update {', '.join(fixed)}", fix="grant UPDATE on these columns")
    if not facts.row_security or facts.bypasses_row_security:
        return []
    if spec.cells and not facts.has_update_policy:
        raise Misconfigured(
            f"row level security is on for {spec.table} and no policy lets role {facts.role} update it",
            fix="use the service_role key, or add a policy (`catchup migrate --print` shows one)",
        )
    return [f"row level security is on: only rows that its policies show to {facts.role} are seen"]


def say_filling(target: Target) -> str:
    """What is different about a target that is filled beside another one."""
    base, made = target.replaces, target.embedding
    assert base is not None, "only of a target that replaces another"  # noqa: S101
    assert made is not None, "only what is embedded is filled anew"  # noqa: S101
    return (
        f"every row of {target.spec.table} that {made.place} does not have yet is embedded into it; the flags and the "
        f"vectors of {base.name} stay as they are until the switch"
    )


def check_ledger(hello: Hello, target: Target) -> None:
    if hello.schema_version is None:
        raise Misconfigured("the ledger is not installed in this database", fix="run `catchup migrate` once")
    missing = [cell for cell in target.spec.cells if cell not in hello.registered_cells]
    if missing:
        raise Misconfigured(
            f"the ledger does not let target {target.name} write {', '.join(missing)}",
            fix="run `catchup migrate` again: it registers the cells of every target",
        )


@dataclass(slots=True)
class Opening:
    ledger: Ledger
    database: Database
    state: StateDir
    target: Target
    job_name: str
    fingerprint: str
    params: Mapping[str, Any]
    options: Options
    place: str
    lock: str = ""

    def hold(self) -> Home:
        """The local lock first: a second start on this host is refused in milliseconds, before any request."""
        slice_ = self.options.slice
        self.lock = lock_id(self.place, self.target.name, slice_.above, slice_.upto)
        home = self.state.home(self.lock)
        if not self.state.lock(self.lock):
            raise LeaseHeld(
                f"another run of {self.target.name} is working on this host",
                holder={},
                seconds_left=0.0,
                fix="let it finish, or stop it: `catchup runs list`",
            )
        return home

    async def earlier(self, home: Home) -> RunRecord | None:
        """The unfinished run this one continues; refuses where it was other work."""
        of = (self.target.name, self.options.slice, self.job_name)
        record = await self.database.insist(lambda: self.ledger.unfinished_run(*of))
        if record is None:
            return None
        is_repair = self.options.only is not None or record.params.get("redo") == ["any", ""]
        if record.fingerprint != self.fingerprint and not (self.options.fresh or is_repair):
            differs = self._differences(record)
            raise Misconfigured(
                f"run {record.run_id} of {self.target.name} is unfinished and was different: {differs}",
                fix="go on with the old settings, or give up its cursor with --fresh (nothing paid is lost)",
            )
        return record

    def _differences(self, record: RunRecord) -> str:
        names = [n for n in self.params if record.params.get(n) != self.params[n]]
        said = [f"{name} was {record.params.get(name)!r}, is {self.params[name]!r}" for name in names]
        return "; ".join(said) or "the target's parameters changed"

    def _check_journal(self, record: RunRecord, home: Home) -> None:
        path = self.state.journal_path(record.run_id)
        here = record.home_id == home.home_id
        if (path.exists() and here) or record.unconfirmed == 0 or self.options.abandon_journal:
            return
        where = "here, but its journal is missing" if here else f"on {record.home_host}"
        there = "with its journal" if here else f"on {record.home_host}"
        raise Misconfigured(
            f"run {record.run_id} was working {where}: up to {record.unconfirmed} answers worth "
            f"${record.unconfirmed_usd:.4f} are paid and not yet stored",
            fix=f"start it {there}, or pay for those again with --abandon-journal",
        )

    async def take(self, home: Home, record: RunRecord | None) -> Opened:
        """Takes the lease, then continues the earlier run or opens a new one."""
        run_id = record.run_id if record else secrets.token_hex(5)
        spec, slice_ = self.target.spec, self.options.slice
        lease = await self.database.insist(
            lambda: take_lease(
                self.ledger, self.state, target=self.target.name, spec=spec, slice_=slice_, run_id=run_id, home=home
            )
        )
        try:
            return await (self._begin(lease, home) if record is None else self._continue(lease, home, record))
        except CatchupError:
            await self.database.insist(lambda: self.ledger.release(lease))
            raise

    async def _continue(self, lease: Lease, home: Home, record: RunRecord) -> Opened:
        """Not before the lease: of a run that lives elsewhere, its holder is to be named and not its journal."""
        self._check_journal(record, home)
        journal = Journal(self.state.journal_path(record.run_id))
        past = journal.resume() if journal.path.exists() else None
        if past is None or not past.header:
            journal.create(self._header(record.run_id))
        else:
            check_header(past, self.place, self.target.name)
        reopened = await self.database.insist(lambda: self.ledger.reopen_run(record.run_id, home))
        return Opened(record.run_id, lease, reopened, journal, past, reopened.upper)

    async def _begin(self, lease: Lease, home: Home) -> Opened:
        spec, slice_, run_id = self.target.spec, self.options.slice, lease.run_id
        upper = await self.database.insist(lambda: self.ledger.upper(spec, slice_))
        await self.database.insist(
            lambda: self.ledger.open_run(
                run_id=run_id,
                job=self.job_name,
                target=self.target.name,
                fingerprint=self.fingerprint,
                params=self.params,
                slice_=slice_,
                home=home,
                upper=upper,
            )
        )
        journal = Journal(self.state.journal_path(run_id))
        journal.create(self._header(run_id))
        return Opened(run_id, lease, None, journal, None, upper)

    def _header(self, run_id: str) -> dict[str, Any]:
        return {"run": run_id, "target": self.target.name, "fingerprint": self.fingerprint, "place": self.place}


def check_header(past: Past, place: str, target: str) -> None:
    """A journal of another database or target is never replayed into this one."""
    of, at = past.header.get("target", target), past.header.get("place", place)
    if (of, at) != (target, place):
        raise Misconfigured(
            f"the journal belongs to {of} on {at}, not to {target} on {place}",
            fix="it was moved or copied; put it back, or set another CATCHUP_STATE_DIR",
        )
