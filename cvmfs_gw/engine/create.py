"""Making a repository: configuration, keys, whitelist, empty root catalog, tag database, reflog, signed manifest.

The result is what ``cvmfs_server mkfs`` makes, so ``cvmfs_server import``, replicas and clients work with it.

Source: the files that ``cvmfs_server mkfs`` leaves behind.
"""

from __future__ import annotations

import json
import os
import pwd
import stat
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from cvmfs_gw.engine.configure import RepositoryOptions, register_repository, upstream_of, write_server_conf
from cvmfs_gw.engine.errors import ConfigurationError, StorageError
from cvmfs_gw.engine.keyfiles import KEY_MODES, make_keys
from cvmfs_gw.engine.names import check_fqrn
from cvmfs_gw.engine.publish import GENERIC_PREFIX, Publication, TagChanges
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository, replace_file
from cvmfs_gw.engine.upstream import open_storage, public_url
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import Upstream
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import FLAG_DIRECTORY, Entry
from cvmfs_objstore.formats.keychain import Certificate, MasterKey
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.reflog import Reflog
from cvmfs_objstore.formats.whitelist import Whitelist
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.local import LocalStorage

_REPLICA_NOTE: Final = b"This repository may be replicated to Stratum 1 servers\n"
_META_INFO: Final = {
    "administrator": "",
    "email": "",
    "organisation": "",
    "description": "",
    "url": "",
    "recommended-stratum0": "",
    "recommended-stratum1s": [],
    "custom": {},
}


def create_repository(
    fqrn: str, paths: SystemPaths, environment: Mapping[str, str], options: RepositoryOptions, now: float
) -> Repository:
    """Make the repository *fqrn*; *now* is in seconds since the epoch. Raises :exc:`ConfigurationError` if it exists.

    If killed in the middle, it leaves a repository without a manifest, which another run completes with the same keys.
    """
    check_fqrn(fqrn)
    if options.ttl <= 0:
        raise ConfigurationError(f"not a time that clients could wait for, in seconds: {options.ttl}")
    upstream = upstream_of(fqrn, paths, options, environment)
    if is_made(fqrn, upstream):
        raise ConfigurationError(f"{fqrn} exists already, in {upstream.location}")
    options = replace(options, stratum0=options.stratum0 or public_url(fqrn, upstream))
    uid, gid = _owner(options.owner)
    spool = paths.repository_spool(fqrn)
    for folder in (paths.keys, spool, os.path.join(spool, "tmp")):
        os.makedirs(folder, exist_ok=True)
    if upstream.is_local:
        LocalStorage.create(upstream.location).close()
    write_server_conf(fqrn, paths, options)
    make_keys(fqrn, paths, options.keys, now)
    repository = Repository(fqrn, paths, environment)
    write_whitelist(repository, now)
    if options.replicable:
        repository.storage.write(".cvmfs_master_replica", _REPLICA_NOTE)
    replace_file(os.path.join(spool, "client.local"), b"")
    _publish_empty(repository, options, uid, gid, now)
    if options.owner:
        _hand_over(fqrn, paths, upstream, uid, gid)
    register_repository(fqrn, paths, upstream)
    return repository


def _hand_over(fqrn: str, paths: SystemPaths, upstream: Upstream, uid: int, gid: int) -> None:
    """Give storage, spool folder and keys to the owner, who will run the server, if this process may change owners.

    Source: ``cvmfs_server mkfs -o``.
    """
    if os.geteuid() != 0:
        return
    spool = paths.repository_spool(fqrn)
    for folder in (upstream.location, spool) if upstream.is_local else (spool,):
        os.chown(folder, uid, gid)
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(os.path.join(parent, name), uid, gid, follow_symlinks=False)
    for kind in KEY_MODES:
        if os.path.exists(paths.key_file(fqrn, kind)):
            os.chown(paths.key_file(fqrn, kind), uid, gid)


def ensure_repository(
    fqrn: str,
    paths: SystemPaths,
    stratum0: str,
    now: float,
    *,
    keys: str = "",
    settings: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Make the repository with existing keys, from *keys* or the keys folder, unless it exists.

    *settings* are assignments for its ``server.conf``, if that has to be made, too.

    For a server with ephemeral storage. The revision is *now*, in seconds since the epoch, so that it is higher than
    that of the repository before: clients and subscribers follow. Returns whether it was made. Raises
    :exc:`ConfigurationError` if there are no keys: with new ones, no client would trust the repository.
    """
    check_fqrn(fqrn)
    options = RepositoryOptions(
        stratum0=stratum0,
        garbage_collection=True,
        auto_tag=False,
        keys=keys,
        revision=int(now),
        keep_configuration=True,
        settings=settings,
    )
    if is_made(fqrn, upstream_of(fqrn, paths, options)):
        return False
    folder = keys or paths.keys
    for kind in ("masterkey", "key", "crt"):
        if not os.path.exists(os.path.join(folder, f"{fqrn}.{kind}")):
            raise ConfigurationError(f"no {fqrn}.{kind} in {folder}: make the keys once, with cvmfs-gw mkfs {fqrn}")
    create_repository(fqrn, paths, {}, options, now)
    return True


def is_made(fqrn: str, upstream: Upstream) -> bool:
    """Whether a repository is in that storage, which need not exist. Raises as :func:`open_storage` does."""
    if upstream.is_local:
        return os.path.exists(os.path.join(upstream.location, MANIFEST_PATH))
    try:
        return open_storage(fqrn, upstream).exists(MANIFEST_PATH)
    except OSError as error:
        raise StorageError(f"{fqrn}: {error.strerror}") from error


def _owner(name: str) -> tuple[int, int]:
    if not name:
        return os.getuid(), os.getgid()
    try:
        user = pwd.getpwnam(name)
    except KeyError as error:
        raise ConfigurationError(f"no such user: {name}") from error
    return user.pw_uid, user.pw_gid


def write_whitelist(repository: Repository, now: float) -> None:
    """Sign a whitelist for the repository's certificate, good for 30 days from *now* (seconds since the epoch).

    Raises :exc:`~cvmfs_objstore.errors.KeyFileError` if there is no master key.
    """
    certificate = Certificate.load(repository.paths.key_file(repository.fqrn, "crt"))
    master = MasterKey.load(repository.paths.key_file(repository.fqrn, "masterkey"))
    algorithm = repository.configuration().hash_algorithm
    moment = datetime.fromtimestamp(now, UTC)
    whitelist = Whitelist.issue(repository.fqrn, (certificate,), moment, algorithm=algorithm)
    repository.storage.write(".cvmfswhitelist", whitelist.signed(master))


def _publish_empty(repository: Repository, options: RepositoryOptions, uid: int, gid: int, now: float) -> None:
    root = Entry(
        hardlinks=2,
        hash=None,
        size=4096,
        mode=stat.S_IFDIR | 0o755,
        mtime=int(now),
        mtimens=None,
        flags=FLAG_DIRECTORY,
        name="",
        symlink="",
        uid=uid,
        gid=gid,
        xattr=None,
    )
    with Catalog.create("", root) as catalog:
        catalog.set_property("revision", options.revision)
        catalog.set_property("TTL", options.ttl)
        catalog.set_property("last_modified", int(now))
        if options.volatile:
            catalog.set_property("volatile", 1)
        ref = repository.catalogs.store(catalog, options.algorithm)
    with Reflog.create(repository.fqrn) as reflog:
        reflog_hash = repository.store_reflog(reflog, options.algorithm)
    meta_info = repository.objects.add(
        json.dumps(_META_INFO, indent=2).encode() + b"\n", options.algorithm, Suffix.METAINFO, deflate=deflate
    )
    nothing = Manifest(
        root_hash=ContentHash.null(options.algorithm, Suffix.CATALOG),
        root_size=0,
        ttl=options.ttl,
        revision=0,
        fqrn=repository.fqrn,
        meta_info=meta_info,
        reflog_hash=reflog_hash,
    )
    tags = TagChanges(GENERIC_PREFIX if options.auto_tag else "")
    with closing(Publication(repository, nothing, tags, now)) as publication:
        publication.publish(ref, options.revision, options.ttl)
