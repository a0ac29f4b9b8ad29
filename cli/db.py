"""catchup db: the embedded database outside of runs."""

from __future__ import annotations

import sys
from pathlib import Path

from cli.connect import directory_of
from cli.flags import WorldFlags, takes
from cli.main import new_app
from cli.report import write_json
from cli.visit import settings_for
from queries.errors import LeaseHeld

app = new_app("The embedded database: stop it.")


@app.callback()
def _group() -> None:
    pass


@app.command("stop", epilog="Example: catchup db stop")
@takes(WorldFlags)
def stop(flags: WorldFlags) -> None:
    """Stop an embedded server that a killed command left behind; its data stay."""
    from queries import embedded

    directory = Path(directory_of(settings_for(flags)))
    outcome = embedded.stop(directory)
    if outcome == "in use":
        raise LeaseHeld(
            f"the embedded server in {directory} is in use by another command",
            holder={},
            seconds_left=0.0,
            fix="it stops by itself when that command ends",
        )
    if flags.json:
        write_json({"type": "db", "outcome": outcome, "directory": str(directory)})
    else:
        sys.stdout.write(f"{outcome}: {directory}\n")
