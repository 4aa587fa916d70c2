"""Taking over a Stratum 0 that was made elsewhere, with its keys: the same repository, for clients and publishers.

The source is its storage, as ``cvmfs_server`` keeps it or as an export has it; nobody may publish to it meanwhile. The
chain of trust is verified before anything is written, every object while it is copied, and the manifest comes last.

Source: ``cvmfs_server import``, which takes a storage where it lies and trusts its objects.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from cvmfs_gw.care.check_objects import Progress
from cvmfs_gw.care.snapshot import CopyReport, FolderTarget, Snapshot, copy_snapshot, finish_copy
from cvmfs_gw.engine.create import RepositoryOptions, check_fqrn, configure_repository, import_keys
from cvmfs_gw.engine.errors import ConfigurationError, MissingObject, SigningError
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository, replace_file
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.errors import FormatError, KeyFileError, ObjectStoreError, SignatureError
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.chain import verify_chain
from cvmfs_objstore.formats.keychain import PublicKey
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore

_MAX_CATALOG = 4 << 30


@dataclass(frozen=True, slots=True)
class Adoption:
    """Where a repository comes from: its storage, the folder of its keys, and the URL that it will have."""

    storage: str
    keys: str
    stratum0: str


def adopt(
    fqrn: str,
    paths: SystemPaths,
    environment: Mapping[str, str],
    source: Adoption,
    now: float,
    progress: Progress | None = None,
) -> CopyReport:
    """Make the repository in *source* one of this server's. *now* is in seconds since the epoch.

    Killed in the middle, it leaves a repository without a manifest, which another run completes.

    Raises :exc:`ConfigurationError` if there is one of that name, :exc:`SigningError` if the chain of trust is broken,
    :exc:`MissingObject` if objects are missing or damaged.
    """
    check_fqrn(fqrn)
    location = paths.repository_storage(fqrn)
    if os.path.exists(os.path.join(location, MANIFEST_PATH)):
        raise ConfigurationError(f"{fqrn} exists already, in {location}")
    try:
        objects = ObjectStore(LocalStorage(source.storage, durable=False))
    except OSError as error:
        raise ConfigurationError(f"cannot read {source.storage}: {error.strerror}") from error
    snapshot = Snapshot.read(objects.storage)
    _verify(fqrn, snapshot, objects, source, now)
    os.makedirs(paths.keys, exist_ok=True)
    import_keys(fqrn, paths, source.keys)
    spool = paths.repository_spool(fqrn)
    os.makedirs(os.path.join(spool, "tmp"), exist_ok=True)
    with closing(FolderTarget(location)) as target:
        report = copy_snapshot(snapshot, objects, target, os.path.join(spool, "tmp"), progress)
        if report.missing:
            raise MissingObject(f"{len(report.missing)} objects are missing or damaged, as {report.missing[0]}")
        configure_repository(fqrn, paths, _options(snapshot, objects, source.stratum0))
        replace_file(os.path.join(spool, "client.local"), b"")
        if snapshot.reflog is not None:
            digest = ContentHash.of(snapshot.reflog, snapshot.head.root_hash.algorithm)
            replace_file(os.path.join(spool, "reflog.chksum"), digest.bare.encode())
        finish_copy(snapshot, target)
    Repository(fqrn, paths, environment).signing_keys()  # raises if nothing could be published
    return report


def _verify(fqrn: str, snapshot: Snapshot, objects: ObjectStore, source: Adoption, now: float) -> None:
    if snapshot.head.certificate is None:
        raise SigningError("the manifest names no certificate")
    try:
        verify_chain(
            snapshot.whitelist,
            objects.get_plain(snapshot.head.certificate),
            snapshot.manifest,
            PublicKey.load_all(os.path.join(source.keys, f"{fqrn}.pub")),
            datetime.fromtimestamp(now, UTC),
            fqrn,
        )
    except (SignatureError, KeyFileError, FormatError, ObjectStoreError) as error:
        raise SigningError(f"{fqrn}: {error}") from error


def _options(snapshot: Snapshot, objects: ObjectStore, stratum0: str) -> RepositoryOptions:
    """What the repository says of itself."""
    head = snapshot.head
    with Catalog.load(objects.get_plain(head.root_hash, max_size=_MAX_CATALOG)) as root:
        volatile = root.property("volatile") == "1"
    return RepositoryOptions(
        stratum0,
        algorithm=head.root_hash.algorithm,
        garbage_collection=head.garbage_collectable,
        volatile=volatile,
        ttl=head.ttl,
        replicable=snapshot.replicable,
    )
