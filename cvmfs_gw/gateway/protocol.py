"""The numbers of the gateway's protocol that both sides must agree on, and the limits on what a client may send.

Source: releases before 2.13 speak protocol 3, later ones 4, which says that the server creates missing ancestors of
the lease path at commit. The limits are this server's own; that on the header of a pack, and with it on the number of
objects, is the format's.
"""

from __future__ import annotations

from typing import Final

API_ROOT: Final = "/api/v1"

MIN_PROTOCOL: Final = 2
"""The oldest protocol that is accepted."""
MAX_PROTOCOL: Final = 4
"""The newest protocol that is announced."""

MAX_JSON_BODY: Final = 1 << 20
"""Longest JSON body of a request, in bytes."""
MAX_PAYLOAD_HEAD: Final = 64 << 10
"""Longest JSON head of a payload (``Message-Size``), in bytes."""
MAX_PAYLOAD: Final = 1 << 40
"""Most bytes of objects in a pack."""
MAX_ASKED: Final = 10_000
"""Objects that one question for what is missing may name."""
MAX_DRAIN_UNSIGNED: Final = 1 << 30
"""How much of a body nobody vouches for is read and thrown away, so that its sender gets to see the reply, in bytes."""
MAX_HOSTNAME: Final = 255
"""Characters of a publisher's host name that are kept."""
MAX_REQUEST: Final = 64
"""Longest name of a request for a lease, in characters."""
MAX_TOKEN: Final = 256
"""Longest token that is looked up, in characters."""


def negotiate(client: int) -> int:
    """The protocol to speak with a client whose newest is *client*."""
    return min(client, MAX_PROTOCOL)
