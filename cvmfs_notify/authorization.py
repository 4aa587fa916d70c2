"""Signatures of publishers, where these are required, and of webhook requests.

A publisher signs as with the gateway: ``Authorization: <key id> <base64 of the hex text of HMAC-SHA1 over the body>``.

Source: the gateway's header.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping

from cvmfs_notify.errors import PublisherRefused


def sign(key_id: str, secret: bytes, body: bytes) -> str:
    """The value of the ``Authorization`` header."""
    return f"{key_id} {_digest(secret, body)}"


def check_publisher(header: str | None, body: bytes, keys: Mapping[str, bytes]) -> None:
    """Raises :exc:`PublisherRefused` unless *body* is signed by one of *keys* (id -> secret), if there are any."""
    if not keys:
        return
    key_id, _, given = (header or "").partition(" ")
    # computed for unknown keys, too, so that the timing does not reveal which ids exist
    wanted = _digest(keys.get(key_id, b""), body)
    if not hmac.compare_digest(wanted.encode(), given.strip().encode("utf-8", "replace")) or key_id not in keys:
        raise PublisherRefused


def webhook_signature(secret: bytes, body: bytes) -> str:
    """``sha256=<hex>``, the form that most CI systems expect."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def _digest(secret: bytes, body: bytes) -> str:
    digest = hmac.new(secret, body, hashlib.sha1).hexdigest()
    return base64.b64encode(digest.encode()).decode()
