"""catchup vectorize --reembed: fills the new place, compares it with the table, and changes the configuration over."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.choices import targets_of
from cli.flags import ACCEPTED_MOST, ReembedFlags, RunFlags
from cli.job_command import finish, run_work
from cli.layout import count
from cli.providers import open_space
from cli.settings import Settings, load
from cli.toml_file import Draft, draft
from cli.verify import drop_orphans
from jobs.engine import fault_points
from jobs.engine.books import Books
from jobs.engine.opening import say_filling
from jobs.engine.options import Only
from jobs.engine.stop import explain
from jobs.engine.verdict import Exit, Verdict
from jobs.reembed import Beside, count_difference, name_difference
from queries.errors import CatchupError, Misconfigured
from queries.table import Redo

if TYPE_CHECKING:
    from cli.signals import Signals
    from cli.view import View
    from jobs.engine.verification import Difference
    from jobs.engine.work import Work
    from queries.table import Key

_ENDED = (Exit.DONE, Exit.NOTHING_TO_DO, Exit.SOME_NAMED)


async def reembed_to_verdict(work: Work, flags: RunFlags, view: View, signals: Signals) -> int:
    assert isinstance(flags, ReembedFlags)  # noqa: S101
    settings = load(os.environ, Path.cwd(), flags.env_file)
    assert work.target.replaces is not None  # noqa: S101
    left = open_space(settings, work.target.replaces, work.ledger.road, flags.allow_host or ())
    assert left is not None, "a target of a column is refused before"  # noqa: S101
    try:
        verdict = await _Reembedding(Beside(work, left), flags, settings, view, signals).go()
    finally:
        await left.close()
    finish(verdict, flags, view)
    return int(verdict.exit)


class _Reembedding:
    def __init__(self, beside: Beside, flags: ReembedFlags, settings: Settings, view: View, signals: Signals) -> None:
        self.beside, self.flags, self.settings = beside, flags, settings
        self.view, self.signals = view, signals
        self.work = beside.work
        self.place = beside.embeddings[0].place

    async def go(self) -> Verdict:
        early = await self._without_a_run()
        if early is not None:
            return early
        if self.flags.switch and not self.flags.dry_run:
            self._draft().discard()  # what cannot be written is refused before anything is paid
        verdict = await run_work(self.work, self.view, self.signals)
        if self.flags.dry_run or verdict.exit not in _ENDED:
            return verdict
        if verdict.books.failed and not self.flags.accept_missing:
            return self._held_up(verdict)
        if verdict.pending_beyond or self.flags.limit or self.flags.where or self.flags.slice:
            note = "a part of the table is done: it is compared and switched by the run for all of it"
            return replace(verdict, notes=(*verdict.notes, note))
        try:
            return await self._conclude(verdict)
        except CatchupError as error:
            reason = explain(error)
            said = f"{self.place} is filled and was not switched to: {error.what}"
            return replace(verdict, exit=reason.exit, headline=said, fix=error.fix, next_command=self._command())

    async def _without_a_run(self) -> Verdict | None:
        """Nothing to do at all, or only what a kill left undone between the ledger and the file."""
        work, beside = self.work, self.beside
        if (await work.ledger.hello()).schema_version is None:
            return None
        if beside.is_there:
            if await beside.is_by_hand():
                raise Misconfigured(
                    f"catchup.toml names {self.place}, and by the ledger {beside.base.name} has not gone there",
                    fix="set it back to the place it names in git or in your backup, then --switch",
                )
            return self._said(f"nothing to do: {beside.base.name} is in {self.place}, with {work.model}")
        if not await beside.is_switched():
            return None
        if self.flags.dry_run or not self.flags.switch:
            said = f"the ledger has gone over to {self.place}, and catchup.toml has not: a switch was cut off"
            return replace(self._said(said), exit=Exit.REFUSED, next_command=self._command(switch=True))
        self._draft().publish()
        return self._switched(self._said(""))

    async def _conclude(self, verdict: Verdict) -> Verdict:
        found = await self.beside.find_difference()
        failed = _name_failed(verdict)
        again = replace(found.to_repair(adopt=True), free=frozenset())  # of unknown making: embedded, not trusted
        again = replace(again, keys=frozenset(key for key in again.keys if " ".join(key) not in failed))
        if again.keys:
            self.view.say(
                f"{count(len(again.keys), 'row')} differ from {self.place}: edited meanwhile, or lost there; once more"
            )
            before = tuple(named for named in verdict.named if named.key in failed)
            verdict = await self._run_again(verdict, again)
            verdict = replace(verdict, named=(*before, *verdict.named))
            if verdict.exit not in _ENDED:
                return verdict
            if verdict.books.failed and not self.flags.accept_missing:
                return self._held_up(verdict)
            failed |= _name_failed(verdict)
            found = await self.beside.find_difference()
        if found.orphans and self.flags.delete_orphans:
            await drop_orphans(self.work, self.view, self.signals, found, strangers=False)
            found.orphans = sorted(found.strangers)
        facts = {"rows": found.rows, "vectors": found.vectors, "good": found.good}
        verdict = replace(verdict, facts={**verdict.facts, "compared": facts})
        without = self._accept(found, failed)
        if count_difference(found) > len(without):
            return self._differs(verdict, found)
        filled = (
            f"{self.place} is filled: {found.good:,} of {found.rows:,} rows have their vector there, {_say_rest(found)}"
        )
        if not self.flags.switch:
            return replace(verdict, exit=Exit.DONE, headline=filled, next_command=self._command(switch=True))
        await self._switch()
        if without:
            filled += f"; {count(len(without), 'row')} failed and {'has' if len(without) == 1 else 'have'} none there"
        exit_ = Exit.SOME_NAMED if without else Exit.DONE
        return self._switched(replace(verdict, exit=exit_, headline=filled))

    def _accept(self, found: Difference, failed: Collection[str]) -> list[Key]:
        """Rows that the operator lets go without a vector: so few, and each of them because it failed."""
        most = self.flags.accept_missing or 0
        if not self.flags.switch or len(found.missing) > most or any(" ".join(k) not in failed for k in found.missing):
            return []
        return found.missing

    def _held_up(self, verdict: Verdict) -> Verdict:
        """A row that fails every time must not keep the new place from being used for ever; nor go without a word."""
        failed = verdict.books.failed.total()
        if failed > ACCEPTED_MOST or self.flags.limit or self.flags.where or self.flags.slice:
            return verdict
        fix = (
            f"correct {'this row' if failed == 1 else 'these rows'}, or go over without: "
            f"--switch --accept-missing {failed}"
        )
        return replace(verdict, fix=fix)

    async def _run_again(self, first: Verdict, again: Only) -> Verdict:
        """Under what is left of the ceiling; the first verdict is shown, since the second one is of other rows."""
        finish(first, self.flags, self.view)
        options = self.work.options
        ceilings = options.ceilings
        if ceilings.run_usd is not None:
            spent = first.money.actual_usd + first.money.possibly_usd
            ceilings = replace(ceilings, run_usd=max(0.0, ceilings.run_usd - spent))
        options = replace(options, only=again, redo=Redo("any"), ceilings=ceilings, retry_failed=True)
        return await run_work(replace(self.work, options=options), self.view, self.signals)

    def _differs(self, verdict: Verdict, found: Difference) -> Verdict:
        only_orphans = count_difference(found) == len(found.orphans)
        command = self._command() + (" --delete-orphans" if only_orphans and not self.flags.delete_orphans else "")
        differences = count(count_difference(found), "difference")
        said = f"filled, and not the same: {differences} between {self.place} and the table"
        named = (*verdict.named, *name_difference(found))
        return replace(verdict, exit=Exit.SOME_NAMED, headline=said, named=named, next_command=command)

    async def _switch(self) -> None:
        """The file is on disk before the ledger moves, so that one rename is all that can be missing."""
        prepared = self._draft()
        try:
            await self.beside.switch()
            fault_points.reach("switch.ledger")
        except BaseException:
            prepared.discard()
            raise
        prepared.publish()

    def _switched(self, verdict: Verdict) -> Verdict:
        base, path, old = self.beside.base, self._path(), self.beside.embeddings[1]
        said = "; ".join(f"{name} = {value}" for name, value in self._values().items())
        back = f"{_back_command(self.work, self.flags)} --switch"
        notes = (
            *(note for note in verdict.notes if note != say_filling(self.work.target)),
            f"changed in {path}: [targets.{base.name}] {said}. Where else this target runs, its file needs the same",
            f"the vectors in {old.place} were not touched. The way back embeds only what was edited since: {back}",
        )
        if self.beside.embeddings[0].into == "pgvector":
            notes = (*notes, f"the HNSW index of the new space, if you want one: catchup index {base.name}")
        switched = f"{base.name} is switched to {self.place}"
        headline = f"{verdict.headline}; {switched}" if verdict.headline else switched
        follow = shlex.join(["catchup", "vectorize", "--target", base.name, *_same_words(self.flags)])
        facts = {**verdict.facts, "switched": dict(self._values()), "file": str(path)}
        return replace(verdict, headline=headline, notes=notes, next_command=follow, facts=facts)

    def _said(self, headline: str) -> Verdict:
        """A verdict without a run."""
        work = self.work
        where = work.ledger.road.where
        return Verdict("", work.job.name, self.beside.base.name, work.model, where, Exit.DONE, headline, Books())

    def _path(self) -> Path:
        return self.settings.toml_file or Path.cwd() / "catchup.toml"

    def _draft(self) -> Draft:
        return draft(self._path(), self.beside.base.name, self._values())

    def _values(self) -> dict[str, str | int]:
        """What the next run without a flag must find. The local model is nobody's configuration: --local implies it."""
        made, old = self.beside.embeddings
        values: dict[str, str | int] = {"namespace": made.namespace}
        if made.index != old.index:
            values["index"] = made.index
        configured = targets_of(self.work.job, self.settings)[self.beside.base.name].embedding
        if self.flags.store is not None and configured is not None and configured.into != made.into:
            values["store"] = made.into
        if not self.work.service.is_local:
            values |= {"model": self.work.model, "dimensions": made.dimensions}
        return values

    def _command(self, *, switch: bool = False) -> str:
        command = self.work.command.replace(" --dry-run", "")
        return f"{command} --switch" if switch and not self.flags.switch else command


def _name_failed(verdict: Verdict) -> set[str]:
    return {named.key for named in verdict.named if named.state == "failed"}


def _say_rest(found: Difference) -> str:
    """The rest of the rows, so that the sum is seen to be right."""
    rest = sum(found.not_wanted.values())
    said = ", ".join(f"{number:,} {reason}" for reason, number in sorted(found.not_wanted.items()))
    return f"{rest:,} have nothing to embed ({said})" if rest else "and nothing differs"


def _back_command(work: Work, flags: ReembedFlags) -> str:
    base = work.target.replaces
    assert base is not None  # noqa: S101
    assert base.embedding is not None  # noqa: S101
    old, made = base.embedding, work.target.embedding
    default = base.name if old.into == "pgvector" else "__default__"
    words = ["catchup", "vectorize", "--target", base.name, "--reembed", "--into", old.namespace or default]
    if not work.service.is_local:
        words += ["--model", base.model, "--dimensions", str(old.dimensions)]
    if made is not None and made.index != old.index:
        words += ["--index", old.index]
    return shlex.join([*words, *_same_words(flags)])


def _same_words(flags: ReembedFlags) -> list[str]:
    words = []
    for name in ("provider", "store"):
        value = getattr(flags, name)
        words += [f"--{name}", value] if value else []
    if flags.local is not None:
        words.append("--local" if flags.local else "--no-local")
    return words
