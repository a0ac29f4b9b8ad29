"""Which jobs there are: every module of this package that says `JOB`."""

from __future__ import annotations

import importlib
import pkgutil

import jobs
from jobs.engine.job import Job


def job_names() -> dict[str, str]:
    """Command name to module name, without importing any of them: `--help` must stay quick."""
    found = (module.name for module in pkgutil.iter_modules(jobs.__path__) if not module.ispkg)
    return {name.replace("_", "-"): name for name in found if name not in ("registry", "targets", "content")}


def load_job(name: str) -> Job:
    module = importlib.import_module(f"jobs.{job_names()[name]}")
    job: Job = module.JOB
    return job
