"""Settings of a subscriber's socket: find out who is gone, and keep little for who does not read.

Deployed clients cannot be pinged, as they take any byte that is no event for an error. What is left is TCP's own
keep-alive: the peer's kernel answers it, and one that does not is gone after a minute.
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
"""What the kernel keeps for a subscriber that does not read, in bytes: some dozen events. More would only grow old."""

_ABORTIVE: Final = struct.pack("ii", 1, 0)


def watch(transport: asyncio.Transport) -> None:
    """Apply the settings; a transport that is no TCP socket stays as it is."""
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
        # keep-alive rests while data is on its way, so that has a limit of its own
        ("TCP_USER_TIMEOUT", (IDLE_S + PROBES * INTERVAL_S) * 1000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def cut(transport: asyncio.Transport) -> None:
    """Break the connection with a reset: never anything that looks like an end.

    Source: a deployed client whose stream ends properly never subscribes again; one whose stream breaks does.
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
