"""A TCP proxy that cuts a connection at the n-th message that passes: a broker's network on a bad day."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import pytest

When = Literal["before", "after", "never"]


@dataclass
class TcpProxy:
    """`mark` stands once in every message. At those numbered in `cuts` the connection ends.

    before: the broker does not see the message. after: it has it, and its answer is lost. `refuse` ends every new
    connection at once; `hang` lets nothing through any more.
    """

    upstream: tuple[str, int]
    mark: bytes
    cuts: dict[int, When] = field(default_factory=dict)
    seen: int = 0
    connections: int = 0
    refuse: bool = False
    hang: bool = False
    port: int = 0
    _listener: socket.socket | None = None
    _open: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        for each in (self._listener, *self._open):
            _end(each)

    def cut(self, *, refuse: bool) -> None:
        """Ends what is open, as a broker does that is killed; `refuse` until it is back."""
        self.refuse = refuse
        for each in self._open:
            _end(each)

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.refuse:
                _end(client)
                continue
            try:
                server = socket.create_connection(self.upstream, 10)
            except OSError:
                _end(client)
                continue
            server.settimeout(None)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or each answer waits 40 ms for the next
            self._open += [client, server]
            lost = threading.Event()
            threading.Thread(target=self._up, args=(client, server, lost), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client, lost), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        """From the client; a message may come in pieces."""
        tail = b""
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                with self._lock:
                    numbers = range(self.seen + 1, self.seen + 1 + (tail + data).count(self.mark))
                    self.seen += len(numbers)
                when = next((self.cuts[n] for n in numbers if n in self.cuts), "never")
                tail = (tail + data)[-(len(self.mark) - 1) :]
                if self.hang:
                    continue
                if when == "before":
                    break
                if when == "after":
                    lost.set()  # before it can answer
                server.sendall(data)
                if when == "after":
                    with contextlib.suppress(TimeoutError):
                        server.settimeout(1.0)
                        server.recv(1, socket.MSG_PEEK)  # it has answered, so it has the message
                    break
        _end(client)
        _end(server)

    def _down(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while not lost.is_set():
                piece = server.recv(65536, socket.MSG_PEEK)
                if not piece or lost.is_set():
                    break
                server.recv(len(piece))
                if not self.hang:
                    client.sendall(piece)
        if not lost.is_set():
            _end(client)
            _end(server)


def _end(each: socket.socket | None) -> None:
    if each is not None:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            each.close()


StartTcpProxy = Callable[[int, bytes], TcpProxy]


@pytest.fixture
def start_tcp_proxy() -> Iterator[StartTcpProxy]:
    """`start_tcp_proxy(port, mark)` stands before the loopback server on that port."""
    started: list[TcpProxy] = []

    def start(port: int, mark: bytes) -> TcpProxy:
        proxy = TcpProxy(("127.0.0.1", port), mark)
        proxy.start()
        started.append(proxy)
        return proxy

    yield start
    for proxy in started:
        proxy.stop()
