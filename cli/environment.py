"""Where settings come from: the process's environment, then one .env file, then catchup.toml. Never a parent's."""

from __future__ import annotations

import io
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from queries.errors import Misconfigured


@dataclass(slots=True)
class Sources:
    """Raw values with the place each came from, and what was wrong with the places themselves."""

    values: dict[str, str] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    env_file: Path | None = None
    toml_file: Path | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def gather(environ: Mapping[str, str], directory: Path, env_file: Path | None) -> Sources:
    """Reads all three; an empty environment variable is no value and does not hide the file's."""
    found = Sources()
    path = env_file or directory / ".env"
    if env_file is not None and not path.is_file():
        raise Misconfigured(f"there is no file {path}", fix="give --env-file an existing file")
    if path.is_file():
        found.env_file = path
        _read_env_file(path, found)
    for name, value in environ.items():
        if value.strip():
            found.values[name], found.origin[name] = value, "environment"
    _read_toml(directory / "catchup.toml", found)
    return found


def _read_env_file(path: Path, found: Sources) -> None:
    from dotenv.parser import parse_stream

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        found.problems.append(f"{path}: cannot be read ({error}); save it as UTF-8 and make it yours")
        return
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        found.warnings.append(f"{path} can be read by others on this machine: chmod 600 {path}")
    for line in parse_stream(io.StringIO(text)):
        # A parser that only warns would drop the key, and the run would go to another project.
        if line.error or (line.key and line.value is None):
            found.problems.append(f"{path}, line {line.original.line}: not NAME=value; close its quotes or delete it")
        elif line.key and line.value and line.value.strip():
            found.values[line.key], found.origin[line.key] = line.value, path.name


def _read_toml(path: Path, found: Sources) -> None:
    if not path.is_file():
        return
    found.toml_file = path
    try:
        found.tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        found.problems.append(f"{path}: cannot be read ({error}); mend that line")
