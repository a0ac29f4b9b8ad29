"""How an operator writes durations, dollars and shares; each raises ValueError with a sentence."""

from __future__ import annotations

import math
import re

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def read_duration_s(text: str) -> float:
    """`30s`, `10m`, `2h`, `1h30m`; a bare number is seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        raise ValueError(f"{text!r} is not a duration; write 30s, 10m or 2h")
    total_s = sum(float(number) * _UNITS_S[unit or "s"] for number, unit in parts)
    if total_s <= 0:
        raise ValueError("a duration must be longer than nothing")
    return total_s


def read_usd(text: str) -> float:
    """`5`, `0.50` or `$5`."""
    try:
        usd = float(text.strip().removeprefix("$"))
    except ValueError:
        raise ValueError(f"{text!r} is not an amount in US dollars; write 5 or 0.50") from None
    if not math.isfinite(usd) or usd <= 0:
        raise ValueError(f"a ceiling of {text} would allow nothing; leave it out or raise it")
    return usd


def read_share(text: str) -> float:
    """`25%` or `0.25`."""
    stripped = text.strip()
    try:
        share = float(stripped[:-1]) / 100 if stripped.endswith("%") else float(stripped)
    except ValueError:
        raise ValueError(f"{text!r} is not a share; write 0.25 or 25%") from None
    if not 0 < share <= 1:
        raise ValueError(f"{text} is not between 0 and 1 (or 1% and 100%)")
    return share


def show_duration(seconds: float) -> str:
    """`8.4 s`, `3:07`, `2:03:07`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def show_usd(usd: float) -> str:
    """Two digits for a bill, four while it is small."""
    return f"${usd:,.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def show_bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{count} B"


def show_time(stamp: str) -> str:
    """A timestamp of the ledger to the second, in UTC as it is kept."""
    return stamp[:19].replace("T", " ") + (" UTC" if stamp[19:].endswith(("+00:00", "Z")) else "")
