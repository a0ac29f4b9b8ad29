"""What every answer of our functions has in common: refusals are values, and what is malformed is not believed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from queries.errors import Fenced, Misconfigured, Transient, UnknownOutcome


def expected(answer: dict[str, Any]) -> dict[str, Any]:
    """Expected refusals come as values, since a RAISE looks different on every road."""
    if "fenced" in answer:
        raise Fenced("another run took this lease over", fix="let it finish; see `catchup runs list`")
    if "problem" in answer:
        raise Misconfigured(str(answer["problem"]), fix="check the target's names", service="database")
    return answer


@contextmanager
def believed(function: str, *, writing: bool) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kind = UnknownOutcome if writing else Transient
        raise kind(f"{function} gave a malformed answer ({type(error).__name__})", service="database") from error
