"""A proxy in front of a gateway or a notification server that records what is said, for sites to send us.

Requests are noted with their replies when these are complete, subscribers' streams message by message.
Tokens are numbered and signatures left out. Paths, host names and object packs are kept: look at a recording before it
is handed on.
"""

from __future__ import annotations

import contextlib
import functools
import json
import select
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from conformance.chaos import reset
from conformance.outcomes import Failed
from conformance.session import Exchange, Session, Stream
from conformance.taps import Events, Frames, Listener
from conformance.wire import Key, Reply, Url, request

_KEPT: Final = ("Content-Type", "Expect", "User-Agent")
_SENT: Final = ("Authorization", "Message-Size", "Content-Type", "User-Agent")
_MAX_BODY: Final = 1 << 30
_MAX_RECORDED: Final = 2 << 30
"""What is recorded is kept in memory until it is written."""
_PIECE: Final = 1 << 16
_STREAM_S: Final = 7200.0


class Recorder(ThreadingHTTPServer):
    """The proxy. A request is noted when it has been answered."""

    daemon_threads = True

    def __init__(self, port: int, upstream: str, key: Key, host: str = "127.0.0.1") -> None:
        super().__init__((host, port), _Handler)
        self.upstream, self.key = Url(upstream.rstrip("/").removesuffix("/api/v1")), key
        self.exchanges: list[Exchange] = []
        self.streams: list[Listener] = []
        self._tokens: list[str] = []
        self._room = _MAX_RECORDED
        self._lock = threading.Lock()

    def session(self, about: str) -> Session:
        """What was recorded up to now."""
        with self._lock:
            exchanges = list(self.exchanges)
        agents = {each.headers.get("User-Agent", "") for each in exchanges}
        streams = self.told()
        names = [_member(each.text, "path").partition("/")[0] for each in exchanges if each.signed == "body"]
        names += [_member(each.text, "repository") for each in streams]
        fqrn = next(filter(None, names), "")
        agents |= {each.headers.get("User-Agent", "") for each in streams}
        return Session(about, ", ".join(sorted(agents - {""})), fqrn, 0, [], {}, exchanges, {}, streams)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def restart(self) -> None:
        """Forget what was recorded up to now."""
        with self._lock:
            self.exchanges.clear()
            self.streams.clear()
            self._tokens.clear()

    def told(self) -> list[Stream]:
        """The streams up to now."""
        with self._lock:
            return [Stream(*each.asked, list(each.messages)) for each in self.streams]

    def listen(self, kind: str, handler: BaseHTTPRequestHandler, text: str) -> Listener:
        """There is a new subscriber."""
        headers = {name: handler.headers[name] for name in _KEPT if name in handler.headers}
        with self._lock:
            made = Listener((kind, handler.path, headers, text, len(self.exchanges)))
            self.streams.append(made)
        return made

    def hear(self, listener: Listener, data: bytes) -> None:
        """A subscriber was told something."""
        try:
            content = json.loads(data)
        except ValueError:
            return
        if isinstance(content, dict):
            with self._lock:
                listener.messages.append(content)

    def note(self, handler: BaseHTTPRequestHandler, body: bytes, reply: Reply) -> None:
        """Record a request and its reply, if it is JSON."""
        try:
            content = json.loads(reply.body)
        except ValueError:
            return
        if not isinstance(content, dict):
            return
        size = handler.headers.get("Message-Size", "")
        has_pack = size.isdigit()
        text, pack = (body[: int(size)], body[int(size) :]) if has_pack else (body, None)
        signed = self._signed(handler, text, has_pack)
        with self._lock:
            if self._room < 0:
                return
            self._room -= len(body)
            if self._room < 0:
                print("the recording is full: what follows is handed on and not recorded", file=sys.stderr)
                return
            token = content.get("session_token")
            if isinstance(token, str) and token not in self._tokens:
                self._tokens.append(token)
            self.exchanges.append(
                Exchange(
                    method=handler.command,
                    path=self._anonymous(handler.path),
                    signed=signed,
                    headers={name: handler.headers[name] for name in _KEPT if name in handler.headers},
                    text=self._anonymous(text.decode("utf-8", "surrogateescape")),
                    pack=pack,
                    status=reply.status,
                    reply=json.loads(self._anonymous(json.dumps(content))),
                )
            )

    def _signed(self, handler: BaseHTTPRequestHandler, text: bytes, has_pack: bool) -> str:
        claimed = handler.headers.get("Authorization")
        token = unquote(handler.path.rpartition("/")[2]).encode()
        candidates = {"token": token, "head" if has_pack else "body": text}
        return next((what for what, message in candidates.items() if self.key.authorization(message) == claimed), "")

    def _anonymous(self, text: str) -> str:
        for number, token in enumerate(self._tokens, 1):
            for form in (token, quote(token, safe="")):
                text = text.replace(form, f"<token {number}>")
        return text


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def _pass_on(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._relay("websocket", b"")
            return
        length = int(self.headers.get("Content-Length", "0"))
        if length > _MAX_BODY:
            self.send_error(413)
            return
        body = self.rfile.read(length)
        if self.command == "GET" and self.path.endswith("/notifications/subscribe"):
            self._relay("events", body)
            return
        headers = {name: self.headers[name] for name in _SENT if name in self.headers}
        try:
            reply = request(self.server.upstream, self.command, self.path, body, headers, timeout=3600.0)
        except (OSError, Failed) as error:
            print(f"{self.command} was not answered: {error}", file=sys.stderr)
            reply = Reply(502, {}, b'{"status":"error","reason":"the recorder cannot reach the gateway"}', b"", 0.0)
        else:
            self.server.note(self, body, reply)
        kind = reply.headers.get("content-type", "application/json")
        head = f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('',))[0]}\r\n"
        head += f"Content-Type: {kind}\r\nContent-Length: {len(reply.body)}\r\n\r\n"
        # In one piece: that is what publishers can read.
        self.wfile.write(head.encode() + reply.body)

    def _relay(self, kind: str, body: bytes) -> None:
        """Hand bytes on in both directions until one side ends it, in the way in which it does."""
        self.close_connection = True
        url = self.server.upstream
        # Without extensions, so that frames can be read.
        headers = {n: v for n, v in self.headers.items() if n.lower() not in ("host", "sec-websocket-extensions")}
        lines = [f"{self.command} {self.path} HTTP/1.1", f"Host: {url.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        text = body.decode("utf-8", "replace")
        made = functools.partial(self.server.listen, kind, self)
        tap = Frames(made, self.server.hear) if kind == "websocket" else Events(made(text), self.server.hear)
        with url.connect(_STREAM_S) as upstream:
            upstream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
            while True:
                ready, _, _ = select.select([upstream, self.connection], [], [])
                for source in ready:
                    try:
                        data = source.recv(_PIECE)
                    except OSError:
                        data = b""
                    if not data:
                        if source is upstream and not tap.is_complete:
                            reset(self.connection)
                        return
                    (self.connection if source is upstream else upstream).sendall(data)
                    tap.seen(data, from_server=source is upstream)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _pass_on

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: URLs hold tokens."""


@contextlib.contextmanager
def recording(upstream: str, key: Key) -> Iterator[Recorder]:
    """A recorder that runs, on any port of loopback."""
    recorder = Recorder(0, upstream, key)
    thread = threading.Thread(target=recorder.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield recorder
    finally:
        recorder.shutdown()
        thread.join()
        recorder.server_close()


def record(host: str, port: int, upstream: str, key: Key, output: Path, about: str) -> int:
    """Run the proxy until it is interrupted; writes the file then."""
    server = Recorder(port, upstream, key, host)
    # Both: a shell has what it starts in the background ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    where = f"http://{host}:{server.server_address[1]}/api/v1"
    print(f"publishers and subscribers: {where}    end with Ctrl-C", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()
        server.session(about).save(output)
    print(f"{len(server.exchanges)} requests in {output}", file=sys.stderr)
    return 0


def _member(text: str, name: str) -> str:
    """A member of a JSON object; ``""`` if there is none, or no such object."""
    try:
        content = json.loads(text)
    except ValueError:
        return ""
    return str(content.get(name, "")) if isinstance(content, dict) else ""
