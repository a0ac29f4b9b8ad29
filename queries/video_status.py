"""Where a video is, moved only from where it is expected to be: PENDING or READY, PROCESSING, READY or FAILED."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from queries.errors import Misconfigured
from queries.ledger_answers import believed, expected
from queries.ledger_json import spec_json
from queries.road import Road
from queries.table import TableSpec


@dataclass(frozen=True, slots=True)
class Moved:
    """`status` is what it is now, and None where there is no such video; `before` what it was."""

    moved: bool
    status: str | None
    before: str | None
    done: bool


class VideoStatuses:
    """`spec` names the status and the error as cells, in this order, and the flag that says done as what is read."""

    def __init__(self, road: Road, spec: TableSpec, target: str) -> None:
        self._road, self._spec, self._target = road, spec, target

    async def move(
        self, video: str, *, to: str, before: Sequence[str], said: str | None = None, unless_done: bool = False
    ) -> Moved:
        """Asked again it finds the row where the first call put it."""
        asked = {"spec": spec_json(self._spec), "target": self._target, "key": [video], "to": to, "from": list(before)}
        more = {"said": said, "unless_done": unless_done}
        answer = expected(await self._road.call("catchup_move_status", {**asked, **more}))
        if "undeclared" in answer:
            raise Misconfigured(
                f"target {self._target} may not write {', '.join(map(str, answer['undeclared']))}: not registered",
                fix="run `catchup migrate` as the owner to register the target's cells",
                service="database",
            )
        with believed("catchup_move_status", writing=True):
            return Moved(answer["moved"] is True, answer["status"], answer["before"], answer["done"] is True)
