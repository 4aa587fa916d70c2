"""HTTP as the suite speaks it: one connection for each request, every byte of the reply kept.

A deployed publisher takes a reply from one read of its socket, so :attr:`Reply.first` tells what came with the first.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from conformance.outcomes import Failed

_PIECE: Final = 1 << 16
_MAX_REPLY: Final = 1 << 30
_TOKEN: Final = re.compile(r'("session_token":\s*"[^"]{4})[^"]*')


@dataclass(frozen=True, slots=True)
class Key:
    """A gateway key."""

    id: str
    secret: bytes

    def authorization(self, message: bytes) -> str:
        """The header that signs *message*: base64 of the hex text of the MAC."""
        text = hmac.new(self.secret, message, hashlib.sha1).hexdigest()
        return f"{self.id} {base64.b64encode(text.encode()).decode()}"

    @classmethod
    def read(cls, path: str) -> Key:
        """From a file with one line ``plain_text <id> <secret>``; raises ``ValueError`` and ``OSError``."""
        with open(path, encoding="utf-8") as file:
            words = file.read().split()
        if len(words) != 3 or words[0] != "plain_text":
            raise ValueError(f"{path} is no gateway key: plain_text <id> <secret>")
        return cls(words[1], words[2].encode())


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, complete. ``first`` is what the first read of the socket gave; ``seconds`` until the last one."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    first: bytes
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object in the body; raises :exc:`Failed`."""
        try:
            content = json.loads(self.body)
        except ValueError:
            raise Failed(f"HTTP {self.status} with a body that is not JSON: {self.body[:200]!r}") from None
        if not isinstance(content, dict):
            raise Failed(f"HTTP {self.status} with JSON that is not an object: {self.body[:200]!r}")
        return content

    def __str__(self) -> str:
        body = _TOKEN.sub(r"\1...", self.body[:300].decode(errors="replace"))
        return f"HTTP {self.status} {body!r}"


class Url:
    """An ``http://`` or ``https://`` URL to connect to."""

    def __init__(self, text: str) -> None:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"no HTTP URL: {text}")
        self.text = text.rstrip("/")
        self.secure = parts.scheme == "https"
        self.host, self.port = parts.hostname, parts.port or (443 if self.secure else 80)
        self.path = parts.path.rstrip("/")
        self.netloc = parts.netloc.rpartition("@")[2]

    def connect(self, timeout: float) -> socket.socket:
        """A new connection; raises ``OSError``."""
        connection = socket.create_connection((self.host, self.port), timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.secure:
            return ssl.create_default_context().wrap_socket(connection, server_hostname=self.host)
        return connection


def head(
    method: str, target: str, host: str, headers: Mapping[str, str], length: int | None, *, close: bool = True
) -> bytes:
    """The head of a request. *length* None leaves ``Content-Length`` out."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def request(
    url: Url,
    method: str,
    target: str,
    body: bytes | Iterable[bytes] = b"",
    headers: Mapping[str, str] | None = None,
    *,
    length: int | None = None,
    timeout: float = 60.0,
) -> Reply:
    """Send one request and read its reply; raises ``OSError`` and :exc:`Failed` for what is no HTTP.

    *length* is that of a body in pieces; what is announced may be another number than what is sent.
    """
    started = time.monotonic()
    pieces = [body] if isinstance(body, bytes) else body
    if isinstance(body, bytes) and length is None:
        length = len(body)
    with url.connect(timeout) as connection:
        # A server may refuse and close before it has read all: the reply counts then, not the failed send.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            lead = head(method, target, url.netloc, headers or {}, length)
            for piece in pieces:
                connection.sendall(lead + piece)
                lead = b""
            if lead:
                connection.sendall(lead)
        return read_reply(connection, started, method)


def read_reply(connection: socket.socket, started: float, method: str = "GET") -> Reply:
    """Read one reply to its end; raises ``OSError`` and :exc:`Failed`."""
    first = connection.recv(_PIECE)
    data = first
    while b"\r\n\r\n" not in data:
        more = connection.recv(_PIECE)
        if not more:
            raise ConnectionResetError(f"the connection was closed without a reply, after {data[:200]!r}")
        data += more
    status, headers, rest = parse_head(data)
    if status == 100:
        connection_rest = rest
        while b"\r\n\r\n" not in connection_rest:
            more = connection.recv(_PIECE)
            if not more:
                raise ConnectionResetError("nothing after 100 Continue")
            connection_rest += more
        first = connection_rest
        status, headers, rest = parse_head(connection_rest)
    body = rest
    if method != "HEAD" and status not in (204, 304):
        body = _read_body(connection, headers, rest)
    return Reply(status, headers, body, first, time.monotonic() - started)


def parse_head(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers with lower-case names, and what follows the head; raises :exc:`Failed`."""
    text, _, rest = data.partition(b"\r\n\r\n")
    lines = text.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise Failed(f"no HTTP reply: {data[:200]!r}")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(words[1]), headers, rest


def _read_body(connection: socket.socket, headers: Mapping[str, str], rest: bytes) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        data = bytearray(rest)
        body = bytearray()
        while True:
            while b"\r\n" not in data:
                _more(connection, data)
            line, _, _ = data.partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            end = len(line) + 2 + size + 2
            while len(data) < end:
                _more(connection, data)
            body += data[len(line) + 2 : end - 2]
            del data[:end]
            if not size:
                return bytes(body)
    if "content-length" in headers:
        wanted = int(headers["content-length"])
        if wanted > _MAX_REPLY:
            raise Failed(f"a reply of {wanted} bytes")
        found = bytearray(rest)
        while len(found) < wanted:
            _more(connection, found)
        return bytes(found)
    found = bytearray(rest)
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(_PIECE):
            found += piece
    return bytes(found)


def _more(connection: socket.socket, data: bytearray) -> None:
    piece = connection.recv(_PIECE)
    if not piece:
        raise ConnectionResetError(f"the reply ends early, after {len(data)} bytes")
    data += piece
