"""What one job brings to the harness: its command, its rows and what happens to them, and what it must leave behind."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from jobs.targets import Target

if TYPE_CHECKING:
    from tests.chaos.judge import Finding
    from tests.chaos.witness import Records, WitnessProcess
    from tests.chaos.world import Truth, World

CALM = 6  # the first rows are plain, so that a run's canary meets no pile of odd ones


class Stage(ABC):
    """`units` are what is paid one by one: requests, or texts of which a request has several."""

    job: ClassVar[str]
    title: str
    target: Target
    cell: str
    source: str
    units_most: int
    schema: str = ""
    judges_stops = True
    """A provider knows when it was stopped; of jobs without one, and of those of several runs, tests ask that."""
    telltales: Mapping[str, str]
    """What each planted bug must be caught by: another broken promise beside it is no proof."""

    @property
    def targets(self) -> Sequence[Target]:
        """All whose cells the command may write."""
        return (self.target,)

    @abstractmethod
    def words(self) -> Sequence[str]:
        """The command."""

    def blow_of(self, plant: str) -> str:
        """The named point at which this bug shows, where a random death would seldom meet it."""
        del plant
        return ""

    def environment(self) -> dict[str, str]:
        return {}

    def settings(self) -> str:
        """What stands in catchup.toml."""
        return ""

    @abstractmethod
    def requests(self, items: int) -> int:
        """Fewer than a whole run of so many rows makes."""

    @abstractmethod
    def choose_kinds(self, seed: int, items: int) -> dict[str, str]: ...

    def past_kinds(self, items: int) -> dict[str, str]:
        """Rows that a run had done before any trial began."""
        del items
        return {}

    def age(self, world: World) -> None:  # noqa: B027 - a job need not have a past
        """What happened to those rows since."""

    @abstractmethod
    def fill(self, dsn: str, kinds: Mapping[str, str]) -> None: ...

    @abstractmethod
    def prepare(self, world: World, witness: WitnessProcess, *, mischief: bool, garbled: bool) -> None:
        """The provider forgets the last trial; learns whom to refuse, whose first answer to garble, whom to change."""

    @abstractmethod
    def judge_results(
        self, finding: Finding, world: World, truth: Truth, records: Records, *, edits_done: bool
    ) -> None:
        """Rows: what is there against what ought to be. Before the edited rows had their second run they may lack."""

    def changed(self, world: World, truth: Truth) -> Iterable[str]:
        """What the audit says was done, each as often as it was."""
        del world
        return [str(change["id"]) for change in truth.changes]

    def claimed(self, world: World, truth: Truth) -> Iterable[str]:
        """Rows that the ledger says were written."""
        del world
        return truth.provenance

    @abstractmethod
    def asked_for(self, world: World, truth: Truth) -> Callable[[str], int]:
        """How often a unit is paid when nothing goes wrong."""


def mix_kinds(seed: int, items: int, prefix: str, shares: Mapping[str, float]) -> dict[str, str]:
    odd = [kind for kind, part in shares.items() for _ in range(max(1, round(part * items)))]
    calm = min(CALM, items - len(odd))
    rest = odd + ["eligible"] * (items - len(odd) - calm)
    random.Random(seed).shuffle(rest)
    return {f"{prefix}{n:06d}": kind for n, kind in enumerate(["eligible"] * calm + rest, start=1)}


def any_of(keys: Sequence[str]) -> str:
    """A pattern for a rule of the provider."""
    return "^(" + "|".join(keys or ["nobody"]) + ")$"
