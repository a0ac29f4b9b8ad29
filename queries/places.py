"""Whose vectors are in which place: the ledger's word, since a place itself takes those of any model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from queries.errors import Misconfigured
from queries.ledger_answers import believed, expected
from queries.ledger_types import Place
from queries.road import Road


class Places:
    def __init__(self, road: Road) -> None:
        self._road = road

    async def find(self, place: str) -> Place | None:
        """Which model the vectors there are of, if anybody has said so."""
        return _read("catchup_place", await self._road.read("catchup_place", {"place": place}), writing=False)

    async def claim(self, place: str, model: str, dimensions: int, target: str) -> Place | None:
        """The first to say which model it is is right; the answer says who that was."""
        claim = {"place": place, "model": model, "dimensions": dimensions, "target": target}
        return _read("catchup_claim_place", await self._road.call("catchup_claim_place", claim), writing=True)

    async def switch(self, *, target: str, filled: str, place: str, left: str, left_place: str) -> bool:
        """What was filled under a name of its own is the target from now on; False where it has been already."""
        asked = {"target": target, "filled": filled, "place": place, "left": left, "left_place": left_place}
        answer = expected(await self._road.call("catchup_switch_target", asked))
        if "busy" in answer:
            raise Misconfigured(
                f"run {answer['busy']} of {target} is not finished: nothing was switched",
                fix=f"`catchup runs resume {answer['busy']}` or `catchup runs cancel {answer['busy']}`, then switch",
            )
        with believed("catchup_switch_target", writing=True):
            return bool(answer["switched"])


def _read(function: str, answer: dict[str, Any], *, writing: bool) -> Place | None:
    known: Mapping[str, Any] = expected(answer)
    with believed(function, writing=writing):
        if not known["model"]:
            return None
        return Place(str(known["model"]), int(known["dimensions"]), str(known["target"]))
