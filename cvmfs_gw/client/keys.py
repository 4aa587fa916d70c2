"""A publisher's key: its file, and whether it can be of any use, which is asked before a long work is begun.

Source: every gateway looks at the signature first, and then for the lease that is to be given back; and ``/repos``
shows the table of keys and paths by which leases are granted.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Final

from cvmfs_gw.client.errors import ClientError, GatewayRefused
from cvmfs_gw.client.gateway import GatewayClient
from cvmfs_gw.gateway.authorization import Key

_WRONG_KEY: Final = "invalid_hmac"


def read_key_file(path: str) -> Key:
    """The key in a ``.gw`` file: one line ``plain_text <id> <secret>``. Raises :exc:`ClientError`."""
    try:
        with open(path, encoding="utf-8") as file:
            words = file.readline().split()
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError(f"cannot read the gateway key: {error}") from error
    if len(words) != 3 or words[0] != "plain_text":
        raise ClientError(f"{path} is not a gateway key file")
    return Key(words[1], words[2].encode())


def check_key(gateway: GatewayClient, fqrn: str, targets: Iterable[str]) -> None:
    """Return if the key may be right for changes at and below *targets*; nothing changes at the gateway.

    What lies above a target, and whether it is free, is found out when it is leased. Raises :exc:`GatewayRefused` with
    the gateway's word for it, and :exc:`GatewayUnreachable`.
    """
    try:
        gateway.release(secrets.token_hex(16))  # a lease that nobody has
    except GatewayRefused as error:
        if error.reason == _WRONG_KEY:
            raise GatewayRefused(f"key {gateway.key_id}", error.reason) from error
    opened = gateway.keys(fqrn)
    if opened is None:
        return
    if gateway.key_id not in opened:
        raise GatewayRefused(f"key {gateway.key_id}", "invalid_key", f"it is none of {fqrn}")
    top = f"/{opened[gateway.key_id].strip('/')}"
    for target in targets:
        # By character, as the reference compares them: what it would grant is not refused here.
        if not (target or "/").startswith(top) and not top.startswith(target):
            raise GatewayRefused(f"key {gateway.key_id}", "invalid_path", f"it opens {top}, and not {target}")
