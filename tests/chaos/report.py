"""All trials together: one table for people, one JSON line for the release notes."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.controls import Caught
from tests.chaos.judge import PROMISES, Finding
from tests.servers.fake_process import ROOT


@dataclass
class Report:
    job: str
    seed: int
    items: int
    started: float = field(default_factory=time.monotonic)
    findings: list[Finding] = field(default_factory=list)
    controls: list[Caught] = field(default_factory=list)
    stops: dict[str, str] = field(default_factory=dict)
    """What a signal or a second start did, and how it broke its promise; empty is kept."""

    @property
    def broken(self) -> list[str]:
        said = [f"seed {f.seed}, {f.what}: {'; '.join(f.broken)}" for f in self.findings if f.broken]
        said += [f"control {c.plant} was not caught in {c.trials} trials" for c in self.controls if not c.by]
        return said + [f"{what}: {how}" for what, how in self.stops.items() if how]

    def numbers(self) -> dict[str, Any]:
        found = self.findings
        kills = [kill for finding in found for kill in finding.kills]
        lost = sum(len(finding.lost) for finding in found)
        repaid = sum(finding.repaid.total() for finding in found)
        each = [finding.repaid.total() / len(finding.kills) for finding in found if finding.kills]
        recovery = sorted(s for finding in found for s in finding.recovery_s)
        price = sum(f.bill_usd for f in found) / max(1, sum(1 for f in found)) / self.items
        return {
            "job": self.job,
            "trials": len(found),
            "items": self.items,
            "kills": len(kills),
            "lost": lost,
            "lost_bound_95": round(3 / len(kills), 5) if kills and not lost else None,
            **{name: sum(len(getattr(finding, name)) for finding in found) for name in PROMISES if name != "lost"},
            "repaid": repaid,
            "repaid_per_kill": round(repaid / len(kills), 2) if kills else 0.0,
            "repaid_max_per_kill": round(max(each, default=0.0), 2),
            "repaid_usd": round(repaid * price, 6),
            "in_flight": sum(finding.in_flight for finding in found),
            "open_at_kill": sum(len(kill.open) for kill in kills),
            "oldest_answer_repaid_ms": round(1000 * max((f.repaid_age_s for f in found), default=0.0), 1),
            "ledger_errors": sum(finding.ledger_error_usd > 0 for finding in found),
            "again_calls": sum(finding.again_calls for finding in found),
            "again_writes": sum(finding.again_writes for finding in found),
            "recovery_p50_s": _quantile(recovery, 0.50),
            "recovery_p95_s": _quantile(recovery, 0.95),
            "kills_by_phase": dict(Counter(kill.phase for kill in kills).most_common()),
            "controls_caught": f"{sum(bool(c.by) for c in self.controls)}/{len(self.controls)}",
            "stops_kept": f"{sum(not how for how in self.stops.values())}/{len(self.stops)}",
            "violations": len(self.broken),
            "seed": self.seed,
            "commit": _commit(),
            "wall_s": round(time.monotonic() - self.started, 1),
        }

    def show(self) -> str:
        numbers = self.numbers()
        width = max(map(len, numbers))
        lines = [f"{name:<{width}}  {_plain(value)}" for name, value in numbers.items()]
        lines += [f"caught  {c.plant}: {c.by} (trial {c.trials})" for c in self.controls if c.by]
        lines += [f"BROKEN  {said}" for said in self.broken]
        return "\n".join([*lines, json.dumps(numbers)])


def _quantile(values: Sequence[float], part: float) -> float | None:
    return round(values[min(len(values) - 1, int(part * len(values)))], 3) if values else None


def _plain(value: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in value.items()) if isinstance(value, dict) else str(value)


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
