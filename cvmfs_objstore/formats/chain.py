"""The chain of trust, checked in one go: public master key -> whitelist -> certificate -> manifest.

No network, no files, no clock: the caller has fetched the three texts. The manifest says by its hash ``X`` which
object the certificate is; the caller checked that hash when it got the object.

Source: what a client does before it mounts.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from cvmfs_objstore.errors import SignatureError
from cvmfs_objstore.formats.keychain import Certificate, PublicKey
from cvmfs_objstore.formats.manifest import Manifest, SignedManifest
from cvmfs_objstore.formats.whitelist import SignedWhitelist


def verify_chain(
    whitelist: bytes,
    certificate: bytes,
    manifest: bytes,
    public_keys: Iterable[PublicKey],
    now: datetime,
    fqrn: str,
) -> Manifest:
    """The manifest of *fqrn*, if every link holds at the time *now*.

    *whitelist* and *manifest* are the signed files, *certificate* a PEM text. Raises :exc:`FormatError`,
    :exc:`KeyFileError`, :exc:`SignatureError` and :exc:`WhitelistExpired`.
    """
    trusted = SignedWhitelist.parse(whitelist).verify(public_keys, now)
    if trusted.fqrn != fqrn:
        raise SignatureError(f"the whitelist is for {trusted.fqrn!r}, not for {fqrn!r}")
    signer = Certificate.parse(certificate)
    if not trusted.lists(signer):
        raise SignatureError(f"the certificate {signer.fingerprint} is not on the whitelist")
    head = SignedManifest.parse(manifest).verify(signer)
    if head.fqrn != fqrn:
        raise SignatureError(f"the manifest is of {head.fqrn!r}, not of {fqrn!r}")
    return head
