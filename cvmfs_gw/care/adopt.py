"""Taking over a Stratum 0 that was made elsewhere, with its keys: the same repository, for clients and publishers.

The source is its storage, as ``cvmfs_server`` keeps it or as an export has it; nobody may publish to it meanwhile. Its
objects are copied, linked, or stay where they are (:class:`Way`). The chain of trust is verified before anything is
written, and every object before the repository is served. The former ``server.conf`` goes along as far as it has a
meaning here; where ``cvmfs_server`` has made the repository on this machine, it holds as it is.

Source: ``cvmfs_server import``, which takes a storage where it lies and trusts its objects.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from cvmfs_gw.care.check_objects import Progress
from cvmfs_gw.care.resign import resign_whitelist
from cvmfs_gw.care.settings import Setting, kept, read_settings
from cvmfs_gw.care.snapshot import CONFIGURATION_PATH, CopyReport, Snapshot, copy_snapshot, finish_copy
from cvmfs_gw.care.targets import FolderTarget, InPlace, LinkTarget, StorageTarget
from cvmfs_gw.engine.configure import RepositoryOptions, configure_repository, is_served, upstream_of
from cvmfs_gw.engine.create import is_made
from cvmfs_gw.engine.errors import ConfigurationError, Conflict, MissingObject, SigningError
from cvmfs_gw.engine.keyfiles import import_keys
from cvmfs_gw.engine.locking import busy_in
from cvmfs_gw.engine.names import check_fqrn
from cvmfs_gw.engine.repository import Repository, replace_file
from cvmfs_gw.engine.upstream import open_storage, public_url
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import ServerConf, ServerConfError, Upstream
from cvmfs_objstore.errors import FormatError, KeyFileError, ObjectStoreError, SignatureError
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.chain import verify_chain
from cvmfs_objstore.formats.keychain import PublicKey
from cvmfs_objstore.formats.whitelist import SignedWhitelist
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore

_MAX_CATALOG: Final = 4 << 30


class Way(StrEnum):
    """How objects come along."""

    COPY = "copy"
    """The source stays as it is."""
    LINK = "link"
    """Hard links, on one file system: neither room nor time, and the source stays as it is, too."""
    IN_PLACE = "in-place"
    """The storage is used where it lies, and is nobody else's from then on."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """Where a repository comes from and how.

    *storage* is the folder with ``data`` in it, *keys* that of its keys, *stratum0* the URL that it will have (``""``:
    as its ``server.conf`` says), *settings* its former ``server.conf`` (``""``: that of an export, if it is one). With
    *trust*, objects are looked for and not read, but where they are copied. With *resign*, the whitelist may have run
    out and is signed again.
    """

    storage: str
    keys: str
    stratum0: str = ""
    settings: str = ""
    way: Way = Way.COPY
    trust: bool = False
    resign: bool = False
    s3: str = ""
    """The ``s3.conf`` of the bucket to copy it into."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What came of it: the objects, and what became of each former setting."""

    copy: CopyReport
    settings: list[Setting] = field(default_factory=list)


def adopt(
    fqrn: str,
    paths: SystemPaths,
    environment: Mapping[str, str],
    source: Adoption,
    now: float,
    progress: Progress | None = None,
) -> Adopted:
    """Make the repository in *source* one of this server's. *now* is in seconds since the epoch.

    Killed in the middle, it leaves a repository that is not served, which another run completes.

    Raises :exc:`ConfigurationError` if there is one of that name, or if it cannot be used that way,
    :exc:`SigningError` if the chain of trust is broken, :exc:`MissingObject` if objects are missing or damaged,
    :exc:`Conflict` if somebody publishes to it.
    """
    check_fqrn(fqrn)
    location = paths.repository_storage(fqrn)
    stays = source.way is Way.IN_PLACE and _configured_for(fqrn, paths, source.storage)
    _refuse_existing(fqrn, paths, source, stays=stays)
    try:
        objects = ObjectStore(LocalStorage(source.storage, durable=False))
    except OSError as error:
        raise ConfigurationError(f"cannot read {source.storage}: {error.strerror}") from error
    former = _former_configuration(paths.server_conf(fqrn) if stays else source.settings, source.storage, fqrn)
    _refuse_busy(fqrn, former)
    snapshot = Snapshot.read(objects.storage)
    _verify(fqrn, snapshot, objects, source, now)
    if source.way is Way.IN_PLACE:
        _prepare_storage(source.storage)
        target: StorageTarget | InPlace = InPlace(trust=source.trust)
    elif source.way is Way.LINK:
        target = LinkTarget(location, source.storage, trust=source.trust)
    elif source.s3:
        target = StorageTarget(open_storage(fqrn, _upstream(fqrn, paths, source)))
    else:
        target = FolderTarget(location)
    os.makedirs(paths.keys, exist_ok=True)
    import_keys(fqrn, paths, source.keys)
    spool = paths.repository_spool(fqrn)
    os.makedirs(os.path.join(spool, "tmp"), exist_ok=True)
    with closing(target):
        report = copy_snapshot(snapshot, objects, target, os.path.join(spool, "tmp"), progress)
        if report.missing:
            raise MissingObject(f"{len(report.missing)} objects are missing or damaged, as {report.missing[0]}")
        settings = [] if stays else list(read_settings(former))
        if source.way is Way.IN_PLACE and not _same(location, source.storage):
            _show_at(location, source.storage)
        options = _options(snapshot, objects, source, former, settings, keep=stays)
        if source.s3:
            url = source.stratum0 or public_url(fqrn, _upstream(fqrn, paths, source))
            options = replace(options, s3=source.s3, stratum0=url)
        configure_repository(fqrn, paths, options)
        _fill_spool(spool, snapshot)
        finish_copy(snapshot, target)
    repository = Repository(fqrn, paths, environment)
    repository.signing_keys()  # raises if nothing could be published
    if source.resign:
        resign_whitelist(repository, now)
    return Adopted(report, settings)


# -- before anything is written


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _configured_for(fqrn: str, paths: SystemPaths, storage: str) -> bool:
    """Whether ``cvmfs_server`` has made the repository on this machine, in that storage."""
    try:
        upstream = ServerConf.load(paths.server_conf(fqrn), fqrn).upstream()
    except ServerConfError:
        return False
    return upstream.is_local and _same(upstream.location, storage)


def _upstream(fqrn: str, paths: SystemPaths, source: Adoption) -> Upstream:
    """Where a copy goes."""
    return upstream_of(fqrn, paths, RepositoryOptions("", s3=source.s3))


def _refuse_existing(fqrn: str, paths: SystemPaths, source: Adoption, *, stays: bool) -> None:
    location = paths.repository_storage(fqrn)
    if source.way is not Way.IN_PLACE:
        if is_made(fqrn, upstream := _upstream(fqrn, paths, source)):
            raise ConfigurationError(f"{fqrn} exists already, in {upstream.location}")
        return
    if is_served(fqrn, paths):
        raise ConfigurationError(f"{fqrn} exists already: the gateway serves it")
    if os.path.exists(paths.server_conf(fqrn)) and not stays:
        raise ConfigurationError(f"{paths.server_conf(fqrn)} exists already, and names another storage")
    if os.path.lexists(location) and not _same(location, source.storage):
        raise ConfigurationError(f"{location} exists already, and is not {source.storage}")


def _former_configuration(path: str, storage: str, fqrn: str) -> ServerConf:
    exported = os.path.join(storage, CONFIGURATION_PATH)
    if not path and not os.path.exists(exported):
        return ServerConf()
    try:
        return ServerConf.load(path or exported, fqrn)
    except ServerConfError as error:
        raise ConfigurationError(str(error)) from error


def _refuse_busy(fqrn: str, former: ServerConf) -> None:
    if (spool := former.get("CVMFS_SPOOL_DIR")) and (what := busy_in(spool)):
        raise Conflict(f"{fqrn}: {what}: publish or abort it first")


def _verify(fqrn: str, snapshot: Snapshot, objects: ObjectStore, source: Adoption, now: float) -> None:
    if snapshot.head.certificate is None:
        raise SigningError("the manifest names no certificate")
    moment = datetime.fromtimestamp(now, UTC)
    try:
        if source.resign:  # it need not be good any more, if it ever was
            moment = min(moment, SignedWhitelist.parse(snapshot.whitelist).whitelist.issued)
        verify_chain(
            snapshot.whitelist,
            objects.get_plain(snapshot.head.certificate),
            snapshot.manifest,
            PublicKey.load_all(os.path.join(source.keys, f"{fqrn}.pub")),
            moment,
            fqrn,
        )
    except (SignatureError, KeyFileError, FormatError, ObjectStoreError) as error:
        raise SigningError(f"{fqrn}: {error}") from error
    if source.resign and not os.path.exists(os.path.join(source.keys, f"{fqrn}.masterkey")):
        raise SigningError(f"no {fqrn}.masterkey in {source.keys}: nothing could sign the whitelist")


def _prepare_storage(storage: str) -> None:
    """Make what is missing of its folders, and see that they can be written to."""
    try:
        LocalStorage.create(storage).close()
    except OSError as error:
        raise ConfigurationError(f"{storage} cannot be written to: {error.strerror}") from error
    for folder in ("", "data", "data/00", "data/ff", "data/txn"):
        path = os.path.join(storage, folder)
        if not os.access(path, os.W_OK | os.X_OK):
            raise ConfigurationError(f"{path} cannot be written to: give it to the user whom the gateway runs as")


# -- afterwards


def _show_at(location: str, storage: str) -> None:
    """Let the web server find a storage that lies elsewhere."""
    os.makedirs(os.path.dirname(location), exist_ok=True)
    if not os.path.lexists(location):
        os.symlink(os.path.abspath(storage), location)


def _options(
    snapshot: Snapshot,
    objects: ObjectStore,
    source: Adoption,
    former: ServerConf,
    settings: list[Setting],
    *,
    keep: bool,
) -> RepositoryOptions:
    """What the repository says of itself, and what its former settings do."""
    head = snapshot.head
    with Catalog.load(objects.get_plain(head.root_hash, max_size=_MAX_CATALOG)) as root:
        volatile = root.property("volatile") == "1"
    return RepositoryOptions(
        source.stratum0 or former.stratum0 or f"http://localhost:8080/cvmfs/{head.fqrn}",
        algorithm=head.root_hash.algorithm,
        garbage_collection=head.garbage_collectable,
        volatile=volatile,
        ttl=head.ttl,
        replicable=snapshot.replicable,
        keep_configuration=keep,
        storage=os.path.abspath(source.storage) if source.way is Way.IN_PLACE else "",
        settings=kept(settings),
    )


def _fill_spool(spool: str, snapshot: Snapshot) -> None:
    """Write what is missing there, or wrong."""
    if not os.path.exists(os.path.join(spool, "client.local")):
        replace_file(os.path.join(spool, "client.local"), b"")
    if snapshot.reflog is None:
        return
    path = os.path.join(spool, "reflog.chksum")
    digest = ContentHash.of(snapshot.reflog, snapshot.head.root_hash.algorithm).bare.encode()
    try:
        with open(path, "rb") as file:
            if file.read() == digest:
                return
    except FileNotFoundError:
        pass
    replace_file(path, digest)
