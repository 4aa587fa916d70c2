"""A subscription as a deployed client makes it: a GET with a JSON body, and what comes of it, chunk by chunk."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from conformance.gateway import AGENT, API_ROOT
from conformance.outcomes import Failed
from conformance.wire import Reply, Url, head, parse_head, request

_PIECE: Final = 1 << 16


def activity(fqrn: str, manifest: bytes, moment: str) -> bytes:
    """The message by which a publisher tells of a new revision."""
    content = {
        "version": 1,
        "timestamp": moment,
        "type": "activity",
        "repository": fqrn,
        "manifest": base64.b64encode(manifest).decode(),
    }
    return json.dumps(content).encode()


class Notifications:
    """The notification server at *url*, which may end in ``/api/v1``."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = Url(url.rstrip("/").removesuffix(API_ROOT))
        self.root = self.url.path + API_ROOT
        self.timeout = timeout

    def publish(self, message: bytes, timeout: float | None = None) -> Reply:
        route = f"{self.root}/notifications/publish"
        headers = {"User-Agent": AGENT, "Content-Type": "application/json"}
        return request(self.url, "POST", route, message, headers, timeout=timeout or self.timeout)

    def flood(self, messages: Sequence[bytes]) -> None:
        """Publish all at the same moment, each on a connection that is open already; raises ``OSError``."""
        route = f"{self.root}/notifications/publish"
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(self.url.connect(self.timeout)) for _ in messages]
            for connection, message in zip(connections, messages, strict=True):
                connection.sendall(head("POST", route, self.url.netloc, {"User-Agent": AGENT}, len(message)) + message)
            for connection in connections:
                connection.recv(_PIECE)

    def subscribe(self, fqrn: str, *, agent: str = AGENT, body: bytes | None = None) -> Subscription:
        """Open a stream; returns at once."""
        return Subscription(
            self, json.dumps({"version": 1, "repository": fqrn}).encode() if body is None else body, agent
        )


class Chunks:
    """A reply as it comes in, cut into its chunks."""

    def __init__(self) -> None:
        self._data = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_complete = False
        """Whether the terminating chunk has come, or as many bytes as were announced."""
        self._left = -1

    def feed(self, data: bytes) -> None:
        """More of it."""
        self._data += data

    def take(self) -> bytes | None:
        """The next chunk; None if more is needed first."""
        if not self.status:
            if b"\r\n\r\n" not in self._data:
                return None
            self.status, self.headers, self._data = parse_head(self._data)
            self._left = int(self.headers.get("content-length", "-1"))
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            chunk, self._data = self._data, b""
            self._left -= len(chunk)
            self.is_complete = not self._left
            return chunk or None
        line, mark, rest = self._data.partition(b"\r\n")
        if not mark:
            return None
        size = int(line.split(b";")[0], 16)
        if len(rest) < size + 2:
            return None
        self._data = rest[size + 2 :]
        if not size:
            self.is_complete = True
            return None
        return rest[:size]


class Subscription:
    """An open stream; a context manager. Times are in seconds."""

    def __init__(self, server: Notifications, body: bytes, agent: str) -> None:
        self._socket = server.url.connect(server.timeout)
        route = f"{server.root}/notifications/subscribe"
        headers = {"User-Agent": agent, "Content-Type": "application/json"}
        self._socket.sendall(head("GET", route, server.url.netloc, headers, len(body), close=False) + body)
        self._reply = Chunks()
        self.chunks: list[bytes] = []
        self.ended = ""
        """How the stream ended: ``""`` while it is open, ``clean`` or ``broken``."""

    @property
    def status(self) -> int:
        """Of the reply; 0 while it has not come."""
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._reply.headers

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def abort(self) -> None:
        """Go away with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._socket.close()

    def next(self, seconds: float) -> bytes | None:
        """The next chunk; None if nothing comes for so long or the stream has ended."""
        deadline = time.monotonic() + seconds
        while not self.ended:
            chunk = self._reply.take()
            if chunk is not None:
                self.chunks.append(chunk)
                return chunk
            if self._reply.is_complete:
                self.ended = "clean"
                return None
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(_PIECE)
            except TimeoutError:
                return None
            except OSError:
                data = b""
            if not data:
                self.ended = "broken"
                return None
            self._reply.feed(data)
        return None

    def message(self, seconds: float) -> dict[str, Any]:
        """The next message; raises :exc:`Failed`."""
        chunk = self.next(seconds)
        if chunk is None:
            raise Failed(f"no message within {seconds:.0f} s (the stream is {self.ended or 'open'})")
        return parse_event(chunk)

    def drain(self, seconds: float = 0.5) -> list[dict[str, Any]]:
        """What else comes until it is quiet for so long."""
        found = []
        while (chunk := self.next(seconds)) is not None:
            found.append(parse_event(chunk))
        return found


def parse_event(chunk: bytes) -> dict[str, Any]:
    """The message in a chunk; raises :exc:`Failed` for what a deployed client would not understand."""
    line, _, _ = chunk.partition(b"\n")
    if not line.startswith(b"data: "):
        raise Failed(f"a chunk that does not begin with data: {chunk[:100]!r}")
    try:
        content = json.loads(line[6:])
    except ValueError:
        raise Failed(f"a message that is not JSON: {line[:100]!r}") from None
    if not isinstance(content, dict):
        raise Failed(f"a message that is no JSON object: {line[:100]!r}")
    return content
