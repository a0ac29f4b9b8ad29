"""`make docs`: writes the parts of README.md that come from the program itself. tests/test_docs.py compares them."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import typer

from cli.main import COMMANDS, app
from cli.report import MEANINGS
from jobs.registry import find_jobs

README = Path(__file__).resolve().parent.parent / "README.md"
_WIDTH = 96


def reference() -> str:
    """Every command's help, as it is printed."""
    command = typer.main.get_command(app)
    parts = []
    for name in (*find_jobs(), *COMMANDS):
        loaded: Any = command.commands[name]  # type: ignore[attr-defined]  # a group
        for words in [[name, inner] for inner in getattr(loaded, "commands", {})] or [[name]]:
            parts.append(f"### catchup {' '.join(words)}\n\n```\n{_help(command, words)}\n```")
    return "\n\n".join(parts)


def _help(command: Any, words: list[str]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        command.main([*words, "--help"], prog_name="catchup", standalone_mode=False, terminal_width=_WIDTH)
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())


def exit_codes() -> str:
    rows = [f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def filled(text: str) -> str:
    """The page with its generated parts made anew between their markers."""
    for name, part in (("commands", reference()), ("exit codes", exit_codes())):
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            sys.exit(f"README.md needs {begin} and {end} once")
        text = pattern.sub(lambda _, whole=f"{begin}\n{part}\n{end}": whole, text)
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
