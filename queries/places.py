"""Whose vectors are in which place: the ledger's word, since a place itself takes those of any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from queries.errors import Misconfigured
from queries.ledger_answers import believed, expected
from queries.ledger_json import keys_in_chunks, parse_key
from queries.ledger_types import Place
from queries.road import Road
from queries.table import Key

_KEY_BYTES = 3_000  # in the URL of a GET


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

    async def known_keys(self, target: str, keys: Sequence[Key]) -> frozenset[Key]:
        """Those that this target has written at some time, whether their rows are still there or not."""
        known: set[Key] = set()
        for some in keys_in_chunks(keys, _KEY_BYTES):
            answer = expected(await self._road.read("catchup_known_keys", {"target": target, "keys": some}))
            with believed("catchup_known_keys", writing=False):
                known |= {parse_key(key) for key in answer["keys"]}
        return frozenset(known)

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
