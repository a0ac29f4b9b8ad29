"""Which jobs there are: every module of this package that says `JOB`, and `PART` if another one's command runs it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import jobs

if TYPE_CHECKING:
    from jobs.engine.job import Job

_JOB = re.compile(r"^JOB\b", re.MULTILINE)
_PART = re.compile(r"^PART\b", re.MULTILINE)
_SUMMARY = re.compile(r'"""(.+?)(?:"""|\n)')


def find_jobs() -> dict[str, str]:
    """Name and one-line help of every job, read from its file: importing them would cost more than the help."""
    found = {}
    for file in sorted(Path(jobs.__path__[0]).glob("*.py")):
        source = file.read_text(encoding="utf-8")
        summary = _SUMMARY.match(source)
        if summary and _JOB.search(source):
            name = file.stem.replace("_", "-")
            text = summary[1].removeprefix(f"{name}: ")
            found[name] = text[:1].upper() + text[1:]
    return found


def load_job(name: str) -> Job:
    module = importlib.import_module(f"jobs.{name.replace('-', '_')}")
    job: Job = module.JOB
    return job


def load_parts() -> list[Job]:
    """Jobs without a command of their own: their targets are registered and configured like any other."""
    files = sorted(Path(jobs.__path__[0]).glob("*.py"))
    names = [file.stem for file in files if _PART.search(file.read_text(encoding="utf-8"))]
    return [importlib.import_module(f"jobs.{name}").PART for name in names]


def load_all() -> list[Job]:
    return [*(load_job(name) for name in find_jobs()), *load_parts()]
