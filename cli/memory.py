"""How a process that works on thousands of rows at a time treats its memory."""

from __future__ import annotations

import contextlib
import gc

# glibc's malloc.h. Each freed megabyte that goes back to the kernel is zeroed again when it is next needed: page
# faults were 60 % of the system time of vectorize (2026-11-21). The peak stays what it was.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT_MOST = 1 << 30
_GROWN_BY = 64 << 20
_LARGEST = 32 << 20
_GARBAGE_AFTER, _GARBAGE_AMONG_ROWS_AFTER = 50_000, 200_000


def look_for_garbage_seldom() -> None:
    """To be called first: at 700, the default, a sixth of the time that imports take is this (2026-11-22)."""
    gc.set_threshold(_GARBAGE_AFTER, 20, 20)


def keep_memory(*, over_http: bool) -> None:
    """To be called once, when everything is loaded; `over_http`: so the rows come."""
    import ctypes

    # What is loaded stays: looking through all of it again and again for cycles took a quarter of a run's CPU time
    # (vectorize, 2026-11-21).
    gc.freeze()
    # Of the rows on their way nothing is garbage either, but a page that came over HTTP leaves a circle of 2 MB.
    gc.set_threshold(_GARBAGE_AFTER if over_http else _GARBAGE_AMONG_ROWS_AFTER, 20, 20)
    with contextlib.suppress(OSError, AttributeError):  # another libc: then it does as it likes
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT_MOST)
        mallopt(_TOP_PAD, _GROWN_BY)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
