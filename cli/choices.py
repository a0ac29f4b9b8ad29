"""From flags and settings to what the engine understands: options and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cli.flags import ReembedFlags, RunFlags, VectorFlags
from cli.providers import choose_store
from cli.settings import Settings
from cli.target_tables import TargetTable
from jobs.embedding import Embedding
from jobs.engine.choose import choose_target
from jobs.engine.job import Job
from jobs.engine.options import Options
from jobs.registry import find_jobs, load_all
from jobs.targets import Target, with_overrides
from queries.errors import Misconfigured
from queries.ledger import Ceilings
from queries.road import Road
from queries.table import Key, Redo, Slice, TableSpec

_VECTOR_KEYS = ("store", "dimensions")


def targets_of(job: Job, settings: Settings) -> dict[str, Target]:
    """The job's default targets as catchup.toml changes them, and the ones it adds."""
    found = {target.name: target for target in job.targets}
    for name, table in settings.targets.items():
        if name in found:
            found[name] = with_overrides(found[name], table.changes())
        elif _job_of(name, table) == job.name:
            found[name] = with_overrides(_blank(name, job, table), table.changes())
    return found


def _job_of(name: str, table: TargetTable) -> str:
    """Whose target this is: a name that no job knows would be left out by every one of them, without a word."""
    for job in load_all():
        if any(target.name == name for target in job.targets):
            return job.name
    if table.job not in find_jobs():
        said = "lacks job" if table.job is None else f"says job {table.job!r}, which does not exist"
        names = " or ".join(f'job = "{job}"' for job in find_jobs())
        raise Misconfigured(f"catchup.toml, [targets.{name}] {said}", fix=f"write {names}")
    return table.job


def _blank(name: str, job: Job, table: TargetTable) -> Target:
    given = table.changes()
    is_vectors = job.service == "embed"
    wanted = ["table", "key", "read", "cells", "pending", "model", *(_VECTOR_KEYS if is_vectors else ("prompt",))]
    if given.get("store") == "pinecone":
        wanted.append("index")
    missing = [field for field in wanted if field not in given]
    if missing:
        raise Misconfigured(
            f"catchup.toml, [targets.{name}] is new and lacks {', '.join(missing)}",
            fix=f"add them (docs/targets.md), or use the name of a default target: "
            f"{', '.join(target.name for target in job.targets)}",
        )
    blank = Target(name, job.name, TableSpec("", (), (), (), ()), {}, "", "", ())
    if not is_vectors:
        return blank
    return replace(blank, max_completion_tokens=0, embedding=Embedding(given["store"], given["dimensions"]))


async def pick_target(job: Job, settings: Settings, wanted: str | None, road: Road) -> Target:
    """--target by name; otherwise by the table's columns, an operator's own targets first."""
    known = targets_of(job, settings)
    if wanted is not None:
        if wanted not in known:
            raise Misconfigured(f"there is no target {wanted!r}", fix=f"known are {', '.join(known)}")
        return known[wanted]
    own = [target for name, target in known.items() if name in settings.targets]
    return await choose_target(own or list(known.values()), road)


def options_from(flags: RunFlags, settings: Settings, target: Target) -> Options:
    limits = settings.limits
    return Options(
        dry_run=flags.dry_run,
        yes=flags.yes,
        fresh=flags.fresh,
        limit=flags.limit,
        where=filters_from(flags, target),
        slice=_slice(flags, target),
        redo=_redo(flags, target),
        retry_failed=flags.retry_failed,
        abandon_journal=flags.abandon_journal,
        allow_triggers=tuple(flags.allow_triggers or ()),
        concurrency=flags.concurrency,
        max_per_min=flags.max_rate,
        db_load=flags.db_load or limits.db_load,
        ceilings=Ceilings(flags.max_cost or limits.max_cost_run, limits.max_cost_hour, limits.max_cost_day),
        max_runtime_s=flags.max_runtime,
        max_outage_s=flags.max_outage or limits.max_outage,
        grace_s=limits.grace,
        min_characters=limits.min_characters,
        min_words=limits.min_words,
        error_on_nothing=flags.error_on_nothing,
        **_vector_options(flags),
    )


def _vector_options(flags: RunFlags) -> dict[str, Any]:
    if not isinstance(flags, VectorFlags):
        return {}
    is_filled = isinstance(flags, ReembedFlags) and flags.reembed
    return {
        "create_namespace": flags.create_namespace or is_filled,
        "create_index": flags.create_index,
        "edited_if_small": flags.edited is None and not is_filled,
        "keep_answers_s": flags.keep_answers,
    }


def _redo(flags: RunFlags, target: Target) -> Redo | None:
    if target.replaces is not None:
        return Redo("unmade", target.model, target.prompt_hash)
    match flags.redo_where:
        case None:
            looks_for_edited = isinstance(flags, VectorFlags) and flags.edited is not False
            return Redo("edited", and_pending=True) if looks_for_edited else None
        case ("model" | "prompt" | "edited") as by, value:
            model_cell = next((cell for cell, source in target.cells.items() if source == "model"), "")
            return Redo(by, value, model_cell if by == "model" else "")
        case other:
            raise Misconfigured(f"--redo-where {other[0]} is unknown", fix="model=NAME, prompt=HASH or edited")


def filters_from(flags: RunFlags, target: Target) -> tuple[tuple[str, str], ...]:
    for column, _ in flags.where or ():
        if column not in target.spec.filters:
            raise Misconfigured(
                f"--where {column}: target {target.name} does not declare this column as a filter",
                fix=f"declared are {', '.join(target.spec.filters) or 'none'}; add it to filters in catchup.toml",
            )
    return tuple((column, value) for column, value in flags.where or ())


def _slice(flags: RunFlags, target: Target) -> Slice:
    if flags.slice is None:
        return Slice()
    low, high = (_key(text, target.spec.key) if text else None for text in flags.slice)
    return Slice(above=low, upto=high)


def _key(text: str, columns: Sequence[str]) -> Key:
    """A key of two columns is written `first,second`."""
    if len(columns) == 1:
        return (text,)
    first, comma, second = text.partition(",")
    if not comma:
        raise Misconfigured(f"--slice: {text!r} is no key of {', '.join(columns)}", fix="write first,second")
    return (first, second)


def as_asked(target: Target, flags: RunFlags, settings: Settings, kind: str) -> Target:
    """The target as the flags change it; with --reembed the one that is filled beside it."""
    if not isinstance(flags, ReembedFlags) or not _is_reembed(flags):
        return with_store(with_model(target, flags, settings), flags, kind)
    from jobs.reembed import Into, fill_beside

    base = with_store(target, flags, kind)
    made = fill_beside(base, Into(flags.into or "", flags.model, flags.dimensions, flags.index))
    if flags.index is not None and made.embedding is not None and made.embedding.into != "pinecone":
        raise Misconfigured("--index: these vectors do not go to Pinecone", fix="leave it out")
    is_other = base.embedding is not None and flags.index not in (None, base.embedding.index)
    if is_other and settings.pinecone_index_host is not None:
        raise Misconfigured(
            f"PINECONE_INDEX_HOST is the address of one index, and {flags.index} has another",
            fix="take it out of the environment and .env: Pinecone is then asked for the address by the name",
        )
    return made


def _is_reembed(flags: ReembedFlags) -> bool:
    """Half of what belongs together would be taken for the whole."""
    if not flags.reembed:
        names = ("into", "dimensions", "index", "switch", "delete_orphans", "accept_missing")
        alone = [name.replace("_", "-") for name in names if getattr(flags, name)]
        if alone:
            raise Misconfigured(f"--{alone[0]} means nothing without --reembed", fix="add --reembed, or leave it out")
        return False
    if not flags.into:
        raise Misconfigured("--reembed needs a place for the new vectors", fix="add --into NAMESPACE")
    if flags.redo_where is not None or flags.edited is not None:
        raise Misconfigured(
            "--reembed takes every row that the new place does not have", fix="leave out --redo-where and --edited"
        )
    if flags.accept_missing and not flags.switch:
        raise Misconfigured("--accept-missing is a word about --switch", fix="add --switch, or leave it out")
    if flags.switch and (flags.limit or flags.where or flags.slice):
        raise Misconfigured(
            "--switch is for a whole table, and this run is for a part of it",
            fix="leave out --limit, --where and --slice, or --switch",
        )
    return True


def with_model(target: Target, flags: RunFlags, settings: Settings) -> Target:
    """CATCHUP_MODEL is for those who write; the model of an embedding belongs to its namespace."""
    model = flags.model or (settings.model if target.embedding is None else None)
    return replace(target, model=model) if model else target


def with_store(target: Target, flags: RunFlags, kind: str) -> Target:
    return choose_store(target, flags.store if isinstance(flags, VectorFlags) else None, kind)
