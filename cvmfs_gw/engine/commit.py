"""The gateway's commit: a publisher's uploaded catalogs become the repository's next revision."""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import lru_cache
from typing import Final

from cvmfs_gw.engine.apart import ProcessEnded, call_apart
from cvmfs_gw.engine.balance import Weights
from cvmfs_gw.engine.catalogs import CatalogCache
from cvmfs_gw.engine.commit_api import CommitOutcome, CommitRequest
from cvmfs_gw.engine.errors import EngineError, MergeError, PathViolation, StorageError
from cvmfs_gw.engine.merge import Merged, MergeRequest, check_ancestors, merge
from cvmfs_gw.engine.phases import Stopwatch, describe
from cvmfs_gw.engine.publish import Publication, TagChanges
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.statistics import record_publish
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.paths import SystemPaths
from cvmfs_gw.serverconf import ServerConf
from cvmfs_gw.when import parse_time
from cvmfs_objstore.errors import FormatError, ObjectStoreError
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.entry import parent_path
from cvmfs_objstore.hashes import ContentHash

_log = logging.getLogger(__name__)
_MAX_LOGGED_COLLISIONS: Final = 20
_PREPARED: Final = 8
"""How many catalogs of a pack are read ahead: the last ones in reverse order, as the root catalog is at the end."""
_CHECKED: Final = 1000
"""How many lease paths that were found valid are remembered."""
APART: Final = 16 << 20
"""From how many stored bytes of catalogs a commit is made in a process of its own: some 300,000 entries, which take
seconds. A process costs a tenth of one, and no catalog of that size would be kept for the next commit anyway."""


class Engine:
    """The engine of a gateway, for all of its repositories. Thread-safe across repositories."""

    def __init__(
        self,
        paths: SystemPaths,
        environment: Mapping[str, str],
        *,
        durable: bool = True,
        strict_objects: bool = False,
        clock: Callable[[], float] = time.time,
        apart: int = APART,
    ) -> None:
        """Commits of *apart* bytes of catalogs are made in a process of their own, with the system's clock."""
        self._strict_objects = strict_objects
        self._apart = apart
        self._paths, self._environment, self._durable, self.clock = paths, environment, durable, clock
        self._cache = CatalogCache()
        self._repositories: dict[str, Repository] = {}
        self._lock = threading.Lock()
        # Whoever polls a busy path asks the same again and again; what is refused is not remembered.
        self._check_lease = lru_cache(_CHECKED)(self._look_at_ancestors)

    @property
    def paths(self) -> SystemPaths:
        """Where repositories and their files are."""
        return self._paths

    def repository(self, fqrn: str) -> Repository:
        """The repository of that name, opened at its first use; raises :exc:`ConfigurationError`."""
        with self._lock:
            repository = self._repositories.get(fqrn)
            if repository is None:
                repository = Repository(fqrn, self._paths, self._environment, durable=self._durable, cache=self._cache)
                self._repositories[fqrn] = repository
            return repository

    def prepare(self, fqrn: str, catalogs: tuple[ContentHash, ...]) -> None:
        """Read uploaded catalogs into memory while the publisher is still busy; see the protocol."""
        try:
            store = self.repository(fqrn).catalogs
            for name in reversed(catalogs[-_PREPARED:]):
                if store.objects.size(name) < self._apart:
                    store.plain(name)
        except (EngineError, ObjectStoreError, OSError) as error:
            _log.debug("%s: cannot read ahead: %s", fqrn, error)  # the commit will say what is wrong

    def check_lease(self, fqrn: str, lease_path: str) -> None:
        """Refuse a path below something that is not a directory; see the protocol."""
        if not parent_path(lease_path):
            return  # right below the root, or the root itself
        try:
            repository = self.repository(fqrn)
            self._check_lease(repository, repository.head().root_hash, lease_path)
        except PathViolation:
            raise
        except (EngineError, ObjectStoreError, OSError) as error:
            _log.warning("%s: cannot look at %s: %s", fqrn, lease_path, error)  # a commit will say what is wrong

    def _look_at_ancestors(self, repository: Repository, root: ContentHash, lease_path: str) -> None:
        if repository.objects.size(root) >= self._apart:
            return  # who asks for a lease is not to wait until that is read; a commit will say what is wrong
        with closing(CatalogTree(repository.catalogs, root)) as tree:
            check_ancestors(tree, lease_path, may_be_made=True)

    def commit(self, request: CommitRequest) -> CommitOutcome:
        """See :meth:`cvmfs_gw.engine.commit_api.CommitEngine.commit`."""
        repository = self.repository(request.fqrn)
        try:
            if self._is_long(repository, request):
                return self._commit_apart(repository, request)
            with repository.exclusive():
                return self._commit_or_undo(repository, request)
        except OSError as error:
            raise StorageError(f"{request.fqrn}: {error}") from error

    def _is_long(self, repository: Repository, request: CommitRequest) -> bool:
        try:
            root = repository.objects.size(request.new_root)
        except ObjectStoreError:
            return False  # the merge says what is wrong
        return max(root, request.uploads.catalog_bytes_added) >= self._apart

    def _commit_apart(self, repository: Repository, request: CommitRequest) -> CommitOutcome:
        try:
            return call_apart(
                _commit_alone, self._paths, dict(self._environment), self._durable, self._strict_objects, request
            )
        except ProcessEnded as error:
            # If it was published after all, the publisher is told so when it repeats the commit.
            with repository.exclusive():
                self._undo(repository)
            raise StorageError(f"{request.fqrn}: the commit was cut off: {error}") from error

    def _commit_or_undo(self, repository: Repository, request: CommitRequest) -> CommitOutcome:
        try:
            return self._commit(repository, request)
        except Exception as error:
            self._undo(repository)
            translated = _as_engine_error(request.fqrn, error)
            if translated is error:
                raise
            raise translated from error

    @staticmethod
    def _undo(repository: Repository) -> None:
        """Remove what a failed commit has stored, as far as possible."""
        try:
            repository.undo()
        except (EngineError, ObjectStoreError, OSError) as error:
            _log.warning("%s: cannot clean up after a failed commit: %s", repository.fqrn, error)

    def _commit(self, repository: Repository, request: CommitRequest) -> CommitOutcome:
        watch = Stopwatch()
        head = repository.head()
        now = self.clock()
        configuration = repository.configuration()
        tags = TagChanges(
            request.tag_name,
            request.tag_description,
            request.tag_channel,
            max(request.auto_tag_threshold, auto_tag_threshold(repository.fqrn, configuration, now)),
            request.delete_tags,
        )
        source, repeated = request.new_root, request.repeated
        with closing(Publication(repository, head, tags, now, source, repeated=repeated)) as publication:
            if (done := publication.done) is not None:
                return CommitOutcome(done.revision, done.root_hash, done.tag_name, done.missing_objects)
            wanted = MergeRequest(
                request.new_root,
                request.old_root,
                head.root_hash,
                request.lease_path,
                request.create_ancestors,
                Weights.configured(configuration),
            )
            rules = Rules(configuration, repository.objects, request.uploaded, strict_objects=self._strict_objects)
            merged = merge(
                repository.catalogs,
                wanted,
                head.root_hash.algorithm,
                int(now),
                lambda root: set_root_properties(root, configuration),
                rules,
                repository.journal,
                watch,
            )
            watch.enter("publish")
            manifest = publication.publish(merged.root, merged.revision, merged.ttl, rules.missing)
        watch.enter("record")
        self._record(repository, request, merged, now)
        phases = watch.stop()
        for collision in merged.collisions[:_MAX_LOGGED_COLLISIONS]:
            _log.warning("%s: changed on both sides, %s: %s", request.fqrn, collision.outcome, collision.path or "/")
        if len(merged.collisions) > _MAX_LOGGED_COLLISIONS:
            _log.warning("%s: %d entries changed on both sides in all", request.fqrn, len(merged.collisions))
        _log.info(
            "%s: revision %d published at %s in %.0f ms (%s)",
            request.fqrn,
            manifest.revision,
            request.lease_path or "/",
            sum(phases.values()) * 1000,
            describe(phases),
        )
        return CommitOutcome(manifest.revision, manifest.root_hash, publication.tag_name, rules.missing, phases)

    def _record(self, repository: Repository, request: CommitRequest, merged: Merged, now: float) -> None:
        """Record the publish in the statistics. An error is only logged, as the publish is done."""
        counts, uploads = merged.counts, request.uploads
        counts.chunks_added = uploads.objects_added - uploads.catalogs_added
        counts.chunks_duplicated = uploads.objects_duplicated
        counts.catalogs_added = len(merged.stored)
        counts.bytes_uploaded = uploads.bytes_added - uploads.catalog_bytes_added
        counts.catalog_bytes_uploaded = uploads.catalog_bytes_added
        started = request.started_ms / 1000 if request.started_ms else now
        try:
            record_publish(repository.statistics_path, request.fqrn, started, self.clock(), merged.revision, counts)
        except (sqlite3.Error, OSError) as error:
            _log.warning("%s: cannot store statistics: %s", request.fqrn, error)

    def recover(self, fqrn: str) -> None:
        """Clean up after a killed process. Only at start; raises :exc:`EngineError` or ``OSError``."""
        try:
            repository = self.repository(fqrn)
            with repository.exclusive():
                repository.recover()
        except ObjectStoreError as error:
            raise StorageError(f"{fqrn}: {error}") from error


def _commit_alone(
    paths: SystemPaths, environment: Mapping[str, str], durable: bool, strict_objects: bool, request: CommitRequest
) -> CommitOutcome:
    """The commit, in a process of its own."""
    engine = Engine(paths, environment, durable=durable, strict_objects=strict_objects, apart=sys.maxsize)
    return engine.commit(request)


def _as_engine_error(fqrn: str, error: Exception) -> Exception:
    """The exception that a commit raises for *error*; unexpected ones are returned as they are."""
    if isinstance(error, EngineError):
        return error
    if isinstance(error, (FormatError, sqlite3.Error, RecursionError)):
        return MergeError(f"{fqrn}: a catalog that cannot be read: {error}")
    if isinstance(error, (ObjectStoreError, OSError)):
        return StorageError(f"{fqrn}: {error}")
    return error


def auto_tag_threshold(fqrn: str, configuration: ServerConf, now: float) -> int:
    """The time, in seconds since the epoch, before which automatic tags are removed by the next commit; 0: none.

    Divergence: the reference leaves this to publishers; those up to 2.12 do it only on a local Stratum 0.
    """
    if not configuration.auto_tag_timespan:
        return 0
    try:
        return int(parse_time(configuration.auto_tag_timespan, now))
    except (ValueError, OverflowError) as error:
        _log.warning("%s: CVMFS_AUTO_TAG_TIMESPAN: %s; no tag goes", fqrn, error)
        return 0


def set_root_properties(root: Catalog, configuration: ServerConf) -> None:
    """Set the properties of the root catalog that ``server.conf`` determines."""
    if configuration.ttl is not None:
        root.set_property("TTL", configuration.ttl)
