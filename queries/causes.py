"""What lies behind an exception: SDKs' failures are known by the names of their classes, down the chain of causes."""

from __future__ import annotations

from dataclasses import dataclass

_MOST = 20


@dataclass(frozen=True, slots=True)
class Causes:
    """`names`: of every class in the chain, bases too; `deepest`: of the last link only; `code`: its own name."""

    names: frozenset[str]
    deepest: frozenset[str]
    code: str


def causes_of(exception: BaseException | None) -> Causes:
    chain: list[BaseException] = []
    while exception is not None and exception not in chain and len(chain) < _MOST:
        chain.append(exception)
        exception = exception.__cause__ or exception.__context__
    return Causes(
        names=frozenset().union(*map(_names, chain)),
        deepest=frozenset().union(*map(_names, chain[-1:])),
        code=next((type(each).__name__ for each in reversed(chain) if isinstance(each, Exception)), "no answer"),
    )


def _names(exception: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(exception).__mro__}
