"""Signatures: of publishers where they have to sign, and of what goes to a webhook.

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
    """The value of the header."""
    return f"{key_id} {_digest(secret, body)}"


def check_publisher(header: str | None, body: bytes, keys: Mapping[str, bytes]) -> None:
    """Raises :exc:`PublisherRefused` unless one of *keys* (id -> secret) signed *body*; no keys: everybody may."""
    if not keys:
        return
    key_id, _, given = (header or "").partition(" ")
    # computed for a key that does not exist, too, so that time does not tell which ones do
    wanted = _digest(keys.get(key_id, b""), body)
    if not hmac.compare_digest(wanted.encode(), given.strip().encode("utf-8", "replace")) or key_id not in keys:
        raise PublisherRefused


def webhook_signature(secret: bytes, body: bytes) -> str:
    """``sha256=<hex>``, as most CI systems know it."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def _digest(secret: bytes, body: bytes) -> str:
    digest = hmac.new(secret, body, hashlib.sha1).hexdigest()
    return base64.b64encode(digest.encode()).decode()
