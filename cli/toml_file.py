"""catchup.toml changed by a command: a few keys of one target. Comments, order and everything else stay as they are."""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from queries.errors import Misconfigured

Values = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Draft:
    """The whole new file, beside the old one and on disk: all that is left is one rename."""

    path: Path
    beside: Path

    def publish(self) -> None:
        self.beside.replace(self.path)

    def discard(self) -> None:
        with suppress(OSError):
            self.beside.unlink()


def draft(path: Path, target: str, values: Values) -> Draft:
    """Refuses where the file cannot be written, or would not say exactly what is meant."""
    path = path.resolve()  # a link stays a link
    beside = path.with_name(f".{path.name}.new")
    try:
        old = path.read_bytes().decode("utf-8-sig") if path.exists() else ""
        new = change(old, target, values)
        with beside.open("wb") as file:
            file.write(new.encode())
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, beside)
    except OSError as error:
        Draft(path, beside).discard()
        raise Misconfigured(
            f"{path} cannot be written: {error.strerror}", fix="make it and its folder yours, or free space"
        ) from error
    return Draft(path, beside)


def change(text: str, target: str, values: Values) -> str:
    """The same text with these keys in [targets.NAME]."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        if "targets" not in document:
            document["targets"] = tomlkit.table(is_super_table=True)
        targets = document["targets"]
        if target not in targets:
            targets[target] = tomlkit.table()
        for name, value in values.items():
            targets[target][name] = value
        new = tomlkit.dumps(document)
        if "\r\n" in text:  # an editor of Windows; ours are the only lines without
            new = new.replace("\r\n", "\n").replace("\n", "\r\n")
        wanted = tomllib.loads(text)
        wanted.setdefault("targets", {}).setdefault(target, {}).update(values)
        is_as_meant = tomllib.loads(new) == wanted
    except (TOMLKitError, tomllib.TOMLDecodeError, TypeError, AttributeError):
        is_as_meant = False
    if not is_as_meant:
        said = "; ".join(f"{name} = {value!r}" for name, value in values.items())
        raise Misconfigured("catchup.toml could not be changed", fix=f"write it yourself: [targets.{target}] {said}")
    return new
