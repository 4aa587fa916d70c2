"""Checks what comes before the catalogs: the chain of trust, the reflog, the tag database.

Source: what a client verifies before it mounts, and ``cvmfs_swissknife check``. Divergence: the reference checks
neither the whitelist of a repository on disk nor whether the objects that reflog and tags refer to exist.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from cvmfs_gw.care.faults import FaultKind, Faults
from cvmfs_gw.care.resign import WHITELIST_PATH
from cvmfs_gw.engine.errors import SigningError
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_objstore.errors import (
    DatabaseError,
    FormatError,
    InvalidHash,
    KeyFileError,
    ObjectStoreError,
    SignatureError,
    WhitelistError,
    WhitelistExpired,
)
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.history import TRUNK, History, Tag
from cvmfs_objstore.formats.keychain import Certificate, PublicKey
from cvmfs_objstore.formats.manifest import EMPTY_PATH_MD5, Manifest, SignedManifest
from cvmfs_objstore.formats.reflog import REFLOG_PATH, Reflog
from cvmfs_objstore.formats.whitelist import SignedWhitelist, Whitelist
from cvmfs_objstore.hashes import ContentHash

SOON: Final = timedelta(days=7)
"""A whitelist that expires within this time is worth a warning."""
CLOCK_SKEW_S: Final = 300
"""How far ahead of this machine's clock a manifest may be, in seconds."""
MAX_DATABASE: Final = 1 << 30
"""The largest tag database that is read, in bytes."""
_TAG_NAMES: Final = (
    "SELECT name, name IS NULL OR hash IS NULL OR description IS NULL OR branch IS NULL"
    " FROM tags ORDER BY revision DESC, name"
)


class HeadCheck:
    """Checks one repository at the time *now* (seconds since the epoch), adding to *faults*."""

    def __init__(self, repository: Repository, now: float, faults: Faults) -> None:
        self._repository, self._now, self._faults = repository, now, faults

    def manifest(self) -> Manifest | None:
        """Check the chain of trust; returns the manifest if it can be read at all."""
        faults, repository = self._faults, self._repository
        try:
            signed = SignedManifest.parse(repository.storage.read(MANIFEST_PATH))
        except FormatError as error:
            faults.add(FaultKind.MANIFEST_UNREADABLE, MANIFEST_PATH, str(error))
            return None
        except ObjectStoreError:
            faults.add(FaultKind.MANIFEST_MISSING, MANIFEST_PATH)
            return None
        head = signed.manifest
        if head.fqrn != repository.fqrn:
            faults.add(FaultKind.MANIFEST_NAME, MANIFEST_PATH, head.fqrn)
        if head.root_path_md5 != EMPTY_PATH_MD5:
            faults.add(FaultKind.MANIFEST_ROOT_PATH, MANIFEST_PATH, head.root_path_md5)
        if head.published > self._now + CLOCK_SKEW_S:
            faults.add(FaultKind.MANIFEST_TIME, MANIFEST_PATH, f"{head.published - self._now:.0f} s ahead")
        whitelist = self._whitelist()
        certificate = self._certificate(head)
        if certificate is not None:
            try:
                signed.verify(certificate)
            except SignatureError as error:
                faults.add(FaultKind.MANIFEST_SIGNATURE, MANIFEST_PATH, str(error))
            if whitelist is not None and not whitelist.lists(certificate):
                faults.add(FaultKind.CERTIFICATE_NOT_LISTED, WHITELIST_PATH, certificate.fingerprint)
        else:
            try:
                signed.letter.check_hash()
            except SignatureError as error:
                faults.add(FaultKind.MANIFEST_SIGNATURE, MANIFEST_PATH, str(error))
        self._keys()
        if head.meta_info is not None:
            try:
                repository.objects.get_plain(head.meta_info, max_size=MAX_DATABASE)
            except ObjectStoreError as error:
                faults.add(FaultKind.META_INFO, str(head.meta_info), str(error))
        return head

    def _whitelist(self) -> Whitelist | None:
        faults, repository = self._faults, self._repository
        try:
            signed = SignedWhitelist.parse(repository.storage.read(WHITELIST_PATH))
        except WhitelistError as error:
            faults.add(FaultKind.WHITELIST_UNREADABLE, WHITELIST_PATH, str(error))
            return None
        except ObjectStoreError:
            faults.add(FaultKind.WHITELIST_MISSING, WHITELIST_PATH)
            return None
        whitelist, now = signed.whitelist, datetime.fromtimestamp(self._now, UTC)
        if whitelist.fqrn != repository.fqrn:
            faults.add(FaultKind.WHITELIST_NAME, WHITELIST_PATH, whitelist.fqrn)
        path = repository.paths.key_file(repository.fqrn, "pub")
        try:
            signed.verify(PublicKey.load_all(path), now)
        except KeyFileError as error:
            faults.add(FaultKind.PUBLIC_KEY, path, str(error))
        except WhitelistExpired as error:
            faults.add(FaultKind.WHITELIST_EXPIRED, WHITELIST_PATH, str(error))
        except SignatureError as error:
            faults.add(FaultKind.WHITELIST_SIGNATURE, WHITELIST_PATH, str(error))
        else:
            if whitelist.is_expired(now + SOON):
                detail = f"on {whitelist.expires:%Y-%m-%d at %H}:00 UTC"
                faults.add(FaultKind.WHITELIST_EXPIRES_SOON, WHITELIST_PATH, detail)
        return whitelist

    def _certificate(self, head: Manifest) -> Certificate | None:
        if head.certificate is None:
            self._faults.add(FaultKind.CERTIFICATE_MISSING, MANIFEST_PATH, "no line X")
            return None
        try:
            return Certificate.parse(self._repository.objects.get_plain(head.certificate, max_size=MAX_DATABASE))
        except KeyFileError as error:
            self._faults.add(FaultKind.CERTIFICATE_UNREADABLE, str(head.certificate), str(error))
        except ObjectStoreError as error:
            self._faults.add(FaultKind.CERTIFICATE_MISSING, str(head.certificate), str(error))
        return None

    def _keys(self) -> None:
        try:
            self._repository.signing_keys()
        except SigningError as error:
            self._faults.add(FaultKind.SIGNING_KEY, self._repository.paths.keys, str(error))

    # -- reflog

    def reflog(self, head: Manifest) -> set[ContentHash] | None:
        """Check the reflog and its checksums; returns its references if it can be read."""
        faults, repository = self._faults, self._repository
        algorithm = head.root_hash.algorithm
        try:
            data = repository.storage.read(REFLOG_PATH)
        except ObjectStoreError:
            faults.add(FaultKind.REFLOG_MISSING, REFLOG_PATH)
            return None
        digest = ContentHash.of(data, algorithm)
        self._checksum(digest)
        if head.reflog_hash is not None and head.reflog_hash != digest:
            faults.add(FaultKind.REFLOG_MANIFEST, MANIFEST_PATH, f"{head.reflog_hash}, not {digest}")
        try:
            with Reflog.load(data) as reflog:
                name = reflog.property("fqrn")
                if name != repository.fqrn:
                    faults.add(FaultKind.REFLOG_NAME, REFLOG_PATH, str(name))
                known = {ref for ref, _ in reflog.refs()}
        except DatabaseError as error:
            faults.add(FaultKind.REFLOG_UNREADABLE, REFLOG_PATH, str(error))
            return None
        for wanted in (head.root_hash, head.certificate, head.history, head.meta_info):
            if wanted is not None and wanted not in known:
                faults.add(FaultKind.REFLOG_LACKS_HEAD, str(wanted))
        for ref in known:
            if not repository.objects.has(ref):
                faults.add(FaultKind.REFLOG_DANGLING, str(ref))
        return known

    def _checksum(self, digest: ContentHash) -> None:
        path = os.path.join(self._repository.paths.repository_spool(self._repository.fqrn), "reflog.chksum")
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                stored = ContentHash.parse(file.read().strip())
        except OSError:
            self._faults.add(FaultKind.REFLOG_CHECKSUM_MISSING, path)
        except InvalidHash as error:
            self._faults.add(FaultKind.REFLOG_CHECKSUM, path, str(error))
        else:
            if stored.bare != digest.bare:
                self._faults.add(FaultKind.REFLOG_CHECKSUM, path, f"{stored}, not {digest}")

    # -- tags

    def tags(self, head: Manifest, known: Iterable[ContentHash] | None) -> list[Tag]:
        """Check the tag database; returns its tags. *known* are the references of the reflog."""
        faults, repository = self._faults, self._repository
        if head.history is None:
            return []
        try:
            data = repository.objects.get_plain(head.history, max_size=MAX_DATABASE)
        except ObjectStoreError as error:
            kind = FaultKind.HISTORY_UNREADABLE if repository.objects.has(head.history) else FaultKind.HISTORY_MISSING
            faults.add(kind, str(head.history), str(error))
            return []
        try:
            with History.load(data) as history:
                if history.property("fqrn") != repository.fqrn:
                    faults.add(FaultKind.HISTORY_NAME, str(head.history), str(history.property("fqrn")))
                rows = history.connection.execute("SELECT branch, initial_revision FROM branches")
                branches = {str(branch): initial for branch, initial in rows}
                tags = self._read_tags(history)
        except DatabaseError as error:
            faults.add(FaultKind.HISTORY_UNREADABLE, str(head.history), str(error))
            return []
        for tag in tags:
            self._check_tag(tag, branches)
            if known is not None and tag.root_hash not in known:
                faults.add(FaultKind.REFLOG_LACKS_TAG, f"tag {tag.name}", str(tag.root_hash))
            if tag.name == TRUNK and (tag.root_hash, tag.revision) != (head.root_hash, head.revision):
                faults.add(FaultKind.TRUNK_DIFFERS, f"tag {TRUNK}", f"revision {tag.revision}, not {head.revision}")
        for branch in sorted(set(branches) - {tag.branch for tag in tags} - {""}):
            faults.add(FaultKind.BRANCH_UNUSED, f"branch {branch}")
        return tags

    def _read_tags(self, history: History) -> list[Tag]:
        tags = []
        for name, null in history.connection.execute(_TAG_NAMES).fetchall():
            try:
                tag = history.get(str(name))
                if null:
                    raise DatabaseError("name, hash, description or branch is NULL: the deployed programs abort")
                if tag is None or not all(isinstance(n, int) for n in (tag.revision, tag.timestamp, tag.size)):
                    raise DatabaseError("a column of another type")
                tags.append(tag)
            except DatabaseError as error:
                self._faults.add(FaultKind.TAG_INVALID, f"tag {str(name)[:80]}", str(error))
        return tags

    def _check_tag(self, tag: Tag, branches: dict[str, object]) -> None:
        faults, place = self._faults, f"tag {tag.name}"
        initial = branches.get(tag.branch)
        if not isinstance(initial, int) or not 0 <= initial <= tag.revision:
            faults.add(FaultKind.TAG_BRANCH, place, f"branch {tag.branch!r} from {initial!r}")
        try:
            data = self._repository.objects.get_plain(tag.root_hash, max_size=4 << 30)
            with Catalog.load(data) as catalog:
                if tag.size and tag.size != len(data):
                    faults.add(FaultKind.TAG_CATALOG_DIFFERS, place, f"{tag.size} bytes, not {len(data)}")
                if catalog.revision != tag.revision:
                    detail = f"revision {tag.revision}, not {catalog.revision}"
                    faults.add(FaultKind.TAG_CATALOG_DIFFERS, place, detail)
        except ObjectStoreError as error:
            faults.add(FaultKind.TAG_CATALOG_MISSING, place, str(error))
