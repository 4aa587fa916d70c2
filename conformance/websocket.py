"""WebSockets as the older stand-alone notification server has them: frames, and a subscriber.

Source: RFC 6455; the server's ``/api/v1/subscribe`` on port 4930.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any, Final

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from conformance.gateway import API_ROOT
from conformance.outcomes import Failed
from conformance.wire import Url

TEXT: Final = 1
BINARY: Final = 2


def take_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """The first frame's kind and content, and what follows it; None if it is not complete."""
    if len(data) < 2:
        return None
    masked, size, at = data[1] & 0x80, data[1] & 0x7F, 2
    if size > 125:
        width = 2 if size == 126 else 8
        size, at = int.from_bytes(data[at : at + width], "big"), at + width
    mask, at = (data[at : at + 4], at + 4) if masked else (b"", at)
    if len(data) < at + size:
        return None
    content = data[at : at + size]
    if mask:
        content = bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))
    return data[0] & 0x0F, content, data[at + size :]


class WebSocketSubscriber:
    """A connection to *url* (``http://host:4930``); a context manager. Raises :exc:`Failed`."""

    def __init__(self, url: str, timeout: float, offered: tuple[str, ...] = ()) -> None:
        where = Url(url.rstrip("/").removesuffix(API_ROOT))
        scheme = "wss" if where.secure else "ws"
        self._stack = ExitStack()
        try:
            opening = connect(
                f"{scheme}://{where.netloc}{where.path}{API_ROOT}/subscribe",
                subprotocols=[Subprotocol(name) for name in offered] or None,
                open_timeout=timeout,
                close_timeout=1.0,
                compression=None,
                proxy=None,
            )
            self._connection = self._stack.enter_context(opening)
        except (WebSocketException, TimeoutError) as error:
            raise Failed(f"no WebSocket at {url}: {error}") from None
        self.protocol = self._connection.subprotocol

    def __enter__(self) -> WebSocketSubscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, content: bytes) -> None:
        """Send a binary frame."""
        self._connection.send(content)

    def subscribe(self, fqrn: str) -> None:
        self.ask(json.dumps({"version": 1, "repository": fqrn}).encode())

    def message(self, seconds: float) -> dict[str, Any]:
        """The next one; raises :exc:`Failed` if none comes or it is no JSON in a binary frame."""
        try:
            frame = self._connection.recv(seconds)
        except (WebSocketException, TimeoutError) as error:
            raise Failed(f"no frame within {seconds:.0f} s: {error!r}") from None
        if not isinstance(frame, bytes):
            raise Failed(f"a text frame, where a binary one is expected: {frame[:100]!r}")
        try:
            content = json.loads(frame)
        except ValueError:
            raise Failed(f"a frame that is not JSON: {frame[:100]!r}") from None
        if not isinstance(content, dict):
            raise Failed(f"a frame that holds no JSON object: {frame[:100]!r}")
        return content
