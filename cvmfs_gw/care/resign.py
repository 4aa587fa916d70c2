"""Signing again: the whitelist with the master key, the manifest with the repository's key.

Source: ``cvmfs_server resign``: a whitelist is good for 30 days. Divergence: certificates that are listed already stay
listed unless told otherwise, so that keys can be rolled over: list the new certificate, put the new key files in place,
sign the manifest, and drop the old one when no cache has the old manifest any more.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cvmfs_gw.engine.errors import SigningError
from cvmfs_gw.engine.publish import Publication, TagChanges
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tags import changing
from cvmfs_objstore.errors import KeyFileError, ObjectStoreError
from cvmfs_objstore.formats.keychain import Certificate, MasterKey
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.whitelist import VALIDITY, SignedWhitelist, Whitelist

WHITELIST_PATH: Final = ".cvmfswhitelist"


@dataclass(frozen=True, slots=True)
class WhitelistState:
    """How long a whitelist is good, in seconds since the epoch, and whether the key that signs it is here."""

    expires: float
    can_sign: bool


def whitelist_state(repository: Repository) -> WhitelistState:
    """What the whitelist says now; raises :exc:`ObjectStoreError` where there is none that can be read."""
    whitelist = SignedWhitelist.parse(repository.storage.read(WHITELIST_PATH)).whitelist
    master = repository.paths.key_file(repository.fqrn, "masterkey")
    return WhitelistState(whitelist.expires.replace(tzinfo=UTC).timestamp(), os.access(master, os.R_OK))


def resign_whitelist(
    repository: Repository, now: float, *, validity: timedelta = VALIDITY, keep_others: bool = True
) -> Whitelist:
    """List the repository's certificate in a whitelist that is good from *now* (seconds since the epoch) on.

    Raises :exc:`SigningError` if master key or certificate cannot be read.
    """
    paths, fqrn = repository.paths, repository.fqrn
    try:
        certificate = Certificate.load(paths.key_file(fqrn, "crt"))
        master = MasterKey.load(paths.key_file(fqrn, "masterkey"))
    except KeyFileError as error:
        raise SigningError(str(error)) from error
    algorithm = repository.configuration().hash_algorithm
    whitelist = Whitelist.issue(
        fqrn, (certificate,), datetime.fromtimestamp(now, UTC), validity=validity, algorithm=algorithm
    )
    with repository.exclusive():
        if keep_others:
            whitelist = replace(whitelist, fingerprints=(*whitelist.fingerprints, *_others(repository, certificate)))
        repository.storage.write(WHITELIST_PATH, whitelist.signed(master))
    return whitelist


def _others(repository: Repository, certificate: Certificate) -> tuple[str, ...]:
    """Fingerprints of other certificates that are listed now."""
    try:
        present = SignedWhitelist.parse(repository.storage.read(WHITELIST_PATH)).whitelist
    except ObjectStoreError:
        return ()
    return tuple(line for line in present.fingerprints if not replace(present, fingerprints=(line,)).lists(certificate))


def resign_manifest(repository: Repository, now: float) -> Manifest:
    """Sign the manifest with the repository's key as it is now; its certificate goes into the storage.

    Raises :exc:`SigningError` if the certificate is not on the whitelist: clients would refuse the repository.
    """
    certificate, _ = repository.signing_keys()
    try:
        listed = SignedWhitelist.parse(repository.storage.read(WHITELIST_PATH)).whitelist.lists(certificate)
    except ObjectStoreError as error:
        raise SigningError(f"{repository.fqrn}: no whitelist: {error}") from error
    if not listed:
        raise SigningError(f"{repository.fqrn}: the certificate is not on the whitelist, so sign that one first")
    with changing(repository) as head, closing(Publication(repository, head, TagChanges(), now)) as publication:
        return publication.amend()
