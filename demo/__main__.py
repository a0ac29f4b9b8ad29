"""`make demo`: the sample into the embedded database, then the real commands, as anybody would type them."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

from demo.load import count_rows, load_sample, show_some
from queries.embedded import remove, start
from queries.errors import CatchupError

ROOT = Path(__file__).resolve().parent.parent
FINE = (0, 3)  # 3: done, and some items are named
INTERRUPTED = 130
SLOWLY = "backfill-summaries --yes --max-rate 2400"


def main(arguments: Sequence[str]) -> int:
    place = choose_place()
    directory = place / ".catchup" / "db"
    print("Everything below runs on this machine: an embedded PostgreSQL, sentences copied from the texts, no account.")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command that runs; it ends in order and says how
    try:
        if "--fresh" in arguments:
            forget(directory)
        with start(directory) as server:
            say_where_we_are(server.dsn)
            code = run_commands(place, server.dsn)
    except CatchupError as error:
        print(f"{error.what}\n{error.fix}", file=sys.stderr)
        return 10
    return code


def run_commands(place: Path, dsn: str) -> int:
    """Every command by itself, printed as typed. The first that fails ends the demo with its exit code."""
    for command in ("migrate", "backfill-summaries --dry-run", SLOWLY):
        if command is SLOWLY:
            print("\nNow for real, held to 40 rows a second so that there is something to see. Ctrl-C is safe.")
        code = run(place, *command.split(), "--local")
        if code not in FINE:
            return say_how_to_go_on(code)
    print("\nSome of what it wrote:\n")
    for title, summary in show_some(dsn):
        print(textwrap.fill(title, 96, initial_indent="  "))
        print(textwrap.fill(summary, 96, initial_indent="    ", subsequent_indent="    ") + "\n")
    code = run(place, "runs", "list", "--local")
    print("\nAgain: make demo (nothing is left to do, and it will say so). From the beginning: make demo-fresh.")
    return 0 if code in FINE else code


def run(place: Path, *arguments: str) -> int:
    print(f"\n$ catchup {' '.join(arguments)}", flush=True)
    catchup = Path(sys.executable).with_name("catchup")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("CATCHUP_")}
    settings["CATCHUP_STATE_DIR"] = str(place / ".catchup" / "state")
    child = subprocess.Popen(  # noqa: S603
        [str(catchup), *arguments],
        cwd=place,
        env=settings,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no thread runs here
    )
    return child.wait()


def say_where_we_are(dsn: str) -> None:
    new = load_sample(dsn)
    rows, done = count_rows(dsn)
    if new == rows:
        print(f"Loaded {rows} rows into the table videos (demo/README.md says where they come from).")
    elif done:
        print(f"Already here from an earlier demo: {rows} rows, {done} of them with a summary. Going on from there.")
    else:
        print(f"Already here from an earlier demo: {rows} rows, none with a summary yet. Going on from there.")


def say_how_to_go_on(code: int) -> int:
    if code == INTERRUPTED:
        print("\nInterrupted. Nothing is lost: `make demo` goes on from here.")
    else:
        print(f"\nThe command above ended with exit code {code}; README.md says what it means.", file=sys.stderr)
    return code


def choose_place() -> Path:
    """This checkout, or a folder of our own where another user's demo has it."""
    mine = ROOT / ".catchup"
    if os.access(mine if mine.exists() else ROOT, os.W_OK):
        return ROOT
    place = Path(tempfile.gettempdir()) / f"catchup-demo-{pwd.getpwuid(os.getuid()).pw_name}"
    place.mkdir(mode=0o700, exist_ok=True)
    return place


def forget(directory: Path) -> None:
    """The demo's database, and the journal and cursor files that belong to it."""
    remove(directory)
    shutil.rmtree(directory.parent, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
