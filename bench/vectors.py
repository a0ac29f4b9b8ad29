"""vectorize against the same work by LangChain's indexing API and by plain loops over the SDKs (DECISIONS.md 35).

One after the other in one invocation, ours first and last. Every contender has servers of its own, each a process, with
50 ms of latency and no limit; what they spent is told, so that it can be seen that nobody waited for them.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.world import CATCHUP, Finished, World
from jobs.default_targets import SUMMARIES
from tests.servers.bench import KEY
from tests.servers.fake_pinecone_process import run_fake_pinecone
from tests.servers.fake_process import run_fake_openai

HERE = Path(__file__).parent
PEERS = {
    "langchain": "langchain.txt",
    "langchain-own-store": "peers.txt",
    "batches": "peers.txt",
    "loop-grpc": "peers.txt",
    "loop": "peers.txt",
}
"""Each with the packages that it needs; bench/peers.py tells what they are."""
LATENCY_S = 0.05
ROWS = (
    "insert into videos (id, title, channel_id, channel_name, view_count, published_at, llm_summary) "
    "select 'v' || lpad(n::text, 8, '0'), 'How crane ' || n || ' of the old harbour was moved', 'c' || n %% 7, "
    "'Harbour talks', n * 7 %% 100000, timestamptz '2020-01-01 00:00+00' + n * interval '9 minutes', "
    "'Speaker ' || n || ' tells how crane ' || md5(n::text) || ' of the old harbour was built, why it was moved to the "
    "northern basin in ' || 1880 + n %% 100 || ', what the divers found below its foundations, and how the volunteers "
    "of shed ' || n %% 97 || ' restored its engine, its wheels and its cabin without a single drawing to work from.' "
    "from generate_series(1, %s) n"
)


def measure(world: World, rows: int, say: Callable[[str, dict[str, Any]], None]) -> None:
    """Tells each contender's figures as they come, and the ratios last."""
    pythons = {packages: str(make_environment(packages)) for packages in set(PEERS.values())}
    ours = {load: f"ours, --db-load {load}" for load in ("100%", "25%")}
    plan: list[tuple[str, list[str]]] = [(ours["100%"], vectorize("100%")), (ours["25%"], vectorize("25%"))]
    plan += [(name, [pythons[packages], str(HERE / "peers.py"), name]) for name, packages in PEERS.items()]
    plan += [(f"{ours['100%']}, again", vectorize("100%"))]
    seconds: dict[str, float] = {}
    for name, command in plan:
        figures = contend(world, rows, command)
        seconds[name] = figures["seconds"]
        say(f"vectors, {name}", figures)
    small = contend(world, min(rows, 20_000), vectorize("100%"))
    say(f"vectors, {ours['100%']}, fewer rows", small)
    sequential = min(seconds["langchain"], seconds["loop"])
    again = f"{ours['100%']}, again"
    say(
        "vectors, how many times faster",
        {
            f"{one} than {other}": round(by / seconds[one], 2)
            for one in (ours["100%"], again, ours["25%"])
            for other, by in (
                ("the faster of langchain and loop", sequential),
                *((peer, seconds[peer]) for peer in PEERS),
            )
        },
    )


def vectorize(load: str) -> list[str]:
    words = ["--target", "summaries", "--store", "pinecone", "--create-namespace", "--db-load", load]
    return [*CATCHUP, "vectorize", "--yes", "--json", *words]


def make_environment(packages: str) -> Path:
    """Where peers live: made once from a file of packages, beside this project's own."""
    folder = Path(os.environ.get("CATCHUP_PEERS") or HERE.parent / "build") / Path(packages).stem
    python = folder / "bin" / "python"
    done = folder / packages
    wanted = (HERE / packages).read_text(encoding="utf-8")
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return python
    venv.create(folder, clear=True, with_pip=True)
    install = [str(python), "-m", "pip", "install", "-qq", "--require-hashes", "--only-binary", ":all:", "-r"]
    # what pip says names this machine's package index, which is nobody's business
    if subprocess.run([*install, str(HERE / packages)], check=False, capture_output=True).returncode:
        raise SystemExit(f"the peers' packages cannot be installed: try `pip install -r bench/{packages}`")
    done.write_text(wanted, encoding="utf-8")
    return python


def contend(world: World, rows: int, command: list[str]) -> dict[str, Any]:
    """One contender over fresh rows and fresh servers: what it took, and whether all of it is really there."""
    asyncio.run(fill(world, rows))
    index, namespace = SUMMARIES.embedding.index, SUMMARIES.embedding.namespace  # type: ignore[union-attr]
    with (
        run_fake_openai(latency=LATENCY_S) as openai,
        run_fake_pinecone(index=index, dimension=512, cheap=True, latency=LATENCY_S) as pinecone,
    ):
        before = cpu_of_servers()
        done = world.run(
            command,
            {
                "OPENAI_API_KEY": KEY,
                "OPENAI_BASE_URL": openai.url,
                "PINECONE_API_KEY": "pcsk_bench",
                "PINECONE_INDEX_HOST": pinecone.url,
                "BENCH_NAMESPACE": namespace,
            },
        )
        spent = {name: round(s - before.get(name, 0.0), 2) for name, s in cpu_of_servers().items()}
        embedded, stored = openai.stats(), pinecone.stats()
        ids = pinecone.ids(namespace)
    flagged = asyncio.run(count_flagged(world))
    wanted = [f"v{n:08}" for n in range(1, rows + 1)]
    return {
        **told(done, rows),
        "embedding_requests": embedded["requests"],
        "upserts": stored["requests"].get("upsert", 0),
        "pinecone_requests": sum(stored["requests"].values()),
        "cpu_s_of_servers": spent,
        "busy_of_servers": {name: round(s / done.seconds, 2) for name, s in spent.items()},
        "every_id_once": ids == wanted and stored["records_written"] == rows,
        "every_flag_set": flagged == rows,
    }


def told(done: Finished, rows: int) -> dict[str, Any]:
    return {
        "rows": rows,
        "exit": done.code,
        "seconds": round(done.seconds, 2),
        "rows_per_s": round(rows / done.seconds),
        "cpu_s": round(done.cpu_s, 2),
        "cpu_us_per_row": round(1e6 * done.cpu_s / rows),
        "peak_mb": round(done.peak_mb),
    }


async def fill(world: World, rows: int) -> None:
    """A table of rows with a summary each, as `backfill-summaries` leaves it."""
    run = world.database.run
    await run("drop table if exists videos; drop schema if exists catchup cascade")
    await world.database.load("videos.sql")
    await world.database.migrate([SUMMARIES])
    await run(ROWS, [rows])
    await run("vacuum analyze videos")
    await run("checkpoint")


async def count_flagged(world: World) -> int:
    found = await world.database.run("select count(*) from videos where llm_summary_embedding_synced")
    return int(found[0][0])


def cpu_of_servers() -> dict[str, float]:
    """CPU seconds of each child of this process with all that it started; Linux only, and empty elsewhere."""
    parents: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        parents.setdefault(int(fields[1]), []).append(int(folder.name))
        # user and system time of itself, and of those it has outlived
        used[int(folder.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return {
        name_of(child): round(sum(used[each] for each in family(child, parents)), 2)
        for child in parents.get(os.getpid(), [])
        if (Path("/proc") / str(child)).exists()
    }


def family(pid: int, parents: dict[int, list[int]]) -> list[int]:
    return [pid, *(each for child in parents.get(pid, []) for each in family(child, parents))]


def name_of(pid: int) -> str:
    words = (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return next((word.rpartition(".")[2] for word in words if word.startswith("tests.servers.")), Path(words[0]).name)
