"""What a trial did, by the witness and the database alone: lost, falsely done, duplicated, paid again, misbooked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.chaos.provider import Request
from tests.chaos.witness import Records
from tests.chaos.world import Truth

# An answer that has left the provider is still in flight until the victim has it in its journal. The report shows the
# longest such age that cost a payment, so that this allowance cannot hide a slow journal.
LANDING_S = 0.1
_NOTICED_S = 0.05  # a victim that killed itself is known to be dead only a little later than its connections
_CENT_DUST = 1e-9
PROMISES = (
    "lost", "falsely_done", "clobbered", "duplicated", "misnamed", "mispaired", "extra", "unbacked", "unexplained",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kill:
    """One death, and what was in flight at that instant."""

    at: float
    phase: str
    open: tuple[str, ...]
    landing: tuple[str, ...]
    most: int

    @property
    def in_flight(self) -> int:
        """Units. Never more than the victim may have at once: a slot is held until the answer is journaled."""
        return min(self.most, len(self.open) + len(self.landing))


def witness_kill(at: float, phase: str, records: Records, most: int) -> Kill:
    """`records` must be those of after the death: what was cut off has status 0 by then."""
    is_open: list[str] = []
    landing: list[str] = []
    for each in records.requests:
        if not each.paid:
            continue
        if each.left_at is None or each.left_at >= at or (each.status == 0 and each.left_at >= at - _NOTICED_S):
            is_open += each.units
        elif each.left_at >= at - LANDING_S:
            landing += each.units
    return Kill(at, phase, tuple(is_open), tuple(landing), most)


@dataclass(slots=True)
class Finding:
    """One trial, judged. Everything in `broken` is a broken promise."""

    seed: int
    what: str
    kills: list[Kill] = field(default_factory=list)
    exits: list[int | None] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    falsely_done: list[str] = field(default_factory=list)
    clobbered: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)
    mispaired: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    unbacked: list[str] = field(default_factory=list)
    repaid: Counter[str] = field(default_factory=Counter)
    unexplained: Counter[str] = field(default_factory=Counter)
    repaid_age_s: float = 0.0
    bill_usd: float = 0.0
    booked_usd: float = 0.0
    possibly_usd: float = 0.0
    again_calls: int = 0
    again_writes: int = 0
    recovery_s: list[float] = field(default_factory=list)
    words: str = ""

    @property
    def in_flight(self) -> int:
        return sum(kill.in_flight for kill in self.kills)

    @property
    def ledger_error_usd(self) -> float:
        """How far the bill lies outside of what the ledger says."""
        below = self.booked_usd - self.bill_usd
        above = self.bill_usd - self.booked_usd - self.possibly_usd
        return max(0.0, below if below > _CENT_DUST else 0.0, above if above > _CENT_DUST else 0.0)

    @property
    def broken(self) -> list[str]:
        said = []
        if any(code not in (0, 3) for code in self.exits):
            said.append(f"exit codes {self.exits}")
        for name in PROMISES:
            if found := getattr(self, name):
                said.append(f"{name}: {', '.join(map(str, list(found)[:8]))} ({len(found)})")
        if self.repaid.total() > self.in_flight:
            said.append(f"re-paid {self.repaid.total()} > in flight {self.in_flight}")
        if self.ledger_error_usd > 0:
            said.append(
                f"ledger: bill ${self.bill_usd:.8f} outside [${self.booked_usd:.8f}, "
                f"${self.booked_usd + self.possibly_usd:.8f}]"
            )
        if self.again_calls or self.again_writes:
            said.append(f"the command after success: {self.again_calls} calls, {self.again_writes} writes")
        return said


def judge_claims(finding: Finding, truth: Truth, claimed: Iterable[str], done: Iterable[str]) -> None:
    """The ledger's own words against the audit trail: a claim without a change, a change twice."""
    changed = Counter(done)
    finding.duplicated = [key for key, times in changed.items() if times > 1]
    for key in set(claimed) - changed.keys():
        note(finding.falsely_done, f"{key} (no change of its cell)")
    if truth.booked_writes != changed.total():
        note(finding.falsely_done, f"books say {truth.booked_writes} written, the audit {changed.total()}")


def note(found: list[str], what: str) -> None:
    """A row is looked at after the recovery and once more at the end."""
    if what not in found:
        found.append(what)


def judge_money(finding: Finding, truth: Truth, records: Records, asked_for: Callable[[str], int]) -> None:
    """What was paid more often than asked for, and whether a kill explains it."""
    by_unit: dict[str, list[Request]] = {}
    for each in records.requests:
        if each.paid:
            for unit in each.units:
                by_unit.setdefault(unit, []).append(each)
    for unit, paid in by_unit.items():
        wanted = asked_for(unit)
        extra = max(0, len(paid) - wanted - sum(unit in each.spoilt and each.status == 200 for each in paid))
        if not extra:
            continue
        finding.repaid[unit] = extra
        explained = sum(unit in kill.open or unit in kill.landing for kill in finding.kills)
        if extra > explained:
            finding.unexplained[unit] = extra - explained
        if wanted == 1:  # a second payment that is no kill's doing hides which kill cost the third
            finding.repaid_age_s = max(finding.repaid_age_s, _age_s(unit, paid, finding.kills))
    finding.bill_usd = records.bill_usd
    finding.booked_usd, finding.possibly_usd = truth.booked_usd, truth.possibly_usd


def _age_s(unit: str, paid: Sequence[Request], kills: Sequence[Kill]) -> float:
    """How long before a kill the answer that had to be bought again had already left the provider."""
    ages = []
    for earlier, kill in zip((None, *kills), kills, strict=False):
        before = [each for each in paid if each.at < kill.at]
        last = before[-1] if before and len(before) < len(paid) else None
        is_first = last and last.left_at and (earlier is None or earlier.at < last.left_at)
        if is_first and last and last.left_at and last.status == 200 and unit not in last.spoilt:
            ages.append(kill.at - last.left_at)
    return max(ages, default=0.0)
