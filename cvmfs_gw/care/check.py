"""Checking a repository: chain of trust, reflog, tags, every catalog, and every object that they refer to.

::

    manifest, whitelist, certificate ─▶ reflog ─▶ tags ─▶ catalogs, from the root down ─▶ objects in the storage

A catalog that several trees share is checked once. A check changes nothing and may run while others publish: it looks
at the head of the time it began. (A concurrent garbage collection may remove objects of older revisions under it.)

Source: ``cvmfs_swissknife check`` and ``scrub``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from cvmfs_gw.care.check_catalog import counter_faults, inspect_catalog
from cvmfs_gw.care.check_head import HeadCheck
from cvmfs_gw.care.check_objects import ObjectCheck, Progress
from cvmfs_gw.care.digests import DigestSet, record_of
from cvmfs_gw.care.faults import FaultKind, Faults
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.repository import Repository
from cvmfs_objstore.errors import DatabaseError, ObjectCorrupt, ObjectNotFound, ObjectTooLarge
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.formats.entry import NESTING_FLAGS, Counters, Entry
from cvmfs_objstore.formats.history import Tag
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.hashes import ContentHash

MAX_CATALOG: Final = 4 << 30
"""The largest catalog that is opened, in bytes before compression."""


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What is checked: the tree of the head or of *tag*, and with *every_tag* those of all tags.

    *objects*: check that all objects that entries refer to exist; *integrity*: also read everything that is stored.
    With *subtree*, the path of a nested catalog, only what is at or below it is checked.
    """

    tag: str = ""
    every_tag: bool = False
    objects: bool = True
    integrity: bool = False
    subtree: str = ""


@dataclass(slots=True)
class CheckReport:
    """The result of a check. ``unreferenced`` objects belong to no tree that was checked."""

    fqrn: str
    revision: int = 0
    faults: Faults = field(default_factory=Faults)
    catalogs: int = 0
    entries: int = 0
    objects: int = 0
    stored: int = 0
    unreferenced: int = 0
    bytes_read: int = 0

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.faults.errors


def check_repository(
    repository: Repository,
    options: CheckOptions,
    now: float,
    progress: Progress | None = None,
    on_catalog: Callable[[str, ContentHash], None] = lambda path, ref: None,
) -> CheckReport:
    """Check *repository* at the time *now*, in seconds since the epoch.

    Raises :exc:`EngineError` if the tag, or the nested catalog *subtree*, does not exist.

    *on_catalog* is called with path and name of each catalog before it is opened; *progress* follows the objects.
    """
    report = CheckReport(repository.fqrn)
    check = HeadCheck(repository, now, report.faults)
    head = check.manifest()
    objects = ObjectCheck(repository, report.faults, progress or Progress())
    objects.check_layout()
    if head is None:
        return report
    report.revision = head.revision
    known = check.reflog(head)
    tags = check.tags(head, known)
    referenced = DigestSet(sizes=True)
    tree = _TreeCheck(repository, report, referenced, on_catalog)
    for ref, size, revision in _roots(head, tags, options):
        if options.subtree:
            nested = _nested_at(repository, ref, options.subtree)
            tree.check_root(nested.hash, nested.size, path=options.subtree)
        else:
            tree.check_root(ref, size, revision)
    if options.objects:
        named = {head.certificate, head.history, head.meta_info, *(known or ())} if not options.subtree else set()
        for name in filter(None, named | tree.seen):
            referenced.add(name)
        objects.check(referenced, tree.seen, integrity=options.integrity, everything=not options.subtree)
        report.stored, report.unreferenced = objects.stored, objects.unreferenced
        report.objects, report.bytes_read = objects.referenced, objects.bytes_read
        if objects.missing:
            tree.place_missing(objects.missing)
    return report


def _roots(head: Manifest, tags: list[Tag], options: CheckOptions) -> list[tuple[ContentHash, int, int]]:
    if options.tag:
        named = [tag for tag in tags if tag.name == options.tag]
        if not named:
            raise EngineError(f"there is no tag {options.tag!r}")
        return [(tag.root_hash, tag.size, tag.revision) for tag in named]
    roots = [(head.root_hash, head.root_size, head.revision)]
    if options.every_tag:
        roots += [(tag.root_hash, tag.size, tag.revision) for tag in tags if tag.root_hash != head.root_hash]
    return roots


def _nested_at(repository: Repository, ref: ContentHash, path: str) -> NestedRef:
    """How the catalog at *path* is registered, in the tree below the root catalog *ref*."""
    while True:
        with repository.catalogs.load(ref) as catalog:
            nested = catalog.nested()
        if path in nested:
            return nested[path]
        above = next((nested[place] for place in nested if path.startswith(f"{place}/")), None)
        if above is None:
            raise EngineError(f"there is no nested catalog at {path!r}")
        ref = above.hash


class _TreeCheck:
    """Walks catalog trees."""

    def __init__(
        self,
        repository: Repository,
        report: CheckReport,
        referenced: DigestSet,
        on_catalog: Callable[[str, ContentHash], None],
    ) -> None:
        self._objects = repository.objects
        self._report, self._faults = report, report.faults
        self._referenced = referenced
        self._on_catalog = on_catalog
        self._totals: dict[tuple[ContentHash, str], tuple[Counters, Entry | None]] = {}
        self.seen: set[ContentHash] = set()

    def check_root(self, ref: ContentHash, size: int, revision: int | None = None, path: str = "") -> None:
        """Check the tree below the catalog at *path*, which has *size* bytes (0: unknown) and that *revision*."""
        self._check(ref, size, path, revision)

    def _check(
        self, ref: ContentHash, size: int, path: str, revision: int | None = None
    ) -> tuple[Counters, Entry | None]:
        """The counters of the tree below, and its root's row."""
        known = self._totals.get((ref, path))
        if known is not None:
            return known
        self._totals[ref, path] = Counters(), None  # a catalog cannot be below itself, but a hash may be said to be
        result = self._open(ref, size, path, revision)
        self._totals[ref, path] = result
        return result

    def _open(self, ref: ContentHash, size: int, path: str, revision: int | None) -> tuple[Counters, Entry | None]:
        place, nothing = path or "/", (Counters(), None)
        self._on_catalog(place, ref)
        self._report.catalogs += 1
        try:
            data = self._objects.get_plain(ref, max_size=MAX_CATALOG)
        except ObjectNotFound:
            self._faults.add(FaultKind.CATALOG_MISSING, place, str(ref))
            return nothing
        except (ObjectCorrupt, ObjectTooLarge, OSError) as error:
            self._faults.add(FaultKind.CATALOG_CORRUPT, place, str(error))
            return nothing
        self.seen.add(ref)
        if size and size != len(data):
            self._faults.add(FaultKind.CATALOG_SIZE, place, f"{len(data)} bytes, not {size}")
        try:
            catalog = Catalog.load(data)
        except DatabaseError as error:
            self._faults.add(FaultKind.CATALOG_UNREADABLE, place, f"{ref}: {error}")
            return nothing
        with catalog:
            try:
                return self._inspect(catalog, path, revision)
            except (sqlite3.Error, ValueError, OverflowError) as error:
                self._faults.add(FaultKind.CATALOG_DAMAGED, place, f"{ref}: {error}")
                return nothing

    def _inspect(self, catalog: Catalog, path: str, revision: int | None) -> tuple[Counters, Entry | None]:
        place, faults = path or "/", self._faults
        (state,) = catalog.connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            faults.add(FaultKind.CATALOG_DAMAGED, place, str(state)[:200])
        inspected = inspect_catalog(catalog, path, lambda kind, where, detail: faults.add(kind, where, detail))
        self._report.entries += inspected.own.entries
        self._referenced.add_references(catalog.connection)
        if revision is not None and catalog.property("revision") != str(revision):
            detail = f"{catalog.property('revision')}, not {revision}"
            faults.add(FaultKind.CATALOG_REVISION, place, detail)
        below = Counters()
        for mountpoint, nested in sorted(inspected.nested.items()):
            total, root = self._check(nested.hash, nested.size, mountpoint)
            below.add(total)
            row = inspected.transitions.get(mountpoint)
            if row is not None and root is not None and (detail := _difference(row, root)):
                faults.add(FaultKind.TRANSITION_DIFFERS, mountpoint, detail)
        for kind, detail in counter_faults(catalog, inspected, below):
            faults.add(kind, place, detail)
        total = replace(inspected.own)
        total.add(below)
        return total, inspected.root

    def place_missing(self, missing: set[bytes]) -> None:
        """Find the paths that the *missing* objects (records of names) belong to."""
        for ref, path in list(self._totals):
            if ref not in self.seen:
                continue
            with Catalog.load(self._objects.get_plain(ref, max_size=MAX_CATALOG)) as catalog:
                self._place_missing_of(catalog, path, missing)

    def _place_missing_of(self, catalog: Catalog, top: str, missing: set[bytes]) -> None:
        for path, entry in catalog.walk(top):
            if entry.is_external:
                continue
            names = [entry.chunk_hash(chunk) for chunk in catalog.chunks(path)] if entry.is_chunked else []
            if entry.content_hash is not None and not entry.is_directory:
                names.append(entry.content_hash)
            for name in names:
                if record_of(name) in missing:
                    self._faults.add(FaultKind.OBJECT_MISSING, path, str(name))


def _difference(outer: Entry, inner: Entry) -> str:
    """The fields in which the two rows of a nested catalog's directory differ but must not."""
    outer = outer._replace(flags=outer.flags & ~NESTING_FLAGS)
    inner = inner._replace(flags=inner.flags & ~NESTING_FLAGS)
    fields = [f"{n}: {a!r}, {b!r}" for n, a, b in zip(Entry._fields, outer, inner, strict=True) if a != b]
    return "; ".join(fields)
