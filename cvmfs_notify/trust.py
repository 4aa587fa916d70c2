"""Checks messages before they are passed on: the manifest must parse, name its repository, and be properly signed.

A deployed client that receives a manifest it cannot verify reports an error, subscribes again, receives the same
manifest, and after ten rounds gives up for good. So every message is checked as far as possible, including those of the
gateway itself: no client must be lost because a whitelist has expired.

Where the public key or whitelist of a repository is not known here, its messages are passed on unchecked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cvmfs_notify.broker import Publication
from cvmfs_notify.errors import InvalidMessage, UntrustedManifest, WrongRepository
from cvmfs_notify.messages import Activity
from cvmfs_objstore.errors import ManifestError, ObjectStoreError
from cvmfs_objstore.formats.chain import verify_chain
from cvmfs_objstore.formats.keychain import PublicKey
from cvmfs_objstore.formats.manifest import Manifest, SignedManifest
from cvmfs_objstore.hashes import ContentHash


@dataclass(frozen=True, slots=True)
class Anchors:
    """The trust anchors of a repository: the public master keys (PEM), the signed whitelist, and a function that gets
    a certificate (PEM) and raises :exc:`~cvmfs_objstore.errors.ObjectStoreError` and ``OSError``."""

    public_keys: bytes
    whitelist: bytes
    certificate: Callable[[ContentHash], bytes]


class TrustSource(Protocol):
    """Provides the trust anchors of repositories. Called in threads."""

    def anchors(self, fqrn: str) -> Anchors | None:
        """The anchors of *fqrn*, None if unknown; raises ``ObjectStoreError`` and ``OSError`` if unreadable."""


class NothingKnown:
    """A source that knows no repository, so that every message is passed on."""

    def anchors(self, fqrn: str) -> Anchors | None:
        return None


def check(activity: Activity, source: TrustSource, now: datetime) -> Publication:
    """The publication in *activity*, checked. Blocks if *source* does.

    Raises :exc:`InvalidMessage`, :exc:`WrongRepository` and :exc:`UntrustedManifest`.
    """
    manifest = _parse(activity)
    try:
        anchors = source.anchors(activity.repository)
        if anchors is not None:
            _verify(activity, manifest, anchors, now)
    except (ObjectStoreError, OSError) as error:
        raise UntrustedManifest(str(error)) from error
    return Publication(activity.repository, manifest.revision, manifest.published, activity.serialize())


def _parse(activity: Activity) -> Manifest:
    try:
        signed = SignedManifest.parse(activity.manifest)
    except ManifestError as error:
        raise InvalidMessage(str(error)) from None
    try:
        # cheap, and finds truncation and corruption even where no key is known
        signed.letter.check_hash()
    except ObjectStoreError as error:
        raise UntrustedManifest(str(error)) from None
    if signed.manifest.fqrn != activity.repository:
        raise WrongRepository(f"the manifest is of {signed.manifest.fqrn[:80]!r}")
    if signed.manifest.revision >= 1 << 63:
        raise InvalidMessage("the revision is out of range")
    return signed.manifest


def _verify(activity: Activity, manifest: Manifest, anchors: Anchors, now: datetime) -> None:
    if manifest.certificate is None:
        raise UntrustedManifest("the manifest names no certificate")
    verify_chain(
        anchors.whitelist,
        anchors.certificate(manifest.certificate),
        activity.manifest,
        PublicKey.parse_all(anchors.public_keys),
        now,
        activity.repository,
    )
