"""The garbage collector: mark what must stay, then sweep the storage, while publishers publish.

::

    leases ─▶ head, tags, reflog ─▶ mark ─▶ forget (reflog, manifest) ─▶ sweep, batch by batch ─▶ statistics
              no lock: takes long           one turn of the lock         a turn of the lock each

What stays:

* the head, and its predecessors as the :class:`Policy` says;
* all tagged revisions, the undo tags included;
* what a copy that is being made needs (:mod:`cvmfs_gw.care.pins`);
* what was written or put since the oldest open lease began, or since the collection did;
* the revisions since then, too, and those of the hour before: a publisher may have mounted one of them, and its commit
  is a change of that one;
* certificates, tag databases and meta info objects that are no older than the oldest kept revision.

A condemned revision leaves the reflog before its objects go, so that the reflog never names what is not there. Before
each batch the head is looked at again: if somebody has published, what is new in it is marked first. A collection that
was interrupted leaves objects that nobody names; the next one finds them, as it sweeps the storage and not a list.

If a catalog that must stay cannot be read, nothing is removed: what it refers to is not known.

Source: ``cvmfs_server gc``. Divergence: the reference deletes only what condemned revisions of the reflog refer to, so
that what never came to a commit stays for ever, and it wants the gateway stopped. It passes over catalogs that it
cannot read, and so may delete the content of kept ones. It leaves the old reflog's hash in the manifest.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Final

from cvmfs_gw.care.digests import FOLDERS
from cvmfs_gw.care.lastgc import record_collection
from cvmfs_gw.care.mark import Marker
from cvmfs_gw.care.pins import read_pins
from cvmfs_gw.care.sweep import Hand, Order, Removed, hands
from cvmfs_gw.engine.errors import ConfigurationError, Conflict, MissingObject
from cvmfs_gw.engine.locking import busy_with, collecting
from cvmfs_gw.engine.publish import Publication, TagChanges, load_history
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.statistics import GcCounts, record_gc
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.formats.reflog import Reflog
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.storage import YOUNG_S

_log = logging.getLogger(__name__)

DEFAULT_AGE_S: Final = 3 * 86_400
"""What is kept where nothing is said: the revisions of the last three days, in seconds."""
MOUNT_LAG_S: Final = 3_600
"""How far a publisher's mount may be behind when it gets its lease, in seconds."""
SLACK_S: Final = 2 * YOUNG_S
"""How much younger than the limit an object must be to stay, in seconds: clocks, and the resolution of times."""
HOLD_S: Final = 0.05
"""How long a batch keeps commits waiting, in seconds."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which predecessors of the head are kept.

    The last ``revisions`` before it, or (where that is None) those that were the head at the time ``since`` (seconds
    since the epoch) or later.
    """

    revisions: int | None = None
    since: float | None = None

    @classmethod
    def default(cls, now: float) -> Policy:
        """The reference's: the revisions of the last three days."""
        return cls(since=now - DEFAULT_AGE_S)


@dataclass(slots=True)
class GcReport:
    """What a collection has done or, as a dry run, would do. Sizes in bytes as stored."""

    fqrn: str
    dry_run: bool
    kept_revisions: int = 0
    kept_catalogs: int = 0
    condemned_revisions: int = 0
    condemned_catalogs: int = 0
    condemned_objects: int = 0
    condemned_bytes: int = 0
    batches: int = 0
    longest_hold_s: float = 0.0


OnDelete = Callable[[ContentHash, int], None]
"""Told the name and stored size of each object that goes, or would."""


def collect(
    repository: Repository,
    policy: Policy,
    *,
    oldest_lease: float | None = None,
    dry_run: bool = False,
    on_delete: OnDelete | None = None,
    stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.time,
) -> GcReport:
    """Collect the garbage of *repository*. *oldest_lease* is when the oldest open lease began, in seconds since the
    epoch; find that out before calling. May be called from any thread, while others publish. It ends early, which does
    no harm, when *stop* says so.

    Raises :exc:`EngineError`: :exc:`ConfigurationError` if it may not be collected, :exc:`Conflict` if somebody else
    collects, ``cvmfs_server`` publishes, or it was stopped; :exc:`MissingObject` or :exc:`MergeError` for a catalog
    that must stay.
    """
    now = clock()
    with ExitStack() as stack:
        if not dry_run and not stack.enter_context(collecting(repository.paths, repository.fqrn)):
            raise Conflict(f"{repository.fqrn}: another collector, or a check of cvmfs_server, is at work")
        collection = stack.enter_context(
            closing(Collection(repository, policy, now, oldest_lease, dry_run, on_delete, stop))
        )
        success = False
        try:
            collection.mark()
            collection.forget()
            collection.sweep()
            success = True
        finally:
            if not dry_run:
                collection.record(now, clock(), success=success)
    return collection.report


class Collection:
    """One collection. Use :func:`collect`. *helpers* is the number of processes that sweep; None: as many as help."""

    def __init__(
        self,
        repository: Repository,
        policy: Policy,
        now: float,
        oldest_lease: float | None,
        dry_run: bool,
        on_delete: OnDelete | None,
        stop: Callable[[], bool] = lambda: False,
        helpers: int | None = None,
    ) -> None:
        self._repository, self._policy, self._on_delete = repository, policy, on_delete
        self._resources = ExitStack()
        self._crew = self._resources.enter_context(hands(repository.storage, helpers))
        self._stop = stop
        self._now = now
        self.report = GcReport(repository.fqrn, dry_run)
        began = now if oldest_lease is None else min(now, oldest_lease)
        self._before = began - SLACK_S
        """Objects that are older may go."""
        self._recent = self._before - MOUNT_LAG_S
        """Revisions that are younger stay."""
        self._marker = self._resources.enter_context(
            closing(Marker(repository.objects, repository.temporary, self._check_stop))
        )
        self._kept_roots: set[ContentHash] = set()
        self._oldest_kept = now
        self._seen_manifest = b""
        self._seen_pins: set[str] = set()

    def close(self) -> None:
        """Free what was read, and let helpers go."""
        self._resources.close()

    def _check_stop(self) -> None:
        if self._stop():
            raise Conflict(f"{self._repository.fqrn}: the collection was stopped before its end")

    # -- mark

    def mark(self) -> None:
        """Find everything that stays. Takes long, and nobody waits for it."""
        repository = self._repository
        with repository.exclusive(), ExitStack() as stack:
            head = repository.head()
            reflog = stack.enter_context(repository.reflog(head))
            moments = {ref: moment for ref, moment in reflog.refs() if ref.suffix is Suffix.CATALOG}
        if not (head.garbage_collectable or repository.configuration().garbage_collection):
            raise ConfigurationError(f"{repository.fqrn}: garbage collection is not enabled (server.conf)")
        if what := busy_with(repository.paths, repository.fqrn):
            raise Conflict(f"{repository.fqrn}: {what}")
        self._mark_history(head, moments)
        self._catch_up()
        for ref, moment in sorted(moments.items(), key=lambda item: item[1], reverse=True):
            if moment < self._recent:
                break
            self._keep_what_is_there(ref)
        self._mark_pinned()

    def _mark_history(self, head: Manifest, moments: dict[ContentHash, int]) -> None:
        """Keep the head and its predecessors as the policy says.

        Source: of a time limit, the first revision that is older stays as well: it was the head then.
        """
        policy, depth = self._policy, 0
        ref: ContentHash | None = head.root_hash
        while ref is not None:
            facts = self._marker.mark(ref)
            self._kept_roots.add(ref)
            moment = moments.get(ref, facts.last_modified)
            self._oldest_kept = min(self._oldest_kept, moment)
            if policy.revisions is not None and depth >= policy.revisions:
                break
            if policy.revisions is None and moment < (self._now if policy.since is None else policy.since):
                break
            ref, depth = facts.previous, depth + 1
            if ref in self._kept_roots or (ref is not None and not self._repository.objects.has(ref)):
                break  # collected earlier

    def _keep_if_there(self, ref: ContentHash) -> None:
        if ref in self._kept_roots:
            return
        if not self._repository.objects.has(ref):
            _log.warning("%s: not in the storage: root catalog %s", self._repository.fqrn, ref)
            return
        self._marker.mark(ref)
        self._kept_roots.add(ref)

    def _keep_what_is_there(self, ref: ContentHash) -> None:
        try:
            self._keep_if_there(ref)
        except MissingObject as error:
            _log.warning("%s: a former revision is not complete: %s", self._repository.fqrn, error)

    def _new_pins(self) -> dict[str, list[ContentHash]]:
        pins = read_pins(self._repository.paths, self._repository.fqrn)
        return {name: refs for name, refs in pins.items() if name not in self._seen_pins}

    def _mark_pinned(self) -> None:
        """Keep what copies need that have begun since the last time."""
        for name, refs in self._new_pins().items():
            self._marker.add(ref for ref in refs if ref.suffix is not Suffix.CATALOG)
            for ref in refs:
                if ref.suffix is Suffix.CATALOG:
                    self._keep_what_is_there(ref)
            self._seen_pins.add(name)

    def _catch_up(self) -> bool:
        """Mark what head and tags name now; returns whether anything had changed since the last time."""
        repository = self._repository
        signed = repository.signed_head()
        manifest = signed.letter.serialize()
        if manifest == self._seen_manifest:
            return False
        head = signed.manifest
        with load_history(repository, head) as history:
            tags = list(history.tags())
        try:
            self._marker.mark(head.root_hash)
        except MissingObject as error:
            raise MissingObject(f"{repository.fqrn}: the head is not complete: {error}") from error
        self._kept_roots.add(head.root_hash)
        for tag in tags:
            try:
                self._keep_if_there(tag.root_hash)
            except MissingObject as error:
                raise MissingObject(f"{repository.fqrn}: tag {tag.name} is not complete: {error}") from error
        self._marker.add((head.certificate, head.history, head.meta_info, head.micro_catalog))
        self._seen_manifest = manifest
        return True

    # -- forget

    def forget(self) -> None:
        """Drop condemned revisions from the reflog, in one publish of the same root."""
        while not self._forget():
            self._mark_pinned()  # nobody waits for that

    def _forget(self) -> bool:
        """The same, unless a copy has begun meanwhile; one that begins afterwards needs nothing of what is dropped."""
        repository, report = self._repository, self.report
        with ExitStack() as stack:
            stack.enter_context(repository.exclusive())
            if self._new_pins():
                return False
            self._catch_up()
            head = repository.head()
            reflog = stack.enter_context(repository.reflog(head))
            doomed = set(self._doomed(reflog))
            for ref, _ in reflog.refs():
                if ref.suffix is not Suffix.CATALOG and ref not in doomed:
                    self._marker.add((ref,))
            report.kept_revisions, report.kept_catalogs = len(self._kept_roots), len(self._marker.catalogs)
            report.condemned_revisions = sum(ref.suffix is Suffix.CATALOG for ref in doomed)
            if not doomed or report.dry_run:
                return True

            def drop(present: Reflog) -> None:
                for ref in doomed:
                    present.remove(ref)

            publication = stack.enter_context(closing(Publication(repository, head, TagChanges(), self._now)))
            publication.amend(edit_reflog=drop)
            self._catch_up()
        return True

    def _doomed(self, reflog: Reflog) -> Iterator[ContentHash]:
        for ref, moment in reflog.refs():
            if ref.suffix is Suffix.CATALOG:
                if ref not in self._kept_roots and moment < self._recent:
                    yield ref
            elif moment < min(self._oldest_kept, self._recent) and ref not in self._marker.marked:
                yield ref

    # -- sweep

    def sweep(self) -> None:
        """Remove what is not marked and old enough, folder by folder and in small batches."""
        marked, numbers = self._marker.marked, iter(range(FOLDERS))
        while busy := dict(zip(self._crew, numbers, strict=False)):
            self._check_stop()
            for hand, number in busy.items():
                hand.begin(number, marked.packed(number))
            # all are asked before the first is listened to, so that they work side by side
            found = {hand: hand.condemned() for hand in busy}
            left = {hand: number for hand, number in busy.items() if found[hand]}
            while left:
                self._check_stop()
                left = self._sweep_batch(left)

    def _sweep_batch(self, busy: dict[Hand, int]) -> dict[Hand, int]:
        """Let everybody remove some of what is condemned in a folder; returns those that have something left."""
        report, left = self.report, {}
        order = Order(self._before, HOLD_S, report.dry_run, self._on_delete is not None)
        with ExitStack() as stack:
            lock = None if report.dry_run else stack.enter_context(self._repository.exclusive())
            started = time.monotonic()
            changed = not report.dry_run and self._catch_up()
            for hand, number in busy.items():
                kept = self._marker.marked.packed(number) if changed else b""
                hand.remove(replace(order, kept=kept), lock)
            done = {hand: hand.removed() for hand in busy}
            held = time.monotonic() - started
        for hand, number in busy.items():
            self._count(number, done[hand])
            if done[hand].left:
                left[hand] = number
        report.batches += 1
        report.longest_hold_s = max(report.longest_hold_s, held)
        return left

    def _count(self, number: int, removed: Removed) -> None:
        report = self.report
        report.condemned_objects += removed.objects
        report.condemned_bytes += removed.size
        report.condemned_catalogs += len(removed.catalogs)
        for name in removed.catalogs:
            self._repository.catalogs.forget(ContentHash.parse(f"{number:02x}{name}"))
        if self._on_delete is not None:
            for name, size in removed.listed:
                self._on_delete(ContentHash.parse(f"{number:02x}{name}"), size)

    # -- statistics

    def record(self, started: float, finished: float, *, success: bool) -> None:
        """Say that it ended, in the statistics and for automatic ones, which must not fail it."""
        report, repository = self.report, self._repository
        counts = GcCounts(
            report.kept_catalogs, report.condemned_catalogs, report.condemned_objects, report.condemned_bytes
        )
        try:
            record_gc(repository.statistics_path, repository.fqrn, started, finished, counts, success=success)
            if success:
                record_collection(repository, finished)
        except (sqlite3.Error, OSError) as error:
            _log.warning("%s: cannot say that garbage was collected: %s", repository.fqrn, error)
