"""Whose messages count: a manifest that parses, names its repository, and is signed by whom it should be.

A deployed client that is sent a manifest which does not verify reports an error and subscribes again, is sent the same
once more, and after ten rounds gives up for good. So whatever can be checked is checked before it is passed on, those
messages included that the gateway sends by itself: nobody is lost because a whitelist has run out.

What cannot be checked, as public key or whitelist of the repository are not known here, is passed on as it is.
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
    """What is known of a repository: the public master keys (PEM), the signed whitelist, and how to get at a
    certificate (PEM); *certificate* raises :exc:`~cvmfs_objstore.errors.ObjectStoreError` and ``OSError``."""

    public_keys: bytes
    whitelist: bytes
    certificate: Callable[[ContentHash], bytes]


class TrustSource(Protocol):
    """Knows the anchors of repositories. Called in threads."""

    def anchors(self, fqrn: str) -> Anchors | None:
        """None where they are not known; raises ``ObjectStoreError`` and ``OSError`` where they should be."""


class NothingKnown:
    """A source that knows no repository, so that everything is passed on."""

    def anchors(self, fqrn: str) -> Anchors | None:
        return None


def check(activity: Activity, source: TrustSource, now: datetime) -> Publication:
    """What *activity* publishes. Reads files where *source* does.

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
        # costs next to nothing and finds what was cut or altered on the way, also where no key is known
        signed.letter.check_hash()
    except ObjectStoreError as error:
        raise UntrustedManifest(str(error)) from None
    if signed.manifest.fqrn != activity.repository:
        raise WrongRepository(f"the manifest is of {signed.manifest.fqrn[:80]!r}")
    if signed.manifest.revision >= 1 << 63:
        raise InvalidMessage("a revision that is out of range")
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
