"""Standard output and error that cannot kill the work: a closed pipe or a full disk changes only what is seen.

Whatever passes here is also searched for the secrets this process knows.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

_secrets: list[str] = []


def hide(*secrets: str) -> None:
    """From now on these never leave through standard output or error, in no form they travel in."""
    _secrets.extend(secret for secret in secrets if secret and secret not in _secrets)


def without_secrets(text: str) -> str:
    if not _secrets:
        return text
    from queries.redact import redact

    return redact(text, tuple(_secrets))


class Forgiving:
    """A text stream whose write and flush never raise; once it has failed it is a void."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.failed = stream is None

    def write(self, text: str) -> int:
        return self.write_checked(without_secrets(text))

    def write_checked(self, text: str) -> int:
        """For text whose parts were searched already: replacing in finished JSON could eat a quote's backslash."""
        if not self.failed and self._stream is not None:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._give_up(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self.failed and self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def isatty(self) -> bool:
        try:
            return not self.failed and self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def _give_up(self, error: Exception) -> None:
        """Points the descriptor at nothing, so that the interpreter's last flush cannot fail either."""
        self.failed = True
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, cast(TextIO, self._stream).fileno())
            os.close(nothing)

    def __getattr__(self, name: str) -> Any:
        if self._stream is None:
            return {"encoding": "utf-8", "errors": "replace"}[name] if name in ("encoding", "errors") else _absent(name)
        return getattr(self._stream, name)


def _absent(name: str) -> Any:
    raise AttributeError(name)


def guard() -> None:
    """Wraps both streams once, at the start of the process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, Forgiving):
            continue
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")
        setattr(sys, name, Forgiving(stream))
