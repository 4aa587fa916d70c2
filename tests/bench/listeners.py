"""Many subscribers in one process, as deployed clients are: ``python listeners.py '{"port":..., "count":..., ...}'``.

Reads commands from standard input, one JSON object a line, and answers each with one line:

``{"publish": "<message>", "expect": n}``  send it; when every subscriber has got n events, or none came for a while
``{"post": ["<message>", ...]}``          send them, one after the other, until one is not answered for some seconds

Uses nothing that is not in the standard library, and epoll itself: it must be faster than what it measures.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import select
import socket
import sys
import time
from typing import Any, Final

_QUIET_S: Final = 3.0
"""After so many silent seconds nothing more is expected."""
_ANSWER_S: Final = 5.0
_AT_ONCE: Final = 64


class Listeners:
    """*silent*: the server says nothing before there is a message, not even that the subscription is accepted."""

    def __init__(self, port: int, count: int, fqrn: str, root: str, silent: bool) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._port, self._root, self._silent = port, root, silent
        body = json.dumps({"version": 1, "repository": fqrn}).encode()
        self._request = (
            f"GET {root}/notifications/subscribe HTTP/1.1\r\nHost: localhost\r\nUser-Agent: cvmfs/2.12.0\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._opened: set[int] = set()
        self.events = 0
        self.broken = 0
        self.arrivals: list[float] = []
        self._connect(count)

    def _connect(self, count: int) -> None:
        """Open all streams, some at a time; ends when each has its head."""
        while len(self._sockets) < count:
            for _ in range(min(_AT_ONCE, count - len(self._sockets))):
                connection = socket.create_connection(("127.0.0.1", self._port), 30)
                connection.sendall(self._request)
                connection.setblocking(False)
                self._sockets[connection.fileno()] = connection
                self._poll.register(connection, select.EPOLLIN)
            while not self._silent and len(self._opened) < len(self._sockets):
                if not self._turn(_QUIET_S):
                    raise SystemExit("no head of a stream within some seconds")
        while self._turn(1.0):
            pass

    def _turn(self, timeout: float) -> bool:
        """Read what there is; False if there was nothing for so long."""
        ready = self._poll.poll(timeout, 1024)
        for fd, _ in ready:
            connection = self._sockets.get(fd)
            if connection is None:
                continue
            try:
                data = connection.recv(65536)
            except BlockingIOError:
                continue
            except ConnectionError:
                data = b""
            if not data:
                self.broken += 1
                self._poll.unregister(fd)
                continue
            self._opened.add(fd)
            found = data.count(b"data: ")
            self.events += found
            if found:
                self.arrivals += [time.monotonic()] * found
        return bool(ready)

    def add_stuck(self) -> None:
        """Subscribe once more, with small buffers, and never read."""
        self._stuck = socket.socket()
        self._stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self._stuck.connect(("127.0.0.1", self._port))
        self._stuck.sendall(self._request)

    def post(self, messages: list[str]) -> dict[str, Any]:
        """How many of *messages* are taken in before one is not answered within :data:`_ANSWER_S`."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_S)
        answered = 0
        try:
            for message in messages:
                connection.request("POST", f"{self._root}/notifications/publish", message.encode())
                connection.getresponse().read()
                answered += 1
                self._turn(0)
        except TimeoutError:
            pass
        finally:
            connection.close()
        return {"answered": answered}

    def publish(self, message: bytes, expect: int) -> dict[str, Any]:
        """Publish and wait for the last delivery; times are in seconds from the sending of the message on."""
        self.events, self.arrivals = 0, []
        head = (
            f"POST {self._root}/notifications/publish HTTP/1.1\r\nHost: localhost\r\nUser-Agent: cvmfs/2.12.0\r\n"
            f"Content-Length: {len(message)}\r\n\r\n"
        )
        acknowledged = 0.0
        with socket.create_connection(("127.0.0.1", self._port), 30) as publisher:
            publisher.setblocking(False)
            self._poll.register(publisher, select.EPOLLIN)
            started = time.monotonic()
            publisher.sendall(head.encode() + message)
            wanted = expect * (len(self._sockets) - self.broken)
            while self.events < wanted or not acknowledged:
                moved = self._turn(_QUIET_S)
                if not acknowledged:
                    try:
                        reply = publisher.recv(65536)
                    except BlockingIOError:
                        if not moved:
                            break
                        continue
                    if b'"ok"' not in reply:
                        raise SystemExit(f"refused: {reply!r}")
                    acknowledged = time.monotonic() - started
                    self._poll.unregister(publisher)
                elif not moved:
                    break
        last = self.arrivals[-1] - started if self.arrivals else 0.0
        while self._turn(0.1):
            pass
        return {"last": last, "events": self.events, "acknowledged": acknowledged, "broken": self.broken}


def main() -> None:
    settings = json.loads(sys.argv[1])
    listeners = Listeners(settings["port"], settings["count"], settings["fqrn"], settings["root"], settings["silent"])
    if settings["stuck"]:
        listeners.add_stuck()
    _say({"connected": settings["count"], "events": listeners.events})
    for line in sys.stdin:
        command = json.loads(line)
        if "post" in command:
            _say(listeners.post(command["post"]))
        else:
            _say(listeners.publish(command["publish"].encode(), command["expect"]))
    os._exit(0)  # thousands of sockets need not be closed one by one


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
