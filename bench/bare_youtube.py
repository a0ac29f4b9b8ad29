"""What the stub can answer: eight threads of Google's client that ask, count the items and do nothing else.

python bench/bare_youtube.py URL VIDEOS
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator

import httplib2
from googleapiclient.discovery import build

THREADS, IDS = 8, 50


def main() -> None:
    url, videos = sys.argv[1], int(sys.argv[2])
    options = {"api_endpoint": url}
    youtube = build(
        "youtube", "v3", developerKey="bare", static_discovery=True, cache_discovery=False, client_options=options
    )
    todo, lock, found = pages(videos), threading.Lock(), [0] * THREADS

    def work(thread: int) -> None:
        http = httplib2.Http()
        while True:
            with lock:
                ids = next(todo, None)
            if ids is None:
                return
            answer = youtube.videos().list(part="statistics", id=",".join(ids)).execute(http=http)
            found[thread] += len(answer["items"])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    started = time.monotonic()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    print(json.dumps({"seconds": time.monotonic() - started, "found": sum(found), "cpu_s": time.process_time()}))


def pages(videos: int) -> Iterator[list[str]]:
    for first in range(1, videos + 1, IDS):
        yield [f"v{n:010}" for n in range(first, min(first + IDS, videos + 1))]


if __name__ == "__main__":
    main()
