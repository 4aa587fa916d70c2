"""How commands that read a repository over HTTP know whose signatures count."""

from __future__ import annotations

import argparse
import os
import sys

from cvmfs_gw.client.errors import ClientError, UntrustedRepository
from cvmfs_gw.client.trust import fetch_public_key, find_public_keys, fingerprint, read_key, remember_key
from cvmfs_gw.paths import SystemPaths


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Declare whose signatures count."""
    parser.add_argument(
        "--pub", metavar="FILE", help="public master key (default: FQRN.pub or DOMAIN/*.pub in the keys folder)"
    )
    parser.add_argument(
        "--accept-key", action="store_true", help="trust the key that the server shows now, and remember it"
    )


def public_keys(fqrn: str, url: str, arguments: argparse.Namespace, paths: SystemPaths) -> bytes:
    """The keys that vouch for the repository.

    A key that was accepted once is kept in ``~/.config/cvmfs-gw/keys``, and not asked for again: should the server show
    another one, that is not trusted.
    """
    if arguments.pub:
        try:
            return read_key(arguments.pub)
        except OSError as error:
            raise ClientError(f"cannot read the public key: {error}") from error
    own = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "cvmfs-gw", "keys")
    found = find_public_keys(fqrn, (paths.keys, own))
    if found is not None:
        return found
    if not url or not arguments.accept_key:
        accept = ", or --accept-key to trust the key that the server shows" if url else ""
        raise UntrustedRepository(f"no public key of {fqrn} in {paths.keys} or {own}: give --pub FILE{accept}")
    key = fetch_public_key(url, fqrn)
    path = remember_key(own, fqrn, key)
    print(f"cvmfs-gw: trusting the key of {fqrn} from now on: SHA-256 {fingerprint(key)}, {path}",
          file=sys.stderr)  # fmt: skip
    return key
