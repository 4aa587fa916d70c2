"""Socket options for subscribers: detect peers that are gone, and buffer little for those that do not read.

Deployed clients cannot be pinged, as they take any byte that is not an event for an error. What remains is TCP
keep-alive, which the peer's kernel answers: a peer that does not answer is disconnected after a minute.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

IDLE_S: Final = 30
"""After how many silent seconds the peer is probed."""
INTERVAL_S: Final = 10
"""Seconds between two probes."""
PROBES: Final = 3
"""After how many unanswered probes the connection breaks."""
SEND_BUFFER: Final = 32 << 10
"""The send buffer, in bytes: enough for some dozen events. More would only become stale."""

_ABORTIVE: Final = struct.pack("ii", 1, 0)


def watch(transport: asyncio.Transport) -> None:
    """Apply the options; does nothing if the transport is not a TCP socket."""
    connection = _socket(transport)
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (
        ("TCP_KEEPIDLE", IDLE_S),
        ("TCP_KEEPINTVL", INTERVAL_S),
        ("TCP_KEEPCNT", PROBES),
        # keep-alive is suspended while data is unacknowledged, so that has a time-out of its own
        ("TCP_USER_TIMEOUT", (IDLE_S + PROBES * INTERVAL_S) * 1000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def cut(transport: asyncio.Transport) -> None:
    """Abort the connection with a reset, never with a clean end.

    Source: a deployed client does not subscribe again after a clean end of the stream, but does after a reset.
    """
    connection = _socket(transport)
    if connection is not None and not transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE)
    transport.abort()


def _socket(transport: asyncio.Transport) -> socket.socket | None:
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return connection
