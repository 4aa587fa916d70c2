"""The configuration of a repository: ``server.conf``, and its entries in ``info/v1`` and the gateway's ``repo.json``.

Source: the files that ``cvmfs_server mkfs`` writes.
"""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cvmfs_gw.engine.errors import ConfigurationError
from cvmfs_gw.engine.keyfiles import make_gateway_key
from cvmfs_gw.engine.locking import editing
from cvmfs_gw.engine.publish import DEFAULT_TTL
from cvmfs_gw.engine.repository import replace_file
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import ServerConf, ServerConfError, Upstream
from cvmfs_objstore.hashes import Algorithm

_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:,@%+=~-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class RepositoryOptions:
    """The options of ``mkfs``. Defaults are those of ``cvmfs_server mkfs``.

    *stratum0* is the URL that publishers and clients read from; *owner* the user who owns the repository, its storage
    and keys; *ttl* is in seconds; *keys* a folder to import ``<fqrn>.{masterkey,pub,key,crt,gw}`` from (a master key
    must be among them, or a new one is made with all the others).
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
    s3: str = ""
    """The ``s3.conf`` of the bucket that is the storage, in place of a directory."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Additional assignments for ``server.conf``; they take precedence over the options above."""


def configure_repository(fqrn: str, paths: SystemPaths, options: RepositoryOptions) -> None:
    """Write ``server.conf``, enter the repository in ``info/v1`` and in the gateway's ``repo.json``.

    Raises :exc:`ConfigurationError`.
    """
    write_server_conf(fqrn, paths, options)
    make_gateway_key(fqrn, paths)
    register_repository(fqrn, paths, upstream_of(fqrn, paths, options))


def upstream_of(
    fqrn: str, paths: SystemPaths, options: RepositoryOptions, environment: Mapping[str, str] = MappingProxyType({})
) -> Upstream:
    """The storage of a repository that is made with *options*; raises :exc:`ConfigurationError`."""
    try:
        if options.keep_configuration and os.path.exists(paths.server_conf(fqrn)):
            return ServerConf.load(paths.server_conf(fqrn), fqrn).upstream(environment)
        if setting := options.settings.get("CVMFS_UPSTREAM_STORAGE"):
            return Upstream.parse(setting)
    except ServerConfError as error:
        raise ConfigurationError(str(error)) from error
    if options.s3:
        return Upstream("S3", f"{paths.repository_spool(fqrn)}/tmp", f"{fqrn}@{os.path.abspath(options.s3)}")
    location = options.storage or paths.repository_storage(fqrn)
    return Upstream("local", f"{location}/data/txn", location)


def register_repository(fqrn: str, paths: SystemPaths, upstream: Upstream) -> None:
    """Enter the repository in the gateway's ``repo.json``, and a local one in ``info/v1``.

    Raises :exc:`ConfigurationError`.
    """
    if upstream.is_local:
        _list_repository(fqrn, paths)
    _grant_access(fqrn, paths)


def write_server_conf(fqrn: str, paths: SystemPaths, options: RepositoryOptions) -> None:
    """Write ``server.conf``, unless there is one that *options* say to keep."""
    if options.keep_configuration and os.path.exists(paths.server_conf(fqrn)):
        return
    spool = paths.repository_spool(fqrn)
    values = {
        "CVMFS_CREATOR_VERSION": "143",
        "CVMFS_REPOSITORY_NAME": fqrn,
        "CVMFS_REPOSITORY_TYPE": "stratum0",
        "CVMFS_USER": options.owner or _user_name(),
        "CVMFS_UNION_DIR": f"/cvmfs/{fqrn}",
        "CVMFS_SPOOL_DIR": spool,
        "CVMFS_STRATUM0": options.stratum0,
        "CVMFS_UPSTREAM_STORAGE": str(upstream_of(fqrn, paths, options)),
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


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers run as users that nobody has listed
        return str(os.getuid())


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
        raise ConfigurationError(f"{path} is not a JSON object")
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
            raise ConfigurationError(f"{path}: repos is not a list")
        if not _names(repos, fqrn):
            repos.append(fqrn)
            # a new file is readable for whoever may read the repository's key
            replace_file(path, json.dumps(content, indent=2).encode() + b"\n", 0o640, paths.key_file(fqrn, "gw"))
