"""Uses the embedded server until stdin closes: `python embedded_client.py DIRECTORY [USER [SYSPATH]]`."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

if __name__ == "__main__":
    directory, account, path = (*sys.argv[1:], "", "")[:3]
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from queries.embedded import start
    from queries.errors import Misconfigured

    if account:
        entry = pwd.getpwnam(account)
        sys.path.insert(0, path)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    try:
        with start(Path(directory)) as server:
            print(server.dsn, flush=True)
            sys.stdin.read()
    except Misconfigured as error:
        sys.exit(f"{error.what} | {error.fix} | {error.words}")
    print("left", flush=True)
