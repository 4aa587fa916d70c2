"""Making a repository: keys, whitelist, empty root catalog, tag database, reflog, signed manifest, configuration.

The result is what ``cvmfs_server mkfs`` makes, so ``cvmfs_server import``, replicas and clients work with it.

Source: the files that ``cvmfs_server mkfs`` leaves behind.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import secrets
import stat
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.engine.locking import editing
from cvmfs_gw.engine.names import check_fqrn
from cvmfs_gw.engine.publish import DEFAULT_TTL, GENERIC_PREFIX, Publication, TagChanges
from cvmfs_gw.engine.repository import Repository, replace_file
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import FLAG_DIRECTORY, Entry
from cvmfs_objstore.formats.keychain import Certificate, MasterKey, RepositoryKey, write_key_file
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.reflog import Reflog
from cvmfs_objstore.formats.whitelist import Whitelist
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.local import LocalStorage

_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:,@%+=~-]+", re.ASCII)
_KEY_MODES: Final = {"masterkey": 0o400, "pub": 0o444, "key": 0o400, "crt": 0o444, "gw": 0o600}
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


@dataclass(frozen=True, slots=True)
class RepositoryOptions:
    """The options of ``mkfs``. Defaults are those of ``cvmfs_server mkfs``.

    *stratum0* is the URL that publishers and clients read from; *owner* the user who owns the root directory;
    *ttl* is in seconds; *keys* a folder to import ``<fqrn>.{masterkey,pub,key,crt,gw}`` from (a master key must be
    among them, or a new one is made with all the others).
    """

    stratum0: str
    owner: str = ""
    algorithm: Algorithm = Algorithm.SHA1
    compression: str = "default"
    volatile: bool = False
    garbage_collection: bool = False
    auto_tag: bool = True
    auto_tag_timespan: str = ""
    ttl: int = DEFAULT_TTL
    keys: str = ""
    replicable: bool = True
    revision: int = 1
    """The first revision. If it replaces another repository, it must be higher than that one's: clients never go back.
    """
    keep_configuration: bool = False
    """Leave a ``server.conf`` as it is if there is one."""
    storage: str = ""
    """The storage directory, if not the usual one."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Additional assignments for ``server.conf``; they take precedence over the options above."""


def configure_repository(fqrn: str, paths: SystemPaths, options: RepositoryOptions) -> None:
    """Write ``server.conf``, enter the repository in ``info/v1`` and in the gateway's ``repo.json``.

    Raises :exc:`ConfigurationError`.
    """
    if not (options.keep_configuration and os.path.exists(paths.server_conf(fqrn))):
        _write_configuration(fqrn, paths, options)
    make_gateway_key(fqrn, paths)
    _list_repository(fqrn, paths)
    _grant_access(fqrn, paths)


def create_repository(
    fqrn: str, paths: SystemPaths, environment: Mapping[str, str], options: RepositoryOptions, now: float
) -> Repository:
    """Make the repository *fqrn*; *now* is in seconds since the epoch. Raises :exc:`ConfigurationError` if it exists.

    If killed in the middle, it leaves a repository without a manifest, which another run completes with the same keys.
    """
    check_fqrn(fqrn)
    if options.ttl <= 0:
        raise ConfigurationError(f"not a time that clients could wait for, in seconds: {options.ttl}")
    location = paths.repository_storage(fqrn)
    if os.path.exists(os.path.join(location, ".cvmfspublished")):
        raise ConfigurationError(f"{fqrn} exists already, in {location}")
    uid, gid = _owner(options.owner)
    spool = paths.repository_spool(fqrn)
    for folder in (paths.keys, spool, os.path.join(spool, "tmp")):
        os.makedirs(folder, exist_ok=True)
    LocalStorage.create(location).close()
    if not (options.keep_configuration and os.path.exists(paths.server_conf(fqrn))):
        _write_configuration(fqrn, paths, options)
    _make_keys(fqrn, paths, options, now)
    repository = Repository(fqrn, paths, environment)
    write_whitelist(repository, now)
    if options.replicable:
        repository.storage.write(".cvmfs_master_replica", _REPLICA_NOTE)
    replace_file(os.path.join(spool, "client.local"), b"")
    _publish_empty(repository, options, uid, gid, now)
    if options.owner:
        _hand_over(fqrn, paths, location, uid, gid)
    _list_repository(fqrn, paths)
    _grant_access(fqrn, paths)
    return repository


def _hand_over(fqrn: str, paths: SystemPaths, location: str, uid: int, gid: int) -> None:
    """Give storage, spool folder and keys to the owner, who will serve them, if this process may give files away.

    Source: ``cvmfs_server mkfs -o``.
    """
    if os.geteuid() != 0:
        return
    spool = paths.repository_spool(fqrn)
    for folder in (location, spool):
        os.chown(folder, uid, gid)
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(os.path.join(parent, name), uid, gid, follow_symlinks=False)
    for kind in _KEY_MODES:
        if os.path.exists(paths.key_file(fqrn, kind)):
            os.chown(paths.key_file(fqrn, kind), uid, gid)


def begin_anew(
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
    if os.path.exists(os.path.join(paths.repository_storage(fqrn), ".cvmfspublished")):
        return False
    folder = keys or paths.keys
    for kind in ("masterkey", "key", "crt"):
        if not os.path.exists(os.path.join(folder, f"{fqrn}.{kind}")):
            raise ConfigurationError(f"no {fqrn}.{kind} in {folder}: make the keys once, with cvmfs-gw mkfs {fqrn}")
    options = RepositoryOptions(
        stratum0=stratum0,
        garbage_collection=True,
        auto_tag=False,
        keys=keys,
        revision=int(now),
        keep_configuration=True,
        settings=settings,
    )
    create_repository(fqrn, paths, {}, options, now)
    return True


def _owner(name: str) -> tuple[int, int]:
    if not name:
        return os.getuid(), os.getgid()
    try:
        user = pwd.getpwnam(name)
    except KeyError as error:
        raise ConfigurationError(f"no such user: {name}") from error
    return user.pw_uid, user.pw_gid


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers run as users that nobody has listed
        return str(os.getuid())


def _make_keys(fqrn: str, paths: SystemPaths, options: RepositoryOptions, now: float) -> None:
    """Make sure that all five key files exist: imported, left by an earlier run, or new."""

    def path(kind: str) -> str:
        return paths.key_file(fqrn, kind)

    if options.keys:
        import_keys(fqrn, paths, options.keys)
        if not os.path.exists(path("masterkey")):
            raise ConfigurationError(f"no {fqrn}.masterkey in {options.keys}: nothing could sign the whitelist")
    try:
        if not os.path.exists(path("masterkey")):
            master = MasterKey.generate()
            master.write(path("masterkey"))
        if not os.path.exists(path("pub")):
            write_key_file(path("pub"), MasterKey.load(path("masterkey")).public_pem, _KEY_MODES["pub"])
        if not os.path.exists(path("crt")):
            if not os.path.exists(path("key")):
                RepositoryKey.generate().write(path("key"))
            key = RepositoryKey.load(path("key"))
            certificate = Certificate.self_signed(key, fqrn, datetime.fromtimestamp(now, UTC))
            write_key_file(path("crt"), certificate.pem, _KEY_MODES["crt"])
        make_gateway_key(fqrn, paths)
    except ObjectStoreError as error:
        raise ConfigurationError(str(error)) from error


def make_gateway_key(fqrn: str, paths: SystemPaths) -> None:
    """Make the secret that publishers and the gateway share, unless there is one."""
    path = paths.key_file(fqrn, "gw")
    if not os.path.exists(path):
        line = f"plain_text gw-{secrets.token_hex(4)} {secrets.token_urlsafe(32)}\n"
        write_key_file(path, line.encode(), _KEY_MODES["gw"])


def import_keys(fqrn: str, paths: SystemPaths, folder: str) -> None:
    """Copy the repository's key files from *folder*, except existing ones; raises :exc:`ConfigurationError`."""
    found = False
    for kind, mode in _KEY_MODES.items():
        source = os.path.join(folder, f"{fqrn}.{kind}")
        if os.path.exists(source) and not os.path.exists(paths.key_file(fqrn, kind)):
            with open(source, "rb") as file:
                write_key_file(paths.key_file(fqrn, kind), file.read(), mode)
        found = found or os.path.exists(source)
    if not found:
        raise ConfigurationError(f"no keys of {fqrn} in {folder}")


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


def _write_configuration(fqrn: str, paths: SystemPaths, options: RepositoryOptions) -> None:
    location, spool = options.storage or paths.repository_storage(fqrn), paths.repository_spool(fqrn)
    values = {
        "CVMFS_CREATOR_VERSION": "143",
        "CVMFS_REPOSITORY_NAME": fqrn,
        "CVMFS_REPOSITORY_TYPE": "stratum0",
        "CVMFS_USER": options.owner or _user_name(),
        "CVMFS_UNION_DIR": f"/cvmfs/{fqrn}",
        "CVMFS_SPOOL_DIR": spool,
        "CVMFS_STRATUM0": options.stratum0,
        "CVMFS_UPSTREAM_STORAGE": f"local,{location}/data/txn,{location}",
        "CVMFS_USE_FILE_CHUNKING": "true",
        "CVMFS_MIN_CHUNK_SIZE": str(4 << 20),
        "CVMFS_AVG_CHUNK_SIZE": str(8 << 20),
        "CVMFS_MAX_CHUNK_SIZE": str(16 << 20),
        "CVMFS_UNION_FS_TYPE": "overlayfs",
        "CVMFS_HASH_ALGORITHM": options.algorithm.config_name,
        "CVMFS_COMPRESSION_ALGORITHM": options.compression,
        "CVMFS_EXTERNAL_DATA": "false",
        "CVMFS_AUTO_TAG": _boolean(options.auto_tag),
        "CVMFS_AUTO_TAG_TIMESPAN": options.auto_tag_timespan,
        "CVMFS_GARBAGE_COLLECTION": _boolean(options.garbage_collection),
        "CVMFS_AUTO_REPAIR_MOUNTPOINT": "true",
        "CVMFS_AUTOCATALOGS": "false",
        "CVMFS_ASYNC_SCRATCH_CLEANUP": "true",
        "CVMFS_PRINT_STATISTICS": "false",
        "CVMFS_UPLOAD_STATS_DB": "false",
        "CVMFS_UPLOAD_STATS_PLOTS": "false",
        "CVMFS_IGNORE_XDIR_HARDLINKS": "true",
        "CVMFS_REPOSITORY_TTL": str(options.ttl),
    }
    if options.garbage_collection:
        values["CVMFS_AUTO_GC"] = "true"
    if options.volatile:
        values["CVMFS_VOLATILE"] = "true"
    values |= options.settings
    lines = [f"{key}={_quoted(value)}\n" for key, value in values.items()]
    path = paths.server_conf(fqrn)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    replace_file(path, b"# Created by cvmfs-gw mkfs\n" + "".join(lines).encode())


def _quoted(value: str) -> str:
    """Quote a value for the shell, which reads the same file; an empty one, too, as the reference does."""
    return value if _PLAIN.fullmatch(value) else f'"{value}"'


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _read_json(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            content = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} holds no JSON object")
    return content


def _list_repository(fqrn: str, paths: SystemPaths) -> None:
    """Enter the repository in ``info/v1``, which is read by monitoring and replicas."""
    folder = os.path.join(paths.storage, "info", "v1")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "repositories.json")
    with editing(path):
        content = {"schema": 1, "repositories": [], "replicas": []} | _read_json(path)
        listed = content["repositories"]
        if isinstance(listed, list) and not any(isinstance(item, dict) and item.get("name") == fqrn for item in listed):
            listed.append({"name": fqrn, "url": f"/cvmfs/{fqrn}"})
        replace_file(path, json.dumps(content, indent=2).encode() + b"\n")
    meta = os.path.join(folder, "meta.json")
    if not os.path.exists(meta):
        content = {"administrator": "", "email": "", "organisation": "", "custom": {}}
        replace_file(meta, json.dumps(content, indent=2).encode() + b"\n")


def is_served(fqrn: str, paths: SystemPaths) -> bool:
    """Whether the gateway's ``repo.json`` has the repository; raises :exc:`ConfigurationError`."""
    return _names(_read_json(paths.access_config).get("repos"), fqrn)


def _names(repos: object, fqrn: str) -> bool:
    return isinstance(repos, list) and any(
        repo == fqrn or (isinstance(repo, dict) and repo.get("domain") == fqrn) for repo in repos
    )


def _grant_access(fqrn: str, paths: SystemPaths) -> None:
    """Enter the repository in the gateway's ``repo.json`` with its own key file."""
    path = paths.access_config
    with editing(path):
        content = _read_json(path) or {"version": 2, "repos": []}
        if content.get("version") != 2:
            raise ConfigurationError(f"{path} is of an old version: enter {fqrn} there by hand")
        repos = content.setdefault("repos", [])
        if not isinstance(repos, list):
            raise ConfigurationError(f"{path}: repos is no list")
        if not _names(repos, fqrn):
            repos.append(fqrn)
            # a new one is for whom the repository's key is
            replace_file(path, json.dumps(content, indent=2).encode() + b"\n", 0o640, paths.key_file(fqrn, "gw"))
