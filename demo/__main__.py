"""`make demo`: the sample into the embedded database, then the real commands, as anybody would type them."""

from __future__ import annotations

import argparse
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from demo.load import count_rows, load_sample, show_some
from demo.scenes import has_columns, load_scenes, show_scenes
from queries.embedded import remove, start
from queries.errors import CatchupError

ROOT = Path(__file__).resolve().parent.parent
CATCHUP = (sys.executable, "-c", "from cli.main import main; main()")  # this checkout's, installed or not
FINE = (0, 3)  # 3: done, and some items are named
LEASE_HELD, INTERRUPTED = 11, 130
SUMMARIES = "backfill-summaries --local --yes --max-rate 2400"
VECTORS = "vectorize --local --target summaries --create-namespace"
SCENES = "reprocess-videos --inline --local --yes"
QUESTIONS = ("copy a whole folder with its subfolders", "give up waiting for a task after some seconds")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="begin anew")
    parser.add_argument("--place", type=Path, help="keep its data in this folder")
    asked = parser.parse_args(arguments)
    place = asked.place.resolve() if asked.place else choose_place()
    directory = place / ".catchup" / "db"
    say("Everything below runs on this machine: an embedded PostgreSQL with pgvector, sentences copied from the texts,")
    say("and a small model for the vectors. No account, no network.")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command that runs; it ends in order and says how
    try:
        if asked.fresh:
            forget(directory)
            forget(videos_app(place) / ".catchup" / "db")
        with start(directory) as server:
            load_sample(server.dsn)
            say_where_we_are(*count_rows(server.dsn))
            return run_commands(place, server.dsn)
    except CatchupError as error:
        print(f"{error.what}\n{error.fix}", file=sys.stderr)
        return 10


def run_commands(place: Path, dsn: str) -> int:
    """Every command by itself, printed as typed. The first that fails ends the demo with its exit code."""
    _, summaries, vectors = count_rows(dsn)
    is_again = bool(summaries) and summaries == vectors
    for command in commands(is_new=not summaries, is_again=is_again):
        if command == SUMMARIES and not summaries:
            say("\nNow for real, held to 40 rows a second so that there is something to see. Every run shows its plan")
            say("first, so here it is once more. Ctrl-C is safe.")
        if command == VECTORS and not is_again:
            show_summaries(dsn)
            say("Now a vector for each, in a table of pgvector beside yours; a row is marked when its vector was seen.")
        if command.startswith(f'search "{QUESTIONS[0]}') and (code := describe_videos(place)) not in FINE:
            return say_how_to_go_on(code)
        if (code := run(place, command)) not in FINE:
            return say_how_to_go_on(code)
    say(
        f'\nAsk something else:  {name_catchup()} search "TEXT" --local' + ("" if place == ROOT else f"   (in {place})")
    )
    say("Again: make demo (nothing is left to do, and it will say so). From the beginning: make demo-fresh.")
    return 0


def commands(*, is_new: bool, is_again: bool) -> Iterator[str]:
    """A dry run where there is something to see in it; the second time only what tells that nothing is left."""
    yield "migrate --local"
    if is_new:
        yield "backfill-summaries --local --dry-run"
    yield f"{SUMMARIES} --quiet" if is_again else SUMMARIES
    yield f"{VECTORS} --quiet" if is_again else VECTORS
    if not is_again:
        yield "runs list --local"
    for question in QUESTIONS[: 1 if is_again else None]:
        yield f'search "{question}" --local --top 3'


def videos_app(place: Path) -> Path:
    """A folder, and so a database, of its own: both apps call their table videos."""
    return place / ".catchup" / "videos-app"


def describe_videos(place: Path) -> int:
    """The other app: recordings in scenes. Its tables get their columns first."""
    folder = videos_app(place)
    folder.mkdir(parents=True, exist_ok=True)
    say("\nAnother app, in a database of its own: a few recordings in scenes, of which only the words are known.")
    with start(folder / ".catchup" / "db") as server:
        load_scenes(server.dsn)
        is_again = has_columns(server.dsn)
        for command in () if is_again else ("migrate --local --set rich-semantics", "migrate --local --quiet"):
            if (code := run(folder, command)) not in FINE:
                return code
        code = run(folder, f"{SCENES} --quiet")
        name, scenes, summary = show_scenes(server.dsn)
        if code in FINE and name and not is_again:
            say(f"\nOne of them, {name}. Its first scenes with their tags, and the whole:\n")
            for text, tags in scenes:
                say(wrap(text, 2))
                say(wrap(tags, 4) + "\n")
            say(wrap(summary, 2))
        return code


def show_summaries(dsn: str) -> None:
    say("\nSome of what it wrote:\n")
    for title, summary in show_some(dsn):
        say(wrap(title, 2))
        say(wrap(summary, 4) + "\n")


def run(place: Path, command: str) -> int:
    """Its exit code; 128 and more where a signal ended it, as a shell says it."""
    say(f"\n$ catchup {command}")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("CATCHUP_")}
    settings["CATCHUP_STATE_DIR"] = str(place / ".catchup" / "state")
    settings["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    child = subprocess.Popen(  # noqa: S603
        [*CATCHUP, *shlex.split(command)],
        cwd=place,
        env=settings,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no thread runs here
    )
    code = child.wait()
    return code if code >= 0 else 128 - code


def name_catchup() -> str:
    """As it can be typed in this checkout: `make` installs it beside its Python and changes no PATH."""
    installed = Path(sys.executable).with_name("catchup")
    return str(installed.relative_to(ROOT)) if installed.exists() and installed.is_relative_to(ROOT) else "catchup"


def say(text: str) -> None:
    print(text, flush=True)


def wrap(text: str, indent: int) -> str:
    width = max(30, min(shutil.get_terminal_size((100, 40)).columns, 120))
    return textwrap.fill(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent)


def say_where_we_are(rows: int, summaries: int, vectors: int) -> None:
    if summaries:
        say(f"Here from an earlier demo: {rows} rows, {summaries} with a summary, {vectors} of these with a vector.")
    else:
        say(f"The table videos holds {rows} rows (demo/README.md says where they come from), none with a summary yet.")


def say_how_to_go_on(code: int) -> int:
    if code == INTERRUPTED:
        say("\nInterrupted. Nothing is lost: `make demo` goes on from here.")
    elif code == LEASE_HELD:
        say("\nAnother demo is at work on the same rows. Let it finish, then run `make demo` again.")
    elif code > 128:
        name = signal.Signals(code - 128).name
        say(f"\nThe command above was ended by {name}. Nothing is lost: `make demo` goes on from here.")
    else:
        say(f"\nThe command above ended with exit code {code}; README.md says what it means.")
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
