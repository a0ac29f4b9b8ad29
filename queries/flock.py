"""Locks that the kernel frees when their last holder dies. A child that inherits the descriptor is a holder too."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path


def open_lock(path: Path) -> int:
    """A descriptor of its own: two in one process exclude each other as two processes do."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def take_lock(lock: int, *, shared: bool = False, wait_s: float = 0.0) -> bool:
    """Polls rather than blocks, so that a signal is served and the wait has an end."""
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        else:
            return True
