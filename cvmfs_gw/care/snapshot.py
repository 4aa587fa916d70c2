"""Copies of a repository that are whole: for a backup, while publishing goes on, and for moving to another machine.

::

    manifest, whitelist, reflog, read together and pinned ─▶ mark ─▶ objects ─▶ reflog, whitelist, manifest

What is copied is what the head, its tags and the reflog's other revisions refer to, and each object is hashed on its
way. The manifest comes last, so a copy that was broken off is none; the next one into the same folder goes on with what
is missing, as the next backup does. A copy is laid out as a repository's storage: any web server can serve it.

Secret keys are no part of a copy: what a web server may reach is no place for them. What was removed since the last
copy stays in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from cvmfs_gw.care.check_objects import Progress
from cvmfs_gw.care.digests import FOLDERS, name_of_record
from cvmfs_gw.care.mark import Marker
from cvmfs_gw.care.pins import pinned
from cvmfs_gw.care.resign import WHITELIST_PATH
from cvmfs_gw.care.targets import Target
from cvmfs_gw.engine.errors import ConfigurationError, Conflict, MissingObject, StorageError
from cvmfs_gw.engine.locking import copying
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_objstore.errors import FormatError, ObjectCorrupt, ObjectNotFound, ObjectStoreError
from cvmfs_objstore.formats.history import History
from cvmfs_objstore.formats.manifest import Manifest, SignedManifest
from cvmfs_objstore.formats.reflog import REFLOG_PATH, Reflog
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.objects import ObjectStore
from cvmfs_objstore.storage import Storage

REPLICA_PATH: Final = ".cvmfs_master_replica"
CONFIGURATION_PATH: Final = "backup/server.conf"
"""Where the copy of a repository has its ``server.conf``."""
_MAX_DATABASE: Final = 1 << 30
_PAUSE_S: Final = 0.2
"""How often to look whether ``cvmfs_server`` has signed."""


@dataclass(slots=True)
class CopyReport:
    """What a copy came to. Sizes in bytes as stored."""

    fqrn: str
    revision: int
    objects: int = 0
    copied: int = 0
    size: int = 0
    missing: list[str] = field(default_factory=list)
    """Objects that are referred to and not there, or not what they are called."""

    def count(self, outcome: int | str | None) -> None:
        """Add an object: its size if it was copied, what is wrong with it, or None if it was there already."""
        self.objects += 1
        if isinstance(outcome, str):
            self.missing.append(outcome)
        elif outcome is not None:
            self.copied += 1
            self.size += outcome


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a repository that name everything else, as they were at one moment."""

    head: Manifest
    manifest: bytes
    whitelist: bytes
    reflog: bytes | None
    replicable: bool = True

    @classmethod
    def read(cls, storage: Storage) -> Snapshot:
        """Read them; be alone at the repository, or nobody publishes.

        Raises :exc:`ConfigurationError`, and :exc:`Conflict` where they are not of one moment.
        """
        try:
            manifest = storage.read(MANIFEST_PATH)
            head = SignedManifest.parse(manifest).manifest
            whitelist = storage.read(WHITELIST_PATH)
        except (ObjectNotFound, FormatError) as error:
            raise ConfigurationError(f"no repository: {error}") from error
        reflog = storage.read(REFLOG_PATH) if storage.exists(REFLOG_PATH) else None
        if reflog is not None and head.reflog_hash is not None:
            found = ContentHash.of(reflog, head.root_hash.algorithm)
            if found.digest != head.reflog_hash.digest:
                raise Conflict(
                    "the reflog is not the one that the manifest names: somebody publishes, or it is damaged"
                )
        return cls(head, manifest, whitelist, reflog, storage.exists(REPLICA_PATH))


def export(
    repository: Repository,
    target: Target,
    progress: Progress | None = None,
    *,
    patience: float = 0.0,
    waiting: Callable[[str], None] = lambda what: None,
) -> CopyReport:
    """Copy *repository* to *target*, while others publish and collect; returns what came of it.

    What is missing or damaged is told in the report, and the copy is complete but for that. Where ``cvmfs_server``
    collects, checks, or is about to sign, that is waited for up to *patience* seconds, and *waiting* told of it.

    Raises :exc:`EngineError`: :exc:`Conflict` where that was not long enough.
    """
    paths, fqrn = repository.paths, repository.fqrn
    busy = f"{fqrn}: a collector or check of cvmfs_server is at work"
    with ExitStack() as stack:
        if not stack.enter_context(copying(paths, fqrn, patience, lambda: waiting(busy))):
            raise Conflict(busy)
        snapshot = _read_pinned(repository, stack, patience)
        configuration = _read_file(paths.server_conf(fqrn))
        report = copy_snapshot(snapshot, repository.objects, target, repository.temporary, progress)
        if configuration is not None:
            target.write(CONFIGURATION_PATH, configuration)
        finish_copy(snapshot, target)
    return report


def _read_pinned(repository: Repository, stack: ExitStack, patience: float) -> Snapshot:
    """Read what names everything else, and let nothing of that be collected until *stack* is left."""
    deadline = time.monotonic() + patience
    while True:
        with repository.exclusive():
            try:
                snapshot = Snapshot.read(repository.storage)
            except Conflict:
                # cvmfs_server writes the reflog some time before the manifest, and knows nothing of our lock
                if time.monotonic() >= deadline:
                    raise
            else:
                stack.enter_context(pinned(repository.paths, repository.fqrn, _names(snapshot)))
                return snapshot
        time.sleep(_PAUSE_S)


def _names(snapshot: Snapshot) -> Iterator[ContentHash]:
    """What must not be collected while the snapshot is copied; tags' revisions are in the reflog."""
    head = snapshot.head
    yield from filter(None, (head.root_hash, head.certificate, head.history, head.meta_info, head.micro_catalog))
    if snapshot.reflog is not None:
        with Reflog.load(snapshot.reflog) as reflog:
            yield from (ref for ref, _ in reflog.refs())


def _read_file(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def copy_snapshot(
    snapshot: Snapshot, objects: ObjectStore, target: Target, folder: str, progress: Progress | None = None
) -> CopyReport:
    """Copy all objects of *snapshot* that *target* does not have. *folder* is for large catalogs on their way.

    Raises :exc:`MissingObject` and :exc:`MergeError` if catalogs of the head or of a tag cannot be read.
    """
    head, progress = snapshot.head, progress or Progress()
    report = CopyReport(head.fqrn, head.revision)
    copy, pool = partial(_copy_object, objects, target), target.threads(objects.storage)
    side_by_side: Callable[..., Iterator[int | str | None]] = map if pool is None else pool.map
    with closing(Marker(objects, folder)) as marker:
        _mark(snapshot, objects, marker, report)
        progress.begin(FOLDERS)
        try:
            for number in range(FOLDERS):
                copied, size = report.copied, report.size
                for outcome in side_by_side(copy, map(name_of_record, marker.marked.folder(number))):
                    report.count(outcome)
                progress.folder_done(report.copied - copied, report.size - size)
        finally:
            progress.end()
    return report


def finish_copy(snapshot: Snapshot, target: Target) -> None:
    """Write what names the objects; the manifest is the last."""
    if snapshot.reflog is not None:
        target.write(REFLOG_PATH, snapshot.reflog)
    if snapshot.replicable:
        target.write(REPLICA_PATH, b"")
    target.write(WHITELIST_PATH, snapshot.whitelist)
    target.write(MANIFEST_PATH, snapshot.manifest)


def _mark(snapshot: Snapshot, objects: ObjectStore, marker: Marker, report: CopyReport) -> None:
    head = snapshot.head
    marker.mark(head.root_hash)
    marker.add((head.certificate, head.history, head.meta_info, head.micro_catalog))
    if head.history is not None:
        try:
            with History.load(objects.get_plain(head.history, max_size=_MAX_DATABASE)) as history:
                tags = list(history.tags())
        except ObjectStoreError as error:
            raise MissingObject(f"tag database {head.history}: {error}") from error
        for tag in tags:
            marker.mark(tag.root_hash)
    if snapshot.reflog is None:
        return
    with Reflog.load(snapshot.reflog) as reflog:
        for ref, _ in reflog.refs():
            # the check of a repository tells what of its past is missing: it can be served and copied without
            if not objects.has(ref):
                continue
            if ref.suffix is not Suffix.CATALOG:
                marker.add((ref,))
                continue
            try:
                marker.mark(ref)
            except MissingObject as error:
                report.missing.append(f"of a former revision: {error}")


def _copy_object(objects: ObjectStore, target: Target, name: ContentHash) -> int | str | None:
    """Copy an object; returns its size in bytes, what is wrong with it, or None if *target* has it."""
    try:
        size = objects.size(name)
        if target.has(name, size):
            return None
        with objects.open(name) as file:
            target.add(name, size, file)
    except ObjectNotFound:
        return f"{name}: not there"
    except ObjectCorrupt as error:
        return str(error)
    except OSError as error:
        raise StorageError(f"{name}: {error.strerror}") from error
    return size
