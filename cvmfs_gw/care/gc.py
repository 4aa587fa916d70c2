"""The garbage collector: mark what must stay, then sweep the storage, while publishers publish.

::

    leases ─▶ head, tags, reflog ─▶ mark ─▶ forget (reflog, manifest) ─▶ sweep, batch by batch ─▶ statistics
              no lock: takes long           locks once                   locks for each batch

What is kept:

* the head, and its predecessors according to the :class:`Policy`;
* all tagged revisions, including the undo tags;
* what a copy in progress needs (:mod:`cvmfs_gw.care.pins`);
* what was written or put since the start of the oldest open lease, or of the collection;
* the revisions since then, and those of the hour before: a publisher may have mounted one of them, and its commit is
  based on it;
* certificates, tag databases and meta info objects that are not older than the oldest kept revision.

A condemned revision is removed from the reflog before its objects are, so that the reflog never refers to missing
objects. Before each batch the head is read again: if somebody has published, the new objects are marked first. A
collection that was interrupted leaves unreferenced objects; the next one finds them, as it sweeps the whole storage.

If a catalog that must be kept cannot be read, nothing is removed, as the objects it refers to are unknown.

Source: ``cvmfs_server gc``. Divergence: the reference deletes only what condemned revisions of the reflog refer to, so
that uploads without a commit stay forever, and it requires the gateway to be stopped. It skips catalogs that it cannot
read, and so may delete the content of kept ones. It leaves the old reflog's hash in the manifest.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import Final

from cvmfs_gw.care.digests import DigestSet
from cvmfs_gw.care.lastgc import record_collection
from cvmfs_gw.care.mark import Marker
from cvmfs_gw.care.pins import read_pins
from cvmfs_gw.care.sweep import Hand, Order, Removed, hands
from cvmfs_gw.care.work import oldest_work
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
"""By default, the revisions of the last three days are kept; in seconds."""
MOUNT_LAG_S: Final = 3_600
"""How far a publisher's mount may be behind when it gets its lease, in seconds."""
SLACK_S: Final = 2 * YOUNG_S
"""A safety margin for times, in seconds: an object's time is refreshed only at intervals, and clocks drift."""
HOLD_S: Final = 0.05
"""How long a batch keeps commits waiting, in seconds."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which predecessors of the head are kept.

    The last ``revisions`` before it or, if that is None, those that were the head at ``since`` (seconds since the
    epoch) or later.
    """

    revisions: int | None = None
    since: float | None = None

    @classmethod
    def default(cls, now: float) -> Policy:
        """The reference's default: the revisions of the last three days."""
        return cls(since=now - DEFAULT_AGE_S)


@dataclass(slots=True)
class GcReport:
    """The result of a collection; of a dry run, what it would do."""

    fqrn: str
    dry_run: bool
    kept_revisions: int = 0
    kept_catalogs: int = 0
    condemned_revisions: int = 0
    condemned_catalogs: int = 0
    condemned_objects: int = 0
    condemned_bytes: int | None = None
    """Their size as stored; None where nobody looked, as it takes longer than to remove them by a fifth."""
    batches: int = 0
    longest_hold_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """What the time was spent on: ``mark``, ``forget``, ``sweep``."""

    def describe(self) -> str:
        """A summary for people."""
        size = "" if self.condemned_bytes is None else f", {self.condemned_bytes} bytes"
        return (
            f"{self.fqrn}: kept {self.kept_revisions} revisions with {self.kept_catalogs} catalogs;"
            f" {'would be removed' if self.dry_run else 'removed'}: {self.condemned_revisions} revisions,"
            f" {self.condemned_catalogs} catalogs, {self.condemned_objects} objects{size}\n"
        )


OnDelete = Callable[[ContentHash], None]
"""Told the name of each object that goes, or would."""


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
    epoch; determine it before the call. Uploads of other processes are found here. May be called from any thread, while
    others publish. May safely be ended early by *stop*.

    Raises :exc:`EngineError`: :exc:`ConfigurationError` if it may not be collected, :exc:`Conflict` if somebody else
    collects, ``cvmfs_server`` publishes, or it was stopped; :exc:`MissingObject` or :exc:`MergeError` for a catalog
    that must stay.
    """
    now = clock()
    with ExitStack() as stack:
        if not dry_run and not stack.enter_context(collecting(repository.paths, repository.fqrn)):
            raise Conflict(f"{repository.fqrn}: another collector, or a check of cvmfs_server, is at work")
        began = [oldest_lease, oldest_work(repository.paths, repository.fqrn)]
        oldest = min((moment for moment in began if moment is not None), default=None)
        collection = stack.enter_context(closing(Collection(repository, policy, now, oldest, dry_run, on_delete, stop)))
        success = False
        try:
            collection.run()
            success = True
        finally:
            if not dry_run:
                collection.record(now, clock(), success=success)
    return collection.report


class Collection:
    """One collection. Use :func:`collect`. *helpers* is the number of processes that sweep; None: chosen here."""

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
        self._crew, self._folders = self._resources.enter_context(hands(repository.storage, helpers))
        self._work: dict[Hand, list[int]] = {}
        """The folders that each has got last."""
        self._news: dict[Hand, DigestSet] = {}
        """What has to stay since each got its folders, and has not been told yet."""
        self._stop = stop
        self._now = now
        sizes = dry_run or repository.configuration().flag("CVMFS_EXTENDED_GC_STATS")
        self.report = GcReport(repository.fqrn, dry_run, condemned_bytes=0 if sizes else None)
        began = now if oldest_lease is None else min(now, oldest_lease)
        # Files bear the time of the storage's clock. Where that is behind ours, they look older than they are.
        behind = max(now - repository.storage.now(), 0.0)
        before = began - behind - SLACK_S
        self._order = Order(before, HOLD_S, dry_run, sizes, on_delete is not None)
        self._recent = began - SLACK_S - MOUNT_LAG_S
        """Revisions that are younger stay."""
        self._marker = self._resources.enter_context(
            closing(Marker(repository.objects, repository.temporary, self._check_stop))
        )
        self._kept_roots: set[ContentHash] = set()
        self._oldest_kept = now
        self._seen_manifest = b""
        self._seen_pins: set[str] = set()

    def run(self) -> None:
        """All of it."""
        for step in (self.mark, self.forget, self.sweep):
            started = time.monotonic()
            step()
            self.report.seconds[step.__name__] = time.monotonic() - started

    def close(self) -> None:
        """Free memory and end the helpers."""
        self._resources.close()

    def _check_stop(self) -> None:
        if self._stop():
            raise Conflict(f"{self._repository.fqrn}: the collection was stopped before its end")

    # -- mark

    def mark(self) -> None:
        """Find everything that is kept. Takes long, but holds no lock."""
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
        """Keep the head and its predecessors according to the policy.

        Source: with a time limit, the first older revision is kept as well: it was the head at that time.
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
        """Keep what is needed by copies that have begun since the last call."""
        for name, refs in self._new_pins().items():
            self._marker.add(ref for ref in refs if ref.suffix is not Suffix.CATALOG)
            for ref in refs:
                if ref.suffix is Suffix.CATALOG:
                    self._keep_what_is_there(ref)
            self._seen_pins.add(name)

    def _catch_up(self) -> bool:
        """Mark what head and tags refer to now; returns whether anything had changed since the last call."""
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
        """As above, unless a copy has begun meanwhile; a copy that begins later does not need what is dropped."""
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
        """Remove what is neither marked nor young, some folders at a time and in small batches."""
        # all are asked before the first is listened to, so that they work side by side
        comparing = deque(hand for hand in self._crew if self._give(hand))
        removing: list[Hand] = []
        while comparing or removing:
            self._check_stop()
            while comparing and (not removing or comparing[0].ready()):
                hand = comparing.popleft()
                if hand.condemned():
                    removing.append(hand)
                elif self._give(hand):
                    comparing.append(hand)
            if removing:
                done = self._sweep_batch(removing)
                removing = [hand for hand in removing if hand not in done]
                comparing.extend(hand for hand in done if self._give(hand))

    def _give(self, hand: Hand) -> bool:
        """Let a sweeper compare some more folders, if any are left."""
        marked, folders = self._marker.marked, self._folders.take(self._crew.index(hand))
        self._work[hand] = folders
        self._news.pop(hand, None)
        if folders:
            hand.begin({number: marked.packed(number) for number in folders})
        return bool(folders)

    def _sweep_batch(self, busy: Sequence[Hand]) -> list[Hand]:
        """Let these sweepers remove some of the condemned objects; returns those that have none left."""
        report = self.report
        with ExitStack() as stack:
            lock = None if report.dry_run else stack.enter_context(self._repository.exclusive())
            started = time.monotonic()
            if not report.dry_run:
                self._hear_news()
            for hand in busy:
                hand.remove(self._order_for(hand), lock)
            removed = {hand: hand.removed() for hand in busy}
            held = time.monotonic() - started
        for found in removed.values():
            self._count(found)
        report.batches += 1
        report.longest_hold_s = max(report.longest_hold_s, held)
        return [hand for hand, found in removed.items() if not found.left]

    def _hear_news(self) -> None:
        """Mark what head and tags refer to now, for all sweepers: there may be a new head before each batch."""
        marker = self._marker
        whole, marker.marked = marker.marked, DigestSet()
        try:
            changed = self._catch_up()
        finally:
            new, marker.marked = marker.marked, whole
            whole.update(new)
        if changed:
            for hand in self._crew:
                self._news.setdefault(hand, DigestSet()).update(new)

    def _order_for(self, hand: Hand) -> Order:
        news = self._news.pop(hand, None)
        if news is None:
            return self._order
        kept = {number: packed for number in self._work[hand] if (packed := news.packed(number))}
        return replace(self._order, kept=kept)

    def _count(self, removed: Removed) -> None:
        report = self.report
        report.condemned_objects += removed.objects
        if report.condemned_bytes is not None:
            report.condemned_bytes += removed.size
        report.condemned_catalogs += len(removed.catalogs)
        for name in removed.catalogs:
            self._repository.catalogs.forget(ContentHash.parse(name))
        if self._on_delete is not None:
            for name in removed.listed:
                self._on_delete(ContentHash.parse(name))

    # -- statistics

    def record(self, started: float, finished: float, *, success: bool) -> None:
        """Record the end, in the statistics and for automatic collections; an error is only logged."""
        report, repository = self.report, self._repository
        counts = GcCounts(
            report.kept_catalogs, report.condemned_catalogs, report.condemned_objects, report.condemned_bytes or 0
        )
        try:
            record_gc(repository.statistics_path, repository.fqrn, started, finished, counts, success=success)
            if success:
                record_collection(repository, finished)
        except (sqlite3.Error, OSError) as error:
            _log.warning("%s: cannot record the garbage collection: %s", repository.fqrn, error)
