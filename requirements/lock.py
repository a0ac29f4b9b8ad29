"""Writes the two locks from pyproject.toml, or checks without a network that they still belong to it.

    python requirements/lock.py write|check

A lock names versions and hashes and no place to fetch them from: pip takes that from the machine's own settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {
    "run.txt": ["--extra", "local", "--group", "build"],
    "dev.txt": [*("--all-extras", "--group", "dev"), *("--constraints", "requirements/run.txt")],
}
COMPILE = ["pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11", "--generate-hashes", "-q"]
BARE = ["--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header"]
PINNED = re.compile(r"^[a-z0-9._-]+(\[[a-z,]+\])?==[^ ]+( ; [^\\]+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def fingerprint() -> str:
    """Changes when anything that a lock is made from changes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    facts = [project["project"][name] for name in ("requires-python", "dependencies", "optional-dependencies")]
    facts += [project["dependency-groups"], LOCKS]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def first_line() -> str:
    return f"# Made by `make lock` from pyproject.toml {fingerprint()}\n"


def write() -> int:
    environment = dict(os.environ)
    ask_pip = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]  # uv does not read pip's settings
    said = subprocess.run(ask_pip, capture_output=True, text=True, check=False)  # noqa: S603
    if said.returncode == 0:
        environment.setdefault("UV_DEFAULT_INDEX", said.stdout.strip())
    for name, choice in LOCKS.items():
        path = ROOT / "requirements" / name
        command = [sys.executable, "-m", "uv", *COMPILE, *BARE, *choice, *sys.argv[2:], "-o", f"requirements/{name}"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)  # noqa: S603
        path.write_text(first_line() + path.read_text())
    return check()


def check() -> int:
    wrong = []
    for name in LOCKS:
        first, *lines = (ROOT / "requirements" / name).read_text().splitlines(keepends=True)
        if first != first_line():
            wrong.append(f"requirements/{name} is not made from this pyproject.toml: run `make lock` and commit it")
        odd = [line for line in lines if not (PINNED.match(line) or HASH.match(line))]
        wrong += [f"requirements/{name}: neither a pinned version nor a hash: {line.strip()}" for line in odd[:5]]
    print("\n".join(wrong) or f"locks agree with pyproject.toml ({', '.join(LOCKS)})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit({"write": write, "check": check}[sys.argv[1]]())
