"""The options commands share, as dataclasses, and what each value means."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

import typer

from cli import quantities

ACCEPTED_MOST = 100
"""Rows without a vector that --switch may leave behind: more are no exceptions, and could not all be named."""

Flags = TypeVar("Flags")


class Pair(NamedTuple):
    """KEY=VALUE, LOW..HIGH or WHAT=VALUE, split where it is written."""

    first: str
    second: str


def takes(flags: type[Flags]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command one argument `flags`, and Typer the options that fill it; further arguments stay its own."""

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(flags, include_extras=True)
        own = [item for item in inspect.signature(command, eval_str=True).parameters.values() if item.name != "flags"]
        shared = []
        for field in fields(flags):  # type: ignore[arg-type]  # every Flags is a dataclass
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            shared.append(_keyword(field.name, hints[field.name], default))
        names = {item.name for item in shared}

        def filled(**values: Any) -> None:
            mine = {name: value for name, value in values.items() if name not in names}
            command(flags=flags(**{name: values[name] for name in names}), **mine)

        mine = [_keyword(item.name, item.annotation, item.default) for item in own]
        filled.__signature__ = inspect.Signature([*mine, *shared])  # type: ignore[attr-defined]  # read by inspect
        filled.__annotations__ = {item.name: item.annotation for item in [*mine, *shared]}
        filled.__name__, filled.__doc__, filled.__module__ = command.__name__, command.__doc__, command.__module__
        return filled

    return wrap


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _as_flag(read: Callable[[str], Any]) -> Callable[[Any], Any]:
    """A sentence of ours becomes a usage error of the command line's."""

    def parse(text: Any) -> Any:
        try:
            return read(text) if isinstance(text, str) else text
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parse


def read_pair(text: str) -> Pair:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"{text!r} is not KEY=VALUE")
    return Pair(name.strip(), value)


def read_workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise ValueError(f"{text!r} is neither `auto` nor a number from 1 to 10000")
    return int(text)


def read_range(text: str) -> Pair:
    low, dots, high = text.partition("..")
    if not dots or not (low or high):
        raise ValueError(f"{text!r} is not LOW..HIGH; leave out one side for an open range")
    return Pair(low, high)


def read_redo(text: str) -> Pair:
    by, _, value = text.partition("=")
    if by not in ("model", "prompt", "edited") or (by != "edited") != bool(value):
        raise ValueError(f"{text!r} is none of model=NAME, prompt=HASH, edited")
    return Pair(by, value)


def read_price(text: str) -> str:
    both = text.split("/")
    if len(both) != 2 or not all(part.replace(".", "", 1).isdigit() for part in both):
        raise ValueError(f"{text!r} is not IN/OUT in US dollars per million tokens, such as 0.15/0.60")
    return text


def option(*names: str, read: Callable[[str], Any] | None = None, **settings: Any) -> Any:
    if read is not None:
        settings["parser"] = _as_flag(read)
    return typer.Option(*names, show_default=settings.pop("show_default", False), **settings)


@dataclass(frozen=True, kw_only=True)
class WorldFlags:
    """Which settings, which database, how much is said."""

    env_file: Annotated[Path | None, option(help="Read this file instead of ./.env.")] = None
    local: Annotated[
        bool | None,
        option("--local/--no-local", help="Use the embedded PostgreSQL and the local provider; no account needed."),
    ] = None
    allow_host: Annotated[list[str] | None, option(metavar="HOST", help="Send keys to this host too; repeatable.")] = (
        None
    )
    json: Annotated[bool, option("--json", help="One JSON object a line on stdout, the verdict last.")] = False
    quiet: Annotated[bool, option("--quiet", "-q", help="Show the result only.")] = False
    verbose: Annotated[
        bool, option("--verbose", "-v", help="Say which files, keys and hosts are used; plain progress every 5 s.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class RunFlags(WorldFlags):
    """Everything that says how one run goes."""

    target: Annotated[
        str | None, option(metavar="NAME", help="Which target; picked by the table's columns if left out.")
    ] = None
    limit: Annotated[int | None, option(min=1, help="Admit at most this many rows.")] = None
    where: Annotated[
        list[Pair] | None,
        option(read=read_pair, metavar="KEY=VALUE", help="Only rows with this value in a declared filter column."),
    ] = None
    slice: Annotated[
        Pair | None,
        option(read=read_range, metavar="LOW..HIGH", help="Only keys above LOW up to HIGH; either may be left out."),
    ] = None
    retry_failed: Annotated[bool, option("--retry-failed", help="Take rows that failed or were skipped again.")] = False
    redo_where: Annotated[
        Pair | None,
        option(read=read_redo, metavar="WHAT", help="Redo filled rows: model=NAME, prompt=HASH or edited."),
    ] = None
    dry_run: Annotated[bool, option("--dry-run", help="Show the plan and its cost; write nothing.")] = False
    yes: Annotated[bool, option("--yes", "-y", help="Answer the question about size with yes.")] = False
    max_cost: Annotated[
        float | None,
        option(read=quantities.read_usd, metavar="USD", help="Ceiling of this run for paid calls to the provider."),
    ] = None
    max_runtime: Annotated[
        float | None,
        option(read=quantities.read_duration_s, metavar="TIME", help="Stop in time by itself: 30s, 10m, 2h (exit 4)."),
    ] = None
    max_outage: Annotated[
        float | None,
        option(read=quantities.read_duration_s, metavar="TIME", help="Give up after an outage this long (10m)."),
    ] = None
    concurrency: Annotated[
        int | None, option(read=read_workers, metavar="auto|N", help="Parallel calls; auto follows the limits.")
    ] = None
    max_rate: Annotated[
        int | None, option(min=1, metavar="N", help="At most this many calls a minute; limits are learned anyway.")
    ] = None
    db_load: Annotated[
        float | None,
        option(
            read=quantities.read_share, metavar="SHARE", help="Share of time the database may be busy with us (25%)."
        ),
    ] = None
    fresh: Annotated[bool, option("--fresh", help="Start at the first row again; verdicts and budget are kept.")] = (
        False
    )
    model: Annotated[str | None, option(help="Use this model instead of the target's.")] = None
    price: Annotated[
        str | None, option(read=read_price, metavar="IN/OUT", help="US dollars per million tokens of this model.")
    ] = None
    provider: Annotated[
        str | None, option(metavar="openai|local", help="Who writes; local outside --local only when said here.")
    ] = None
    allow_triggers: Annotated[
        list[str] | None, option(metavar="NAME", help="Accept this new trigger on the table; repeatable.")
    ] = None
    abandon_journal: Annotated[
        bool,
        option(
            "--abandon-journal", help="Resume without the other host's journal; its unconfirmed rows are paid again."
        ),
    ] = False
    error_on_nothing: Annotated[bool, option("--error-on-nothing", help="Exit 9 when there was nothing to do.")] = False


@dataclass(frozen=True, kw_only=True)
class VectorFlags(RunFlags):
    """What only jobs that store vectors ask."""

    edited: Annotated[
        bool | None,
        option(
            "--edited/--pending-only",
            help="Also rows whose text changed since: reads the whole table. Default: up to 200,000 rows.",
        ),
    ] = None
    store: Annotated[
        str | None, option(metavar="pinecone|pgvector", help="Where vectors go, instead of what the target says.")
    ] = None
    keep_answers: Annotated[
        float | None,
        option(
            read=quantities.read_duration_s,
            metavar="TIME",
            help="Keep paid vectors on disk this long, such as 7d, for repairs; else not at all.",
        ),
    ] = None
    create_namespace: Annotated[bool, option("--create-namespace", help="The namespace is meant to be new.")] = False
    create_index: Annotated[bool, option("--create-index", help="Make the index too; a new one is empty.")] = False


@dataclass(frozen=True, kw_only=True)
class ReembedFlags(VectorFlags):
    """Changing the model: all vectors once more, elsewhere."""

    reembed: Annotated[
        bool, option("--reembed", help="Embed every row again into the place of --into, while the old one serves.")
    ] = False
    into: Annotated[
        str | None, option(metavar="NAMESPACE", help="The new namespace; the model belongs to it. With --reembed.")
    ] = None
    dimensions: Annotated[int | None, option(min=1, metavar="N", help="Of the new vectors. With --reembed.")] = None
    index: Annotated[
        str | None,
        option(metavar="NAME", help="The new namespace is in this Pinecone index: each has one dimension. --reembed."),
    ] = None
    switch: Annotated[
        bool, option("--switch", help="When all are there, change catchup.toml over to the new place. With --reembed.")
    ] = False
    delete_orphans: Annotated[
        bool, option("--delete-orphans", help="Delete vectors there that no row wants. With --reembed.")
    ] = False
    accept_missing: Annotated[
        int | None,
        option(
            min=1,
            max=ACCEPTED_MOST,
            metavar="N",
            help="Switch though up to N rows failed and have no vector there; they are named. With --switch.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class VerifyFlags(VectorFlags):
    """What is done about a difference."""

    repair: Annotated[
        bool, option("--repair", help="Embed what is missing or stale and set wrong flags right; the price is shown.")
    ] = False
    adopt: Annotated[
        bool,
        option(
            "--adopt", help="Take vectors that the ledger does not know for ours: rows are marked, orphans deleted."
        ),
    ] = False
    delete_orphans: Annotated[
        bool, option("--delete-orphans", help="Delete vectors that no row wants; only with --repair.")
    ] = False
    out: Annotated[Path | None, option(metavar="FOLDER", help="Write the keys of each kind to a file there.")] = None
