"""One repository as the server has it: storage, configuration, keys, spool folder, head."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Final

from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.errors import ConfigurationError, MissingReflog, SigningError
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import ServerConf, ServerConfError
from cvmfs_objstore.errors import FormatError, InvalidHash, KeyFileError, ObjectNotFound
from cvmfs_objstore.formats.manifest import Manifest, SignedManifest
from cvmfs_objstore.formats.reflog import REFLOG_PATH, Reflog
from cvmfs_objstore.formats.signature import Certificate, RepositoryKey
from cvmfs_objstore.hashes import Algorithm, ContentHash
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore
from cvmfs_objstore.storage import Storage

MANIFEST_PATH: Final = ".cvmfspublished"
_CHECKSUM_FILE: Final = "reflog.chksum"


class Repository:
    """A repository of this server. Thread-safe for reading; one thread at a time may publish.

    Others may work on the same repository with ``cvmfs_server``, so configuration, keys, head and reflog are read when
    they are used, never kept.
    """

    def __init__(self, fqrn: str, paths: SystemPaths, environment: Mapping[str, str], *, durable: bool = True) -> None:
        self.fqrn = fqrn
        self.paths = paths
        self._environment = environment
        self.storage: Storage = self._open_storage(durable)
        self.objects = ObjectStore(self.storage)
        self.catalogs = CatalogStore(self.objects)

    def _open_storage(self, durable: bool) -> Storage:
        try:
            upstream = self.configuration().upstream(self._environment)
        except ServerConfError as error:
            raise ConfigurationError(str(error)) from error
        if not upstream.is_local:
            raise ConfigurationError(f"{self.fqrn}: storage of kind {upstream.kind!r} is not supported")
        return LocalStorage(upstream.location, durable=durable)

    def configuration(self) -> ServerConf:
        """``server.conf`` as it is now; raises :exc:`ConfigurationError`."""
        try:
            return ServerConf.load(self.paths.server_conf(self.fqrn), self.fqrn)
        except ServerConfError as error:
            raise ConfigurationError(str(error)) from error

    # -- head

    def head(self) -> Manifest:
        """The published manifest; raises :exc:`ConfigurationError` where there is none that can be read."""
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
        checksum_path = os.path.join(self.paths.repository_spool(self.fqrn), _CHECKSUM_FILE)
        try:
            with open(checksum_path, encoding="ascii") as file:
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
        self.storage.write(REFLOG_PATH, data)
        spool = self.paths.repository_spool(self.fqrn)
        os.makedirs(spool, exist_ok=True)
        replace_file(os.path.join(spool, _CHECKSUM_FILE), digest.bare.encode())
        return digest

    # -- spool

    def forget_client_root(self) -> None:
        """Empty ``client.local``, which may pin the repository's own mount to an older root."""
        path = os.path.join(self.paths.repository_spool(self.fqrn), "client.local")
        if os.path.exists(path):
            os.truncate(path, 0)


def replace_file(path: str, data: bytes, mode: int = 0o644) -> None:
    """Create or replace a small file outside of the storage, atomically and durably."""
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".new-")
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
