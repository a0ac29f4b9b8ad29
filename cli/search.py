"""catchup search: the rows whose text is nearest to what is asked, out of the place that `vectorize` fills."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cli.flags import Pair, VectorFlags, WorldFlags, read_pair, takes
from cli.layout import Line, count
from cli.main import new_app
from cli.quantities import show_duration
from cli.report import write_json
from cli.untrusted import clean
from cli.visit import Place, show, visit

if TYPE_CHECKING:
    from jobs.engine.work import Work
    from jobs.search import Findings, Nearest

app = new_app("Find the rows whose text is nearest to what is asked.")
Text = Annotated[str, typer.Argument(metavar="TEXT", help="What to look for, in your own words.")]
_SNIPPET = 240


@dataclass(frozen=True, kw_only=True)
class SearchFlags(WorldFlags):
    target: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which target; picked by the table's columns if left out.")
    ] = None
    top: Annotated[int, typer.Option(min=1, max=100, help="How many rows, nearest first.")] = 10
    filter: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only rows with this value beside their vectors; repeatable."),
    ] = None
    store: Annotated[
        str | None, typer.Option(metavar="pinecone|pgvector", help="Where the vectors are, instead of the target's.")
    ] = None
    provider: Annotated[
        str | None, typer.Option(metavar="openai|local", help="Who embeds the question: as when they were stored.")
    ] = None
    model: Annotated[
        str | None, typer.Option(help="The model that they were stored with, instead of the target's.")
    ] = None
    price: Annotated[
        str | None, typer.Option(metavar="IN/OUT", help="US dollars per million tokens of this model.")
    ] = None


@app.command("search", epilog='Example: catchup search "how the harbour cranes were built" --top 5')
@takes(SearchFlags)
def search(text: Text, flags: SearchFlags) -> None:
    """Find the rows whose text is nearest to what is asked.

    Reads only. The question is embedded by the model that the vectors are of: one call, a few tokens."""
    from jobs.content import clean as storable

    asked, where = storable(text), _read_filter(flags)
    if not asked:
        raise typer.BadParameter("there is nothing in it to look for", param_hint="TEXT")
    started = time.monotonic()
    work, found = visit(flags, lambda place: _look(place, flags, asked, where), needs_ledger=True)
    if flags.json:
        _print_json(work, flags, found, time.monotonic() - started)
        return
    show(result_lines(found.nearest) or [Line("", _nothing(work, flags, found), "warn")])
    if flags.verbose:
        show([Line("", _effort(work, found, time.monotonic() - started), "dim")])


def _read_filter(flags: SearchFlags) -> tuple[Pair, ...]:
    try:
        return tuple(read_pair(text) for text in flags.filter or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--filter") from None


async def _look(place: Place, flags: SearchFlags, text: str, where: tuple[Pair, ...]) -> tuple[Work, Findings]:
    from cli.job_command import make_work
    from cli.view import open_view
    from jobs import search

    same = VectorFlags(**{name: getattr(flags, name) for name in _SAME}, edited=False)
    view = open_view(as_json=flags.json, quiet=True)
    work = await make_work("vectorize", same, _filling(flags), place.settings, view, place.road, place.choice.kind)
    try:
        return work, await search.search(work, search.Question(text, flags.top, where))
    finally:
        await work.service.close()
        if work.space is not None:
            await work.space.close()


_SAME = ("env_file", "local", "allow_host", "target", "store", "provider", "model", "price")


def _filling(flags: SearchFlags) -> str:
    """The command that fills the very place which is searched."""
    words = ["catchup", "vectorize"]
    for name in ("target", "store", "provider", "model", "price"):
        value = getattr(flags, name)
        words += [f"--{name}", value] if value else []
    if flags.local is not None:
        words.append("--local" if flags.local else "--no-local")
    return shlex.join(words)


def result_lines(nearest: tuple[Nearest, ...]) -> list[Line]:
    """Rank and score, the title, a snippet, and what the row can be found and filtered by."""
    lines = []
    for rank, row in enumerate(nearest, 1):
        lines.append(Line(f"{rank:>2}  {row.score:.3f}", clean(row.title or row.key)))
        if row.snippet and row.snippet != row.title:
            lines.append(Line(" ", clean(row.snippet, _SNIPPET)))
        others = [(name, value) for name, value in row.metadata.items() if value not in (row.title, row.snippet)]
        known_by = (row.key, *(f"{clean(name, 40)}={clean(value, 60)}" for name, value in others))
        lines.append(Line(" ", clean(" · ".join(known_by)), "dim"))
    return lines


def _nothing(work: Work, flags: SearchFlags, found: Findings) -> str:
    if found.is_empty:
        return f"nothing found: {clean(found.place)} holds no vectors yet; fill it: {work.command}"
    if flags.filter:
        said = ", ".join(clean(text, 80) for text in flags.filter)
        return f"nothing found: no vector of target {work.target.name} has {said}"
    return f"nothing found: no row of target {work.target.name} has a vector yet; fill them: {work.command}"


def _effort(work: Work, found: Findings, seconds: float) -> str:
    asked = f"one embedding of {count(found.tokens_in, 'token')} by {work.model}, ${found.usd:.8f}"
    return f"{asked if found.tokens_in else 'nothing was asked or paid'} · {found.place} · {show_duration(seconds)}"


def _print_json(work: Work, flags: SearchFlags, found: Findings, seconds: float) -> None:
    for rank, row in enumerate(found.nearest, 1):
        facts = {"id": row.id, "key": row.key, "score": row.score, "title": row.title, "snippet": row.snippet}
        write_json({"type": "match", "rank": rank, **facts, "metadata": dict(row.metadata)})
    summary = {"found": len(found.nearest), "target": work.target.name, "place": found.place, "model": work.model}
    paid = {"tokens_in": found.tokens_in, "cost_usd": found.usd, "seconds": round(seconds, 3)}
    text = "" if found.nearest else _nothing(work, flags, found)
    write_json({"type": "search", "exit": 0, **summary, **paid, "text": text})
