"""Why a run ends before its work does, and with which exit code. The first reason stands."""

from __future__ import annotations

import asyncio
import errno
import traceback
from dataclasses import dataclass

from jobs.engine.breaker import UpstreamDown
from jobs.engine.verdict import Exit
from queries.errors import (
    CatchupError,
    CeilingReached,
    Fenced,
    LeaseHeld,
    Misconfigured,
    OutOfMoney,
    StatementTimeout,
    Unbelievable,
)

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stop:
    """Once asked for, no new paid request starts; what is in flight may finish within the grace."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.exit: Exit | None = None
        self.why = ""
        self.fix = ""
        self.service = ""
        self.words = ""

    def ask(self, exit_: Exit, why: str, fix: str = "") -> None:
        if self.exit is None:
            self.exit, self.why, self.fix = exit_, why, fix
        self.asked.set()

    def ask_for(self, error: CatchupError) -> None:
        if self.exit is None:
            reason = explain(error)
            self.service, self.words = reason.service, reason.words
            self.ask(reason.exit, error.what, error.fix)

    def ask_for_bug(self, error: BaseException) -> None:
        """What nobody foresaw: named with its place, so that it can be reported and found."""
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            self.ask(Exit.REFUSED, "the disk is full", "free space; the same command goes on from here")
            return
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.ask(
            Exit.UNEXPECTED,
            f"internal error: {type(error).__name__} in {where.name} (line {where.lineno})",
            "please report it with the run's id; the same command goes on from here",
        )

    @property
    def is_asked(self) -> bool:
        return self.asked.is_set()


@dataclass(frozen=True, slots=True)
class Reason:
    exit: Exit
    service: str = ""
    words: str = ""


def explain(error: CatchupError) -> Reason:
    """The exit code of every error that ends a run: 4 time or money clears it, 10 a person must act."""
    service, words = getattr(error, "service", ""), getattr(error, "words", "")
    code = getattr(error, "code", "")
    said = f"{code}: {words}" if code and words else words or code
    match error:
        case OutOfMoney():
            exit_ = Exit.STOPPED
        case CeilingReached():
            exit_ = Exit.CEILING
        case Misconfigured():
            exit_ = Exit.REFUSED
        case Unbelievable():
            exit_ = Exit.BREAKER
        case LeaseHeld() | Fenced():
            exit_ = Exit.LEASE_HELD
        case UpstreamDown():
            inner = explain(error.last)
            exit_ = Exit.STOPPED if error.is_outage else Exit.BREAKER
            service, said = inner.service, inner.words
        case StatementTimeout():
            exit_ = Exit.STOPPED
        case _:
            exit_ = Exit.UNEXPECTED
    return Reason(exit_, service, said)
