"""Gateways that do wrong, each in a way of its own: the suite must find out.

One of them, :func:`fake`, does nothing right but answer; the others are a proxy in front of a right one, which changes
requests, replies or the events of a stream.
"""

from __future__ import annotations

import contextlib
import json
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from conformance.stream import Notifications
from conformance.wire import Key, Reply, Url, request

Answer = Callable[[str, str, bytes], tuple[int, bytes]]
"""Method, path and body -> status and body of the reply."""
Spoil = Callable[[str, str, Reply], tuple[int, bytes] | None]
"""Method, path and right reply -> the wrong status and body; None leaves it as it is."""
Meddle = Callable[[str, str, dict[str, str], bytes], bytes]
"""Method, path, headers (which may be changed) and body -> the body that the gateway gets."""
Stir = Callable[[int, bytes], Sequence[bytes]]
"""Number of an event of a stream and its chunk -> the chunks in its place; an empty one ends the stream cleanly."""


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


def trusting(key: Key) -> Meddle:
    """Whoever asks is taken for *key*, however that is signed."""

    def sign(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        size = headers.get("Message-Size", "")
        token = unquote(path.rpartition("/")[2]).encode()
        message = token if "/leases/" in path or "/payloads/" in path else body[: int(size)] if size.isdigit() else body
        headers["Authorization"] = key.authorization(message)
        return body

    return sign


def slow(seconds: float) -> Meddle:
    """Each request waits so long."""

    def wait(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        time.sleep(seconds)
        return body

    return wait


@dataclass
class Wrong:
    """What a proxy does to what passes. *swallow*: parts of paths that are answered by :func:`say_ok` in its place."""

    spoil: Spoil = lambda method, path, reply: None
    meddle: Meddle = lambda method, path, headers, body: body
    stir: Stir = lambda number, chunk: [chunk]
    swallow: tuple[str, ...] = ()
    chunked: bool = False
    """Replies come in chunks, and in two pieces."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, serve: Callable[[_Handler, bytes], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.serve = serve

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are nothing to speak of."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _answer(self) -> None:
        self.server.serve(self, self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def reply(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def reply_chunked(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk(content)
        self.chunk(b"")

    def chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = do_HEAD = _answer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def fake(answer: Answer) -> Iterator[str]:
    """The URL of a gateway that answers like this."""
    yield from _serve(lambda handler, body: handler.reply(*answer(handler.command, handler.path, body)))


@contextlib.contextmanager
def spoiled(gateway: str, wrong: Wrong) -> Iterator[str]:
    """The URL of a gateway that is as *gateway*, but for what is *wrong* with it."""
    url = Url(gateway)

    def serve(handler: _Handler, body: bytes) -> None:
        dropped = ("host", "content-length", "connection", "expect")
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in dropped}
        method, path = handler.command, handler.path
        if path.endswith("/notifications/subscribe"):
            _relay(handler, body, gateway, wrong.stir)
            return
        if any(part in path for part in wrong.swallow):
            handler.reply(*say_ok(method, path, body))
            return
        body = wrong.meddle(method, path, headers, body)
        reply = request(url, method, path, body, headers)
        status, content = wrong.spoil(method, path, reply) or (reply.status, reply.body)
        (handler.reply_chunked if wrong.chunked else handler.reply)(status, content)

    yield from _serve(serve)


def _relay(handler: _Handler, body: bytes, gateway: str, stir: Stir) -> None:
    """A stream, event by event, until one side has enough."""
    handler.close_connection = True
    with Notifications(gateway, 10.0).subscribe("", body=body, agent=handler.headers["User-Agent"]) as upstream:
        first = upstream.next(0.2)
        handler.send_response(upstream.status or 200)
        for name, value in {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}.items():
            handler.send_header(name, value)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        number = 0
        while not upstream.ended and not select.select([handler.connection], [], [], 0)[0]:
            chunk = first if first is not None else upstream.next(0.05)
            first = None
            if chunk is None:
                continue
            for piece in stir(number, chunk):
                handler.chunk(piece)
                if not piece:
                    return
            number += 1


def _serve(serve: Callable[[_Handler, bytes], None]) -> Iterator[str]:
    server = _Server(serve)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
