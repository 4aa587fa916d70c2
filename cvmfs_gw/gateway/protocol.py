"""The protocol versions, and the limits on what a client may send.

Source: releases before 2.13 speak protocol 3, later ones 4, in which the server creates missing ancestors of the lease
path at commit. The limits are this server's own, except the one on the header of a pack, and so on the number of
objects, which belongs to the format.
"""

from __future__ import annotations

from typing import Final

API_ROOT: Final = "/api/v1"

MIN_PROTOCOL: Final = 2
"""The oldest protocol that is accepted."""
MAX_PROTOCOL: Final = 4
"""The newest protocol, which is announced."""

MAX_JSON_BODY: Final = 1 << 20
"""The longest JSON body of a request, in bytes."""
MAX_PAYLOAD_HEAD: Final = 64 << 10
"""The longest JSON head of a payload (``Message-Size``), in bytes."""
MAX_PAYLOAD: Final = 1 << 40
"""The maximum size of the objects in a pack, in bytes."""
MAX_ASKED: Final = 10_000
"""The maximum number of objects in one query for missing objects."""
MAX_DRAIN_UNSIGNED: Final = 1 << 30
"""How much of an unauthorized body is read and discarded, so that its sender gets to see the reply, in bytes."""
MAX_HOSTNAME: Final = 255
"""The number of characters of a publisher's host name that are kept."""
MAX_REQUEST: Final = 64
"""The longest name of a lease request, in characters."""
MAX_TOKEN: Final = 256
"""The longest token that is looked up, in characters."""


def negotiate(client: int) -> int:
    """The protocol to speak with a client whose newest is *client*."""
    return min(client, MAX_PROTOCOL)
