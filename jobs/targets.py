"""What a job works on: a table, its cells, what pending means, the prompt and the model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from jobs.embedding import Embedding
from queries.errors import Misconfigured
from queries.table import UNARY, Condition, Joined, TableSpec

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_CONDITION = re.compile(
    r"\s*(?P<column>\S+)\s+(?P<op>is not null|is null|is not true|is true|=|<>|<|>)\s*(?P<value>.*?)\s*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Target:
    """One table as one job fills it. `cells` maps each cell to what goes in: answer, model, now or a literal.

    `is_first`: the one that is meant where several fit and none is named.
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
    is_first: bool = False

    @property
    def prompt_hash(self) -> str:
        said = self.embedding.describe(self.text) if self.embedding else self.prompt
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    def fingerprint(self, model: str, extra: Mapping[str, Any]) -> str:
        """Changes when the same row could get a different text: target, prompt, model, parameters."""
        facts: list[Any] = [asdict(self.spec), dict(self.cells), self.prompt, model, self.max_completion_tokens]
        facts += [asdict(self.embedding)] if self.embedding else []
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
    if not spec.cells or set(spec.cells) & set(spec.read):
        raise Misconfigured(
            f"target {target.name}: cells must exist and must not be read columns",
            fix="a cell that is also input would change its own guard",
        )
    return target


def with_overrides(base: Target, changes: Mapping[str, Any]) -> Target:
    """A target from catchup.toml over a default one (or over nothing: then every field must be given)."""
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
    names = ("job", "prompt", "model", "max_completion_tokens", "max_characters", "keep_provenance")
    plain = {name: changes[name] for name in names if name in changes}
    cells = dict(changes["cells"]) if "cells" in changes else base.cells
    text = tuple(changes["text"]) if "text" in changes else (base.text if "read" not in changes else spec.read)
    return check_names(replace(base, spec=spec, cells=cells, text=text, **plain))
