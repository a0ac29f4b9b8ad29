"""What a job works on: a table, its cells, what pending means, the prompt and the model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from jobs.embedding import ONLY_VECTORS, Embedding, embedding_with
from jobs.messages import MessageLayout
from queries.errors import Misconfigured
from queries.table import UNARY, Condition, Joined, TableSpec, ViewTables

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
ONLY_TEXTS = ("prompt", "max_completion_tokens", "max_characters", "image", "detail")
ONLY_VIEWS = ("snapshots", "priorities", "published")
_CONDITION = re.compile(
    r"\s*(?P<column>\S+)\s+(?P<op>is not null|is null|is not true|is true|=|<>|<|>)\s*(?P<value>.*?)\s*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Target:
    """One table as one job fills it. `cells` maps each cell to what goes in: answer, model, now or a literal.

    `parts` are those of an answer that has several: a cell takes one as `answer.NAME`. `image` is the column with the
    address of a picture, shown to the model in this `detail`; empty: none is.
    `is_first`: the one that is meant where several fit and none is named. `replaces`: the target that this one is to
    become, whose place it has none of. `message`: what is sent for a row, where sending is all that is done. `views`:
    the tables beside this one, where counts are kept.
    """

    name: str
    job: str
    spec: TableSpec
    cells: Mapping[str, str]
    prompt: str
    model: str
    text: tuple[str, ...]
    max_completion_tokens: int = 160
    max_characters: int = 2_000
    keep_provenance: bool = True
    embedding: Embedding | None = None
    parts: tuple[str, ...] = ()
    image: str = ""
    detail: str = "low"
    is_first: bool = False
    replaces: Target | None = None
    message: MessageLayout | None = None
    views: ViewTables | None = None

    @property
    def prompt_hash(self) -> str:
        said = self.embedding.describe(self.text) if self.embedding else self.prompt
        said = self.message.describe() if self.message else said
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    def fingerprint(self, model: str, extra: Mapping[str, Any]) -> str:
        """Changes when the same row could get a different text: target, prompt, model, parameters."""
        facts: list[Any] = [asdict(self.spec), dict(self.cells), self.prompt, model, self.max_completion_tokens]
        facts += [asdict(self.embedding)] if self.embedding else []
        facts += [self.image, self.detail] if self.image else []
        facts += [self.message.describe()] if self.message else []
        facts += [asdict(self.views)] if self.views else []
        facts.append(dict(extra))
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def parse_condition(text: str) -> Condition:
    """Reads `column is null`, `status = READY` and the like; anything else is refused, never pasted into SQL."""
    match = _CONDITION.fullmatch(text)
    if match is None or not NAME.fullmatch(match["column"]):
        raise Misconfigured(
            f"pending condition {text!r} is not understood",
            fix="write `column is null`, `is not null`, `is true`, `is not true`, or `column = value` (also <>, <, >)",
        )
    op = match["op"].lower()
    unary = op in UNARY
    if unary == bool(match["value"]):
        raise Misconfigured(f"pending condition {text!r} has {'a' if unary else 'no'} value", fix="see docs/targets.md")
    return Condition(match["column"], op, None if unary else match["value"])  # type: ignore[arg-type]  # op is matched


def check_names(target: Target) -> Target:
    """Refuses any name that could mean something else in SQL or a URL, before a request is made."""
    spec = target.spec
    names = [spec.schema, spec.table, *spec.key, *spec.read, *spec.beside, *spec.cells, *spec.filters, *target.text]
    names += [condition.column for condition in spec.pending]
    names += [target.image] if target.image else []
    names += asdict(target.views).values() if target.views else []
    if spec.joined:
        names += [spec.joined.table, spec.joined.on, spec.joined.order_by, *spec.joined.columns]
    for name in names:
        if not NAME.fullmatch(name):
            raise Misconfigured(
                f"target {target.name}: {name!r} is not a plain SQL name",
                fix="names match [A-Za-z_][A-Za-z0-9_]{0,62}; give the schema in its own field",
            )
    if not 1 <= len(spec.key) <= 2:
        raise Misconfigured(f"target {target.name}: a key has one or two columns", fix="name the table's unique key")
    is_written = target.message is None
    if (is_written and not spec.cells) or set(spec.cells) & set(spec.read):
        raise Misconfigured(
            f"target {target.name}: cells must exist and must not be read columns",
            fix="a cell that is also input would change its own guard",
        )
    unknown = [text for text in target.cells.values() if _is_no_part(text, target)]
    if unknown:
        raise Misconfigured(
            f"target {target.name}: no answer of {target.job or 'its job'} has {', '.join(unknown)}",
            fix=f"it has {', '.join(['answer', *(f'answer.{name}' for name in target.parts)])}",
        )
    return target


def _is_no_part(source: str, target: Target) -> bool:
    """A name that the answer does not have would be written into the cell as it stands."""
    return source.startswith("answer.") and source.removeprefix("answer.") not in target.parts


def with_overrides(base: Target, changes: Mapping[str, Any]) -> Target:
    """A target from catchup.toml over a default one (or over nothing: then every field must be given)."""
    _refuse_foreign(base, changes)
    spec = base.spec
    spec_changes = {name: changes[name] for name in ("table", "schema") if name in changes}
    for name in ("key", "read", "beside", "filters"):
        if name in changes:
            spec_changes[name] = tuple(changes[name])
    if "pending" in changes:
        spec_changes["pending"] = tuple(parse_condition(text) for text in changes["pending"])
    if "cells" in changes:
        spec_changes["cells"] = tuple(changes["cells"])
    if "joined" in changes:
        joined = changes["joined"]
        spec_changes["joined"] = Joined(joined["table"], joined["on"], tuple(joined["columns"]), joined["order_by"])
    spec = replace(spec, **spec_changes)
    names = ("prompt", "model", "max_completion_tokens", "max_characters", "keep_provenance", "image", "detail")
    plain = {name: changes[name] for name in names if name in changes}
    cells = dict(changes["cells"]) if "cells" in changes else base.cells
    text = tuple(changes["text"]) if "text" in changes else (base.text if "read" not in changes else spec.read)
    tables = {name: changes[name] for name in ONLY_VIEWS if name in changes}
    views = replace(base.views, **tables) if base.views is not None else None
    embedding = None if base.embedding is None else embedding_with(base.embedding, changes)
    made = replace(base, spec=spec, cells=cells, text=text, embedding=embedding, views=views, **plain)
    return check_names(made if embedding is None else check_embedding(_read_metadata(made, embedding), embedding))


def _refuse_foreign(base: Target, changes: Mapping[str, Any]) -> None:
    """A key that the job does not look at would be believed to do something."""
    if changes.get("job", base.job) != base.job:
        raise Misconfigured(
            f"[targets.{base.name}] says job {changes['job']!r}, and {base.name} is a default target of {base.job}",
            fix="give your target another name",
        )
    foreign = ONLY_TEXTS if base.embedding is not None else ONLY_VECTORS
    foreign = (*foreign, *(ONLY_VIEWS if base.views is None else ONLY_TEXTS))
    found = [name for name in dict.fromkeys(foreign) if name in changes]
    if found:
        raise Misconfigured(
            f"[targets.{base.name}] has {', '.join(found)}, which mean nothing to {base.job}", fix="take them out"
        )


def _read_metadata(target: Target, embedding: Embedding) -> Target:
    """What is kept beside a vector must be read with the row."""
    spec = target.spec
    more = tuple(dict.fromkeys(c for c in embedding.metadata.values() if c not in (*spec.read, *spec.beside)))
    return replace(target, spec=replace(spec, beside=(*spec.beside, *more))) if more else target


def check_embedding(target: Target, embedding: Embedding) -> Target:
    """Everything that cannot work between the fields of a vectorize target, in one refusal."""
    wrong = [*embedding.find_wrong(), *_find_wrong_columns(target, embedding)]
    if wrong:
        raise Misconfigured(f"[targets.{target.name}]: " + "; ".join(wrong), fix="see docs/targets.md for examples")
    return target


def _find_wrong_columns(target: Target, embedding: Embedding) -> Iterator[str]:
    spec, is_segments = target.spec, embedding.chunking.kind == "segments"
    answers = [cell for cell, source in target.cells.items() if source == "answer"]
    if embedding.into == "column" and answers != list(target.cells)[:1]:
        yield 'cells: the column of the vector comes first and is the only "answer"'
    if embedding.into != "column" and answers:
        yield f'cells: vectors go to {embedding.into}, so {", ".join(answers)} cannot be "answer"; a flag is "true"'
    unread = [name for name in target.text if name not in spec.read]
    if unread:
        yield f"text: {', '.join(unread)} is not among read, so an edit of it would go unseen"
    if spec.joined and not is_segments:
        yield 'joined: rows of another table are embedded by chunks of kind "segments" only'
    if is_segments and spec.joined and len(spec.joined.columns) != 3:
        yield "joined: columns are three for segments, in this order: start, end, text"
    if is_segments and not spec.joined and len(target.text) != 1:
        yield "text: segments come from one column, or from joined rows"
