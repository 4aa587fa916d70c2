"""Gateways that do wrong, each in a way of its own: the suite must find out.

One of them, :class:`Fake`, does nothing right but answer; the others are a proxy in front of a right one.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from conformance.wire import Reply, Url, request

Spoil = Callable[[str, str, Reply], tuple[int, bytes] | None]
"""Method, path and right reply -> the wrong status and body; None leaves it as it is."""


def say_ok(method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Whatever is asked for is granted, and nothing is done."""
    if path.endswith("/leases") and method == "POST":
        return 200, json.dumps({"status": "ok", "session_token": "AAAA", "max_api_version": 2}).encode()
    return 200, json.dumps({"status": "ok", "final_revision": 1_000_000, "data": {}}).encode()


def refuse(method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Nothing is granted."""
    return 200, json.dumps({"status": "error", "reason": "no"}).encode()


def rubbish(method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Not even JSON."""
    return 500, b"<html>Internal Server Error</html>"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        answer: Callable[[str, str, bytes], tuple[int, bytes]] = self.server.answer  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.forwarded = dict(self.headers.items())
        status, content = answer(self, body) if self.server.proxy else answer(self.command, self.path, body)  # type: ignore[attr-defined,arg-type,call-arg]
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = do_HEAD = _answer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def fake(answer: Callable[[str, str, bytes], tuple[int, bytes]]) -> Iterator[str]:
    """The URL of a gateway that answers like this."""
    yield from _serve(answer, proxy=False)


@contextlib.contextmanager
def spoiled(gateway: str, spoil: Spoil) -> Iterator[str]:
    """The URL of a gateway whose replies are *gateway*'s, but for those that *spoil* replaces."""
    url = Url(gateway)

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        dropped = ("host", "content-length", "connection", "expect")
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in dropped}
        reply = request(url, handler.command, handler.path, body, headers)
        return spoil(handler.command, handler.path, reply) or (reply.status, reply.body)

    yield from _serve(answer, proxy=True)


def _serve(answer: Callable[..., tuple[int, bytes]], *, proxy: bool) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.answer, server.proxy = answer, proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
