"""Derives sample.jsonl from the documentation strings of Python's own library: `python -m demo.derive`.

Sources are parsed, never imported. The same Python gives the same file; README.md says which one was used.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import inspect
import json
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

LIBRARY = Path(sysconfig.get_path("stdlib"))
SAMPLE = Path(__file__).with_name("sample.jsonl")
LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "turtledemo",
    "distutils",
    "ensurepip",
    "pydoc_data",
    "__pycache__",
}
CLEAN_ROWS, A_MODULE_AT_MOST = 285, 5
FIRST_DAY = datetime(2024, 1, 1, 9, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    module: str
    name: str
    text: str

    @property
    def title(self) -> str:
        return f"{self.name} in {self.module}" if self.name else f"The module {self.module}"


def main() -> None:
    entries = sorted(read_library(), key=lambda entry: hashlib.sha256(f"{entry.module}.{entry.name}".encode()).digest())
    rows = [*clean_rows(entries), *dirty_rows(entries)]
    rows.sort(key=lambda row: str(row["id"]))
    for n, row in enumerate(rows):
        row["published_at"] = (FIRST_DAY + timedelta(hours=29 * n)).isoformat()
    SAMPLE.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} rows, {SAMPLE.stat().st_size / 1000:.0f} kB")


def read_library() -> Iterator[Entry]:
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(LIBRARY).with_suffix("").parts
        if LEFT_OUT.intersection(parts) or any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        module = ".".join(part for part in parts if part != "__init__")
        tree = ast.parse(path.read_bytes())
        yield Entry(module, "", ast.get_docstring(tree) or "")
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                yield Entry(module, node.name, ast.get_docstring(node) or "")
                for inner in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(inner, ast.FunctionDef) and inner.name[0] != "_":
                        yield Entry(module, f"{node.name}.{inner.name}", ast.get_docstring(inner) or "")


def clean_rows(entries: list[Entry]) -> Iterator[dict[str, Any]]:
    """Prose of several sentences, few from each module, no text twice."""
    per_module: dict[str, int] = defaultdict(int)
    seen: set[str] = set()
    found = 0
    for entry in entries:
        prose = 250 <= len(entry.text) <= 2_500 and entry.text.count(". ") + entry.text.count(".\n") >= 2
        if found == CLEAN_ROWS or not prose or ">>>" in entry.text or entry.text in seen:
            continue
        if per_module[entry.module] < A_MODULE_AT_MOST:
            per_module[entry.module] += 1
            seen.add(entry.text)
            found += 1
            yield row(entry, entry.text)


def dirty_rows(entries: list[Entry]) -> Iterator[dict[str, Any]]:
    """What real tables hold too: nothing, next to nothing, the same twice, bytes, and far too much."""
    undocumented = [entry for entry in entries if not entry.text]
    for n, entry in enumerate(undocumented[:6]):
        yield row(entry, None if n % 2 else "")
    for entry in [entry for entry in entries if 0 < len(entry.text) < 40][:6]:
        yield row(entry, entry.text)
    for entry in [entry for entry in entries if 300 < len(entry.text) < 600 and ">>>" not in entry.text][-2:]:
        yield row(entry, entry.text)
        yield row(Entry(entry.module, f"{entry.name} (again)", entry.text), entry.text)
    code = compile(inspect.getsource(row), "row", "exec").co_code
    yield row(Entry("marshal", "compiled code", ""), (code * 20).decode("latin-1").replace("\0", "\x01"))
    yield row(Entry("base64", "an encoded file", ""), base64.b64encode(code * 30).decode())
    yield row(max(entries, key=lambda entry: len(entry.text)), max((entry.text for entry in entries), key=len)[:60_000])


def row(entry: Entry, description: str | None) -> dict[str, Any]:
    digest = hashlib.sha256(f"{entry.module}.{entry.name}".encode()).digest()
    channel = entry.module.split(".")[0]
    return {
        "id": base64.urlsafe_b64encode(digest).decode()[:11],
        "title": entry.title,
        "channel_id": "UC" + hashlib.sha256(channel.encode()).hexdigest()[:22],
        "channel_name": f"Python library: {channel}",
        "description": description,
    }


if __name__ == "__main__":
    main()
