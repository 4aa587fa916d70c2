"""One open event stream, which owns its connection.

The HTTP server reads the request; then the stream becomes the protocol of the transport. So it learns at once when the
peer disconnects or the send buffer is full, writes each event in one piece, and can abort the connection instead of
closing it. A stream takes a few kilobytes and no task.

::

    paced: for gap_s after an event (strict)     nothing is sent meanwhile;
    full: the kernel's send buffer is full       the subscription's slot keeps the newest event
    closed

A stream that stays full for :data:`STUCK_S` is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cvmfs_notify import keepalive
from cvmfs_notify.broker import Event, Subscription
from cvmfs_notify.sse import GREETING, PING, Dialect, chunk

GAP_S: Final = 0.5
"""Seconds between two events for a deployed client. It must have read the first before the second arrives, and it does
not read while it switches to a new revision."""
PING_S: Final = 15.0
"""Seconds between two pings for a standard client."""
STUCK_S: Final = 60.0
"""Seconds for which a subscriber may read nothing while data is waiting for it."""
_MAX_CHATTER: Final = 4096
"""Bytes that a subscriber may send after its request; they are ignored."""

_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"X-Accel-Buffering: no\r\nAccess-Control-Allow-Origin: *\r\n"
)


class EventStream(asyncio.Protocol):
    """A subscriber's connection.

    *encode* serializes an event; *closed* is called once, when the connection is lost.
    """

    __slots__ = (
        "_chatter",
        "_chunked",
        "_closed",
        "_encode",
        "_full",
        "_gap_s",
        "_loop",
        "_ping",
        "_ping_s",
        "_timer",
        "_transport",
        "dialect",
        "subscription",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        subscription: Subscription,
        dialect: Dialect,
        encode: Callable[[Event, Dialect, bool], bytes],
        closed: Callable[[EventStream], None],
        *,
        chunked: bool = True,
        gap_s: float = GAP_S,
        ping_s: float = PING_S,
    ) -> None:
        self.subscription = subscription
        self.dialect = dialect
        self._transport = transport
        self._encode = encode
        self._closed = closed
        self._chunked = chunked
        self._gap_s = gap_s if dialect is Dialect.STRICT else 0.0
        self._ping_s = ping_s
        self._loop = asyncio.get_running_loop()
        self._full = False
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.TimerHandle | None = None
        self._chatter = 0

    def start(self) -> None:
        """Take the transport over and answer the request."""
        keepalive.watch(self._transport)
        # Any byte in user space counts as full, so that events wait in the slot, where newer ones replace them. (With
        # TLS, a limit of 0 would be reached with nothing to write.)
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        head = _HEAD + (b"Transfer-Encoding: chunked\r\n\r\n" if self._chunked else b"Connection: close\r\n\r\n")
        if self.dialect is Dialect.STANDARD:
            head += chunk(GREETING) if self._chunked else GREETING
            self._ping = self._loop.call_later(self._ping_s, self._send_ping)
        event = self.subscription.take()
        if event is not None:
            head += self._encode(event, self.dialect, self._chunked)
            self._pace()
        self._transport.write(head)
        self.flush()

    def flush(self) -> None:
        """Send what is in the slots, unless the stream is paced or full."""
        while not self._full and self._timer is None and not self._transport.is_closing():
            event = self.subscription.take()
            if event is None:
                return
            self._transport.write(self._encode(event, self.dialect, self._chunked))
            self._pace()

    def cut(self) -> None:
        """Abort the connection."""
        keepalive.cut(self._transport)

    # --- asyncio.Protocol ----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._chatter += len(data)
        if self._chatter > _MAX_CHATTER:
            self.cut()

    def pause_writing(self) -> None:
        self._full = True
        self._cancel_timer()
        self._timer = self._loop.call_later(STUCK_S, self.cut)

    def resume_writing(self) -> None:
        self._full = False
        self._cancel_timer()
        self._pace()
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._cancel_timer()
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None
        self._closed(self)

    # --- inside --------------------------------------------------------------------------------------------------

    def _pace(self) -> None:
        if self._gap_s and not self._full:
            self._timer = self._loop.call_later(self._gap_s, self._gap_over)

    def _gap_over(self) -> None:
        self._timer = None
        self.flush()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send_ping(self) -> None:
        self._ping = self._loop.call_later(self._ping_s, self._send_ping)
        if not self._full and not self._transport.is_closing():
            self._transport.write(chunk(PING) if self._chunked else PING)
