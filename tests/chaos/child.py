"""The victim: the real command line in a process group of its own, with a planted bug if one is asked for.

python -m tests.chaos.child PLANT|- words...    a whole process, as an operator starts it
python -m tests.chaos.child --nursery           forks victims that have imported everything already: the same code
                                                and the same deaths, without 0.7 s of imports for each of a thousand
"""

# A planted bug must be in place, and a whole victim must pay for its imports, only in the process that asked for it.
# ruff: noqa: PLC0415
from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main(words: list[str]) -> None:
    plant, *rest = words
    if plant != "-":
        from tests.chaos import planted

        planted.PLANTS[plant]()
    if "CHAOS_SMALL" in os.environ:
        from tests.chaos import planted_vectors

        planted_vectors.make_small(*map(int, os.environ["CHAOS_SMALL"].split()))
    if "CHAOS_FILES" in os.environ:
        from tests.chaos import planted_batches

        planted_batches.make_small(int(os.environ["CHAOS_FILES"]))
    if "CHAOS_IDS" in os.environ:
        from tests.chaos import planted_views

        planted_views.make_small(int(os.environ["CHAOS_IDS"]))
    from cli.main import main as command_line

    sys.argv = ["catchup", *rest]
    command_line()


def nurse() -> None:
    """One JSON line asks for a child; its pid, and later its wait status, are the answers."""
    _import_all()
    print(json.dumps({"ready": True}), flush=True)
    pending = b""
    living: set[int] = set()
    while True:
        if select.select([0], [], [], 0.003 if living else None)[0]:
            chunk = os.read(0, 1 << 16)
            if not chunk:  # the harness is gone, however it ended: no victim may outlive it
                for pid in living:
                    os.kill(pid, signal.SIGKILL)
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                living.add(pid := _bear(json.loads(line)))
                print(json.dumps({"born": pid, "at": time.monotonic()}), flush=True)
        for pid in list(living):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                living.discard(pid)
                code = os.waitstatus_to_exitcode(status)
                print(json.dumps({"died": pid, "code": code, "at": time.monotonic()}), flush=True)


def _import_all() -> None:
    """Everything a run imports, and the tokenizer's tables; nothing that starts a thread or opens a connection."""
    import cli.job_command
    import cli.main
    from cli import choices, connect, plain, providers, settings, signals, submit_batch, view
    from jobs.engine import run
    from jobs.registry import find_jobs, load_job
    from queries import dsn, openai_batches, openai_chat, openai_embed, pgvector_space, pinecone_space, prices
    from queries.tokens import TokenCounter

    for job in find_jobs():
        for target in load_job(job).targets:
            TokenCounter(target.model, Path(os.environ["CHAOS_VOCABULARIES"])).count("ready")
    del cli, choices, connect, plain, providers, settings, signals, view, run
    from cli import rollups, views
    from jobs import metered_views, views_account
    from queries import youtube_client

    del rollups, views, metered_views, views_account, youtube_client
    import dramatiq.brokers.redis

    from cli import inline, sending, worker
    from jobs import rich_inline, rich_scenes, rich_videos
    from queries import dramatiq_consumer, dramatiq_queue

    del dramatiq, inline, sending, worker, dramatiq_consumer, rich_inline, rich_scenes, rich_videos, dramatiq_queue
    del submit_batch, openai_batches
    del dsn, openai_chat, openai_embed, pgvector_space, pinecone_space, prices


def _bear(asked: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        for handle, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
            opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(opened, handle)
            os.close(opened)
        os.chdir(asked["directory"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        _arm()
        main(asked["words"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _arm() -> None:
    """The engine reads these once, when it is imported: here that was before the child was asked for."""
    from jobs.engine import fault_points

    fault_points._armed = os.environ.get("CATCHUP_FAULTS", "")
    fault_points._trace = os.environ.get("CATCHUP_FAULT_TRACE", "")


if __name__ == "__main__":
    if sys.argv[1:] == ["--nursery"]:
        nurse()
    else:
        main(sys.argv[1:])
