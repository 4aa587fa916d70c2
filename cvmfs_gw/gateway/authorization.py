"""Authentication of requests: an HMAC in the ``Authorization`` header.

::

    Authorization: <key id> <base64(lower-case hex(HMAC-SHA1(secret, message)))>

The message depends on the route: the body, the lease's token, the head of a payload, or the URL's path.

Source: the reference; it encodes the hex *text* in base64, not the bytes of the digest.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from typing import Final

MAX_HEADER: Final = 4096
"""The longest ``Authorization`` header accepted, in characters."""


@dataclass(frozen=True, slots=True)
class Key:
    """A gateway key. Its secrets never appear in logs or tracebacks. While it is rotated, it has two of them."""

    id: str
    secret: bytes = field(repr=False)
    admin: bool = False
    previous: bytes = field(default=b"", repr=False)
    """The previous secret, which is still valid; empty: none."""


_NOBODY: Final = Key("", b"a secret that nobody has")


def mac(secret: bytes, message: bytes) -> bytes:
    """The hex text of the message's HMAC."""
    return hmac.digest(secret, message, "sha1").hex().encode()


def sign(key: Key, message: bytes) -> str:
    """The header that signs *message*."""
    return f"{key.id} {base64.b64encode(mac(key.secret, message)).decode()}"


def parse_header(header: str | None) -> tuple[str, bytes] | None:
    """The key id and the hex text in a header; None if it is malformed."""
    parts = header.split() if header and len(header) <= MAX_HEADER else ()
    if len(parts) != 2:
        return None
    try:
        return parts[0], base64.b64decode(parts[1], validate=True)
    except (binascii.Error, ValueError):
        return None


def verify(key: Key | None, claimed: bytes, message: bytes) -> bool:
    """Whether *claimed* is the MAC of *message* by *key*, compared in constant time.

    An unknown key (None) costs the same work, so that the timing does not reveal which ids exist.
    """
    key_or_nobody = key or _NOBODY
    right = hmac.compare_digest(claimed, mac(key_or_nobody.secret, message))
    # always done, so that the time does not tell either which keys are being rotated
    right_before = hmac.compare_digest(claimed, mac(key_or_nobody.previous, message))
    return key is not None and (right or (right_before and bool(key.previous)))
