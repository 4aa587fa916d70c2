"""How a request says who made it: an HMAC in the ``Authorization`` header.

::

    Authorization: <key id> <base64(lower-case hex(HMAC-SHA1(secret, message)))>

What the message is depends on the route: the body, the lease's token, the head of a payload, or the URL's path.

Source: the reference; base64 is of the hex *text*, not of the digest's bytes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from typing import Final

MAX_HEADER: Final = 4096
"""Longest ``Authorization`` header that is looked at, in characters."""


@dataclass(frozen=True, slots=True)
class Key:
    """A gateway key. Its secrets never show in logs or tracebacks. While it is rotated it has two of them."""

    id: str
    secret: bytes = field(repr=False)
    admin: bool = False
    previous: bytes = field(default=b"", repr=False)
    """The secret before this one, which counts as well; empty: none."""


_NOBODY: Final = Key("", b"a secret that nobody has")


def mac(secret: bytes, message: bytes) -> bytes:
    """The hex text of the message's HMAC."""
    return hmac.digest(secret, message, "sha1").hex().encode()


def sign(key: Key, message: bytes) -> str:
    """The header that vouches for *message*."""
    return f"{key.id} {base64.b64encode(mac(key.secret, message)).decode()}"


def parse_header(header: str | None) -> tuple[str, bytes] | None:
    """The key id and the hex text that a header carries, or None where it is no such header."""
    parts = header.split() if header and len(header) <= MAX_HEADER else ()
    if len(parts) != 2:
        return None
    try:
        return parts[0], base64.b64decode(parts[1], validate=True)
    except (binascii.Error, ValueError):
        return None


def verify(key: Key | None, claimed: bytes, message: bytes) -> bool:
    """Whether *claimed* is the MAC of *message* by *key*, in a time that does not tell how near it was.

    An unknown key (None) costs the same work, so that the time does not tell which ids exist.
    """
    key_or_nobody = key or _NOBODY
    right = hmac.compare_digest(claimed, mac(key_or_nobody.secret, message))
    # always done, so that the time does not tell either which keys are being rotated
    right_before = hmac.compare_digest(claimed, mac(key_or_nobody.previous, message))
    return key is not None and (right or (right_before and bool(key.previous)))
