"""One repository on this machine: configuration, permissions, room, keys and signatures."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import Final

from cvmfs_gw.care.check_head import HeadCheck
from cvmfs_gw.care.faults import Faults
from cvmfs_gw.doctor.findings import Finding, FindingKind
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.locking import busy_with
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import ServerConf, Upstream
from cvmfs_gw.when import parse_time
from cvmfs_objstore.errors import InvalidHash
from cvmfs_objstore.local import LocalStorage

LITTLE_ROOM: Final = 0.05
"""The part of a file system below which there is little room, of bytes as of files."""
NO_ROOM: Final = 64 << 20
"""Bytes below which a commit is likely to fail."""
_SECRET: Final = ("key", "masterkey", "gw")
_TIMES: Final = ("CVMFS_AUTO_TAG_TIMESPAN", "CVMFS_AUTO_GC_TIMESPAN", "CVMFS_AUTO_GC_LAPSE")


def examine_repository(
    fqrn: str, paths: SystemPaths, environment: Mapping[str, str], now: float
) -> tuple[list[Finding], Repository | None]:
    """What is wrong with a repository at *now* (seconds since the epoch); and the repository if it can be opened."""
    try:
        repository = Repository(fqrn, paths, environment)
        configuration = repository.configuration()
    except EngineError as error:
        return [Finding.of(FindingKind.CONFIGURATION, fqrn, error), *_keys(fqrn, paths)], None
    found = [
        *_configuration(fqrn, configuration, now),
        *_permissions(repository),
        *_room(repository),
        *_keys(fqrn, paths),
    ]
    if not configuration.upstream(environment).is_local:
        found += _bucket(repository, configuration.upstream(environment))
        if any(finding.code == FindingKind.BUCKET.code for finding in found):
            return found, None  # what is in it cannot be looked at
    if what := busy_with(paths, fqrn):
        found.append(Finding.of(FindingKind.TRANSACTION, fqrn, what))
    faults = Faults()
    check = HeadCheck(repository, now, faults)
    head = check.manifest()
    if head is not None:
        check.reflog(head)
    return [*found, *(Finding.of_fault(fqrn, fault) for fault in faults)], repository


def _configuration(fqrn: str, configuration: ServerConf, now: float) -> Iterator[Finding]:
    try:
        _ = configuration.hash_algorithm
    except InvalidHash as error:
        yield Finding.of(FindingKind.CONFIGURATION, fqrn, error)
    for name in _TIMES:
        if text := configuration.get(name):
            try:
                parse_time(text, now)
            except (ValueError, OverflowError) as error:
                yield Finding.of(FindingKind.CONFIGURATION, fqrn, f"{name}: {error}")
    if configuration.auto_gc and not configuration.garbage_collection:
        yield Finding.of(FindingKind.AUTO_GC, fqrn)


def _permissions(repository: Repository) -> Iterator[Finding]:
    fqrn, storage = repository.fqrn, repository.storage
    spool = repository.paths.repository_spool(fqrn)
    if not os.access(spool, os.W_OK | os.X_OK):
        yield Finding.of(FindingKind.SPOOL, f"{fqrn}: {spool}")
    if not isinstance(storage, LocalStorage):
        return
    data, staging = f"{storage.root}/data", f"{storage.root}/data/txn"
    for folder in (storage.root, data, staging, f"{data}/00"):
        if not os.access(folder, os.W_OK | os.X_OK):
            yield Finding.of(FindingKind.STORAGE, f"{fqrn}: {folder}")
            return
    if os.stat(data).st_dev != os.stat(staging).st_dev:
        yield Finding.of(FindingKind.STORAGE_SPLIT, f"{fqrn}: {staging}")


def _bucket(repository: Repository, upstream: Upstream) -> Iterator[Finding]:
    path = upstream.location.partition("@")[2]
    if (mode := os.stat(path).st_mode) & (stat.S_IROTH | stat.S_IWOTH):
        yield Finding.of(FindingKind.KEY_READABLE, path, f"mode {stat.S_IMODE(mode):03o}")
    try:
        repository.storage.names("data/00")  # what a collector needs beside reading and writing
    except OSError as error:
        yield Finding.of(FindingKind.BUCKET, repository.fqrn, error.strerror)


def _room(repository: Repository) -> Iterator[Finding]:
    folders = [repository.paths.repository_spool(repository.fqrn)]
    if isinstance(repository.storage, LocalStorage):
        folders.append(repository.storage.root)
    for folder in folders:
        try:
            room = os.statvfs(folder)
        except FileNotFoundError:
            continue
        place, free = f"{repository.fqrn}: {folder}", room.f_bavail * room.f_frsize
        if free < NO_ROOM or (room.f_files and not room.f_favail):
            yield Finding.of(FindingKind.FULL, place, f"{free >> 20} MiB, {room.f_favail} files")
        elif room.f_bavail < LITTLE_ROOM * room.f_blocks or room.f_favail < LITTLE_ROOM * room.f_files:
            yield Finding.of(FindingKind.ROOM, place, f"{free >> 20} MiB, {room.f_favail} files")


def _keys(fqrn: str, paths: SystemPaths) -> Iterator[Finding]:
    for kind in _SECRET:
        path = paths.key_file(fqrn, kind)
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue  # the master key may lie elsewhere; what of the others is missing is found elsewhere
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            yield Finding.of(FindingKind.KEY_READABLE, path, f"mode {stat.S_IMODE(mode):03o}")
