"""One repository on this server: storage, configuration, keys, spool folder, head."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import Final

from cvmfs_gw.engine.catalogs import CatalogCache, CatalogStore
from cvmfs_gw.engine.errors import ConfigurationError, MissingReflog, SigningError
from cvmfs_gw.engine.journal import Journal
from cvmfs_gw.engine.locking import exclusive
from cvmfs_gw.engine.upstream import open_storage
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import ServerConf, ServerConfError
from cvmfs_objstore.errors import FormatError, InvalidHash, KeyFileError, ObjectNotFound
from cvmfs_objstore.formats.keychain import Certificate, RepositoryKey
from cvmfs_objstore.formats.manifest import Manifest, SignedManifest
from cvmfs_objstore.formats.reflog import REFLOG_PATH, Reflog
from cvmfs_objstore.hashes import Algorithm, ContentHash
from cvmfs_objstore.objects import ObjectStore
from cvmfs_objstore.storage import Storage

_log = logging.getLogger(__name__)

MANIFEST_PATH: Final = ".cvmfspublished"
PREVIOUS_REFLOG_PATH: Final = ".cvmfsreflog.previous"
"""The reflog before the last publish. Between the writes of reflog and manifest, it is the one that the head names."""
_CHECKSUM_FILE: Final = "reflog.chksum"
_JOURNAL_FILE: Final = "gateway.journal"
_STATISTICS_FILE: Final = "stats.db"


class Repository:
    """A repository of this server. Thread-safe for reading; one thread at a time may publish.

    Others may work on the same repository with ``cvmfs_server``, so configuration, keys, head and reflog are read
    whenever they are needed, never cached.
    """

    def __init__(
        self,
        fqrn: str,
        paths: SystemPaths,
        environment: Mapping[str, str],
        *,
        durable: bool = True,
        cache: CatalogCache | None = None,
    ) -> None:
        self.fqrn = fqrn
        self.paths = paths
        self._environment = environment
        self.storage: Storage = self._open_storage(durable)
        self.objects = ObjectStore(self.storage)
        self.catalogs = CatalogStore(self.objects, cache)
        self.journal = Journal(self._spool(_JOURNAL_FILE))

    def _open_storage(self, durable: bool) -> Storage:
        try:
            upstream = self.configuration().upstream(self._environment)
        except ServerConfError as error:
            raise ConfigurationError(str(error)) from error
        return open_storage(self.fqrn, upstream, durable=durable)

    def configuration(self) -> ServerConf:
        """``server.conf`` as it is now; raises :exc:`ConfigurationError`."""
        try:
            return ServerConf.load(self.paths.server_conf(self.fqrn), self.fqrn)
        except ServerConfError as error:
            raise ConfigurationError(str(error)) from error

    def exclusive(self) -> AbstractContextManager[int]:
        """Hold the repository's lock, exclusive among all processes. Every change happens while it is held.

        Yields the lock's descriptor, see :mod:`cvmfs_gw.engine.locking`.
        """
        return exclusive(self.paths, self.fqrn)

    # -- head

    def head(self) -> Manifest:
        """The published manifest; raises :exc:`ConfigurationError` if it is missing or unreadable."""
        return self.signed_head().manifest

    def signed_head(self) -> SignedManifest:
        """The published manifest with its signature."""
        try:
            return SignedManifest.parse(self.storage.read(MANIFEST_PATH))
        except (ObjectNotFound, FormatError) as error:
            raise ConfigurationError(f"{self.fqrn}: no manifest: {error}") from error

    # -- keys

    def signing_keys(self) -> tuple[Certificate, RepositoryKey]:
        """The certificate and its private key; raises :exc:`SigningError`."""
        try:
            certificate = Certificate.load(self.paths.key_file(self.fqrn, "crt"))
            key = RepositoryKey.load(self.paths.key_file(self.fqrn, "key"))
        except KeyFileError as error:
            raise SigningError(str(error)) from error
        if not certificate.matches(key):
            raise SigningError(f"the key of {self.fqrn} is not that of its certificate")
        return certificate, key

    # -- reflog

    def reflog(self, head: Manifest) -> Reflog:
        """The reflog, checked against its checksum file or the hash in *head*; raises :exc:`MissingReflog`."""
        try:
            with open(self._spool(_CHECKSUM_FILE), encoding="ascii") as file:
                known = {ContentHash.parse(file.read().strip()).bare}
        except (OSError, UnicodeDecodeError, InvalidHash) as error:
            raise MissingReflog(f"{self.fqrn}: no {_CHECKSUM_FILE}: {error}") from error
        if head.reflog_hash is not None:
            known.add(head.reflog_hash.bare)
        try:
            data = self.storage.read(REFLOG_PATH)
            if ContentHash.of(data, head.root_hash.algorithm).bare not in known:
                raise MissingReflog(f"{self.fqrn}: the reflog does not match {_CHECKSUM_FILE}")
            return Reflog.load(data)
        except (ObjectNotFound, FormatError) as error:
            raise MissingReflog(f"{self.fqrn}: no reflog: {error}") from error

    def store_reflog(self, reflog: Reflog, algorithm: Algorithm) -> ContentHash:
        """Write the reflog and its checksum file; returns its hash."""
        data = reflog.dump()
        digest = ContentHash.of(data, algorithm)
        if self.storage.exists(REFLOG_PATH):
            self.storage.copy(REFLOG_PATH, PREVIOUS_REFLOG_PATH)
        self.storage.write(REFLOG_PATH, data)
        self._write_checksum(digest)
        return digest

    def _write_checksum(self, digest: ContentHash) -> None:
        os.makedirs(self.paths.repository_spool(self.fqrn), exist_ok=True)
        replace_file(self._spool(_CHECKSUM_FILE), digest.bare.encode())

    # -- after a crash or a failure

    def recover(self) -> None:
        """Clean up after a process that was killed. Only at start."""
        if removed := self.storage.clean():
            _log.info("%s: removed %d files that were left half written", self.fqrn, removed)
        self.undo()

    def undo(self) -> None:
        """Undo a publish that was cut off before it wrote the manifest. Only while nobody publishes.

        Restores the reflog that the head names, and removes the objects that the publish had stored for itself.
        """
        head = self.head()
        if head.reflog_hash is not None:
            self._recover_reflog(head.reflog_hash)
        doomed = self.journal.names()
        # a change of tags alone has a new tag database and no new root
        if doomed and head.root_hash not in doomed and head.history not in doomed:
            for name in doomed:
                self.objects.delete(name)
            _log.info("%s: removed %d objects of a publish that did not come to its end", self.fqrn, len(doomed))
        self.journal.clear()

    def _recover_reflog(self, wanted: ContentHash) -> None:
        for path in (REFLOG_PATH, PREVIOUS_REFLOG_PATH):
            try:
                found = ContentHash.of(self.storage.read(path), wanted.algorithm)
            except ObjectNotFound:
                continue
            if found.digest != wanted.digest:
                continue
            if path != REFLOG_PATH:
                self.storage.copy(path, REFLOG_PATH)
                _log.info("%s: put the reflog back to what the manifest says", self.fqrn)
            if self._stored_checksum() not in (None, wanted.bare):
                self._write_checksum(wanted)
            return

    def _stored_checksum(self) -> str | None:
        """The content of ``reflog.chksum``, or None. It is never recreated: its absence is a sign of trouble."""
        try:
            with open(self._spool(_CHECKSUM_FILE), encoding="ascii", errors="replace") as file:
                return file.read().strip()
        except FileNotFoundError:
            return None

    # -- spool

    def _spool(self, name: str) -> str:
        return os.path.join(self.paths.repository_spool(self.fqrn), name)

    @property
    def temporary(self) -> str:
        """The folder of temporary files, created if necessary."""
        return self._spool("tmp")

    @property
    def statistics_path(self) -> str:
        """The database of publish statistics."""
        return self._spool(_STATISTICS_FILE)

    def forget_client_root(self) -> None:
        """Empty ``client.local``, which may pin this machine's mount to an older root catalog."""
        path = self._spool("client.local")
        try:
            if os.path.exists(path):
                os.truncate(path, 0)
        except OSError as error:  # it is published, and the mount finds that out by itself a little later
            _log.warning("%s: cannot empty %s: %s", self.fqrn, path, error.strerror)


def replace_file(path: str, data: bytes, mode: int = 0o644, like: str = "") -> None:
    """Create or replace a small file outside of the storage, atomically and durably.

    A file that is there keeps its permissions and, if this process may give files away, its owner: an administrator's
    command must not take from a server of another user what that one has to read. A new one gets the *mode*; who may
    read the file *like*, if that is there, may read this one, too.
    """
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".new-")
    try:
        with open(descriptor, "wb") as file:
            former, model = _status(path), _status(like)
            if (owner := former or model) is not None:
                with suppress(PermissionError):
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
            if former is not None:
                mode = stat.S_IMODE(former.st_mode)
            elif model is not None:
                mode |= stat.S_IMODE(model.st_mode)
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
