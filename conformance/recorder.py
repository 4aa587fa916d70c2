"""A proxy in front of a gateway that records what publishers and gateway say, for sites to send us.

Tokens are numbered and signatures left out. Paths, host names and object packs are kept: look at a recording before it
is handed on.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from conformance.session import Exchange, Session
from conformance.wire import Key, Reply, Url, request

_KEPT: Final = ("Content-Type", "Expect", "User-Agent")
_SENT: Final = ("Authorization", "Message-Size", "Content-Type", "User-Agent")
_MAX_BODY: Final = 1 << 30


class Recorder(ThreadingHTTPServer):
    """The proxy. A request is noted when it has been answered."""

    daemon_threads = True

    def __init__(self, port: int, upstream: str, key: Key) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.upstream, self.key = Url(upstream.rstrip("/").removesuffix("/api/v1")), key
        self.exchanges: list[Exchange] = []
        self._tokens: list[str] = []
        self._lock = threading.Lock()

    def session(self, about: str) -> Session:
        """What was recorded up to now."""
        with self._lock:
            exchanges = list(self.exchanges)
        agents = {each.headers.get("User-Agent", "") for each in exchanges}
        paths = [json.loads(each.text).get("path", "") for each in exchanges if each.signed == "body"]
        fqrn = next((str(path).partition("/")[0] for path in paths if path), "")
        return Session(about, ", ".join(sorted(agents)), fqrn, 0, [], {}, exchanges)

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
        length = int(self.headers.get("Content-Length", "0"))
        if length > _MAX_BODY:
            self.send_error(413)
            return
        body = self.rfile.read(length)
        headers = {name: self.headers[name] for name in _SENT if name in self.headers}
        reply = request(self.server.upstream, self.command, self.path, body, headers, timeout=3600.0)
        self.server.note(self, body, reply)
        kind = reply.headers.get("content-type", "application/json")
        head = f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('',))[0]}\r\n"
        head += f"Content-Type: {kind}\r\nContent-Length: {len(reply.body)}\r\n\r\n"
        # In one piece: that is what publishers can read.
        self.wfile.write(head.encode() + reply.body)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _pass_on

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: URLs hold tokens."""


def record(port: int, upstream: str, key: Key, output: Path, about: str) -> int:
    """Run the proxy until it is interrupted; writes the file then."""
    server = Recorder(port, upstream, key)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"publishers: http://127.0.0.1:{server.server_address[1]}/api/v1    end with Ctrl-C", file=sys.stderr)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        server.session(about).save(output)
    print(f"{len(server.exchanges)} requests in {output}", file=sys.stderr)
    return 0
