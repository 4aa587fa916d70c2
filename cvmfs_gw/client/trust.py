"""The trust of a reader: the repository's public master keys, and the manifest verified with them.

Source: the chain that a client checks before it mounts; ``CVMFS_KEYS_DIR`` (``<keys>/<domain>/*.pub``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import urllib3

from cvmfs_gw.client.errors import GatewayUnreachable, UntrustedRepository
from cvmfs_gw.client.net import connections, why
from cvmfs_objstore.errors import ObjectNotFound, ObjectStoreError
from cvmfs_objstore.formats.chain import verify_chain
from cvmfs_objstore.formats.keychain import PublicKey
from cvmfs_objstore.formats.manifest import Manifest, SignedManifest
from cvmfs_objstore.objects import ObjectStore
from cvmfs_objstore.storage import Storage

_MAX_KEY: Final = 64 << 10
_MAX_SIGNED: Final = 1 << 20
_READ_S: Final = 60.0


def read_head(storage: Storage, fqrn: str, public_keys: bytes, now: float) -> Manifest:
    """The repository's manifest, every signature on the way to it verified; *now* in seconds since the epoch.

    *public_keys* are PEM texts one after the other. Raises :exc:`UntrustedRepository`, and :exc:`GatewayUnreachable`
    where there is no repository.
    """
    try:
        raw = _read(storage, ".cvmfspublished")
    except ObjectNotFound as error:
        raise GatewayUnreachable(f"no repository {fqrn} there: {error}") from error
    try:
        manifest = SignedManifest.parse(raw).manifest
        if manifest.certificate is None:
            raise UntrustedRepository(f"the manifest of {fqrn} names no certificate")
        certificate = ObjectStore(storage).get_plain(manifest.certificate, max_size=_MAX_SIGNED)
        whitelist = _read(storage, ".cvmfswhitelist")
        moment = datetime.fromtimestamp(now, UTC)
        return verify_chain(whitelist, certificate, raw, PublicKey.parse_all(public_keys), moment, fqrn)
    except ObjectStoreError as error:
        raise UntrustedRepository(f"{fqrn}: {error}") from error


def _read(storage: Storage, path: str) -> bytes:
    with storage.open(path) as file:
        return file.read(_MAX_SIGNED)


def find_public_keys(fqrn: str, folders: Sequence[str]) -> bytes | None:
    """Keys that vouch for the repository, from the first of *folders* that has any, or None.

    That is ``<fqrn>.pub``, or all ``*.pub`` in the folder of the repository's domain (``example.org``).
    """
    domain = fqrn.partition(".")[2]
    for folder in folders:
        files = [os.path.join(folder, f"{fqrn}.pub")]
        if not os.path.exists(files[0]):
            place = os.path.join(folder, domain)
            names = sorted(os.listdir(place)) if domain and os.path.isdir(place) else []
            files = [os.path.join(place, name) for name in names if name.endswith(".pub")]
        if files:
            return b"\n".join(map(read_key, files))
    return None


def read_key(path: str) -> bytes:
    """A file of public keys; raises ``OSError``."""
    with open(path, "rb") as file:
        return file.read(_MAX_KEY)


def fetch_public_key(url: str, fqrn: str) -> bytes:
    """The public key that the server of *url* itself shows for the repository. Nobody vouches for it.

    *url* ends in ``/cvmfs/<fqrn>``, the key is at ``/cvmfs-meta/<fqrn>.pub``. Raises :exc:`GatewayUnreachable`, and
    :exc:`UntrustedRepository` if there is none.
    """
    parts = urlsplit(url.rstrip("/"))
    prefix = parts.path.removesuffix(f"/cvmfs/{fqrn}")
    place = urlunsplit((parts.scheme, parts.netloc, f"{prefix}/cvmfs-meta/{fqrn}.pub", "", ""))
    pool = connections(url, read_s=_READ_S, tries=3, most=1)
    try:
        reply = pool.request("GET", place, preload_content=False)
        text = reply.read(_MAX_KEY)
        reply.close()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise GatewayUnreachable(f"cannot read {place}: {why(error)}") from error
    finally:
        pool.clear()
    if reply.status != 200:
        raise UntrustedRepository(f"the server shows no public key at {place} (HTTP {reply.status})")
    try:
        PublicKey.parse_all(text)
    except ObjectStoreError as error:
        raise UntrustedRepository(f"what the server shows at {place} is not a public key") from error
    return text


def remember_key(folder: str, fqrn: str, keys: bytes) -> str:
    """Keep *keys* for the next time; returns the file. Raises ``OSError``."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{fqrn}.pub")
    with open(f"{path}.new", "wb") as file:
        file.write(keys)
    os.replace(f"{path}.new", path)
    return path


def fingerprint(keys: bytes) -> str:
    """What people compare: the SHA-256 of the text, as ``sha256sum`` says it of the file."""
    return hashlib.sha256(keys).hexdigest()
