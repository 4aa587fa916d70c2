"""Validation of a publisher's nested catalogs before they are adopted by reference.

A publisher's nested catalog may become part of the repository as it is. Its content is the publisher's business, as it
lies within the lease; but names must match their keys, and counters and link counts must be right, or every later
change based on them goes wrong. If the catalog was made from one that the repository already trusts, only the
difference is validated.

A catalog with invalid rows is an error. One with wrong counters or link counts is not adopted; instead, its content is
merged row by row into catalogs of our own.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Final

from cvmfs_gw.engine.newfiles import MANY, NewFiles
from cvmfs_gw.engine.node import Node
from cvmfs_gw.engine.rowdiff import CatalogDiff
from cvmfs_gw.engine.rowpaths import RowPaths
from cvmfs_gw.engine.rows import Row
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.formats.entry import FLAG_BIND_MOUNTPOINT, FLAG_MOUNTPOINT, NESTING_FLAGS, Counters, Entry, PathKey

_WRONG_LINKS: Final = (
    f"SELECT 1 FROM catalog d WHERE d.flags & {FLAG_BIND_MOUNTPOINT | 3} = 1"
    " AND d.hardlinks != 2 + (SELECT count(*) FROM catalog s"
    " WHERE s.parent_1 = d.md5path_1 AND s.parent_2 = d.md5path_2 AND s.flags & 1) LIMIT 1"
)
_WRONG_GROUPS: Final = (
    "SELECT 1 FROM catalog WHERE NOT flags & 1 AND hardlinks >> 32 GROUP BY hardlinks >> 32"
    " HAVING count(*) != max(hardlinks & 0xFFFFFFFF) OR count(*) != min(hardlinks & 0xFFFFFFFF)"
    " OR count(DISTINCT parent_1) > 1 LIMIT 1"
)
_MOUNTPOINTS: Final = f"SELECT count(*) FROM catalog WHERE flags & {FLAG_MOUNTPOINT}"


class Inspector:
    """Validates what *result* has and *base* has not; every entry and catalog is also checked by *rules*."""

    def __init__(self, base: CatalogTree, result: CatalogTree, rules: Rules | None, many: int = MANY) -> None:
        self._base, self._result, self._rules, self._many = base, result, rules, many

    def is_sound(self, path: str, old: NestedRef | None) -> bool:
        """Whether the result's nested catalog at *path*, made from *old* (None: from nothing), can be used as it is.

        Raises :exc:`~cvmfs_gw.engine.errors.MergeError` and its subclasses.
        """
        return self._total(path, old) is not None

    def _total(self, path: str, old: NestedRef | None) -> Counters | None:
        """The counters of the catalog at *path* and those below it; None if its stored counters are wrong."""
        node = self._result.node_of(path)
        before = self._base.node_of(path) if old is not None else None
        touched = _Touched()
        own = self._own(node, touched) if before is None else self._changed_own(before, node, touched)
        below = replace(before.below) if before is not None else Counters()
        own.nested = len(node.nested)
        for mountpoint, ref in node.nested.items():
            earlier = before.nested.get(mountpoint) if before is not None else None
            if earlier is not None and earlier.hash == ref.hash:
                continue
            total = self._total(mountpoint, earlier)
            if total is None or not _same_directory(node.catalog, self._result.node_of(mountpoint).catalog, mountpoint):
                return None
            below.add(total)
            if earlier is not None:
                below.add(self._base.node_of(mountpoint).accounted, -1)
        for mountpoint in before.nested if before is not None else ():
            if mountpoint not in node.nested:
                below.add(self._base.node_of(mountpoint).accounted, -1)
        if self._rules is not None:
            self._rules.check_catalog(path, own.entries)
        if own != node.own or below != node.below or touched.is_wrong(node):
            return None
        own.add(below)
        return own

    def _own(self, node: Node, touched: _Touched) -> Counters:
        with closing(CatalogDiff(None, node.catalog, many=self._many)) as diff:
            paths = RowPaths(node.catalog, node.mountpoint)
            for directories in (True, False):
                for row in diff.added(directories=directories):
                    self._take(node, paths, row, touched)
            if diff.has_files:
                self._take_files(diff.files, paths, touched)
        return node.catalog.count_rows()

    def _changed_own(self, before: Node, node: Node, touched: _Touched) -> Counters:
        own = replace(before.own)
        paths = RowPaths(node.catalog, node.mountpoint)
        files = self._base.files_of(before, self._result, node)
        with closing(CatalogDiff(before.catalog, node.catalog, files, self._many)) as diff:
            for row in diff.removed():
                touched.note(row.entry)
                own.count(row.entry, _chunk_count(before.catalog, row.key, row.entry), -1)
            for directories in (True, False):
                for row in diff.added(directories=directories):
                    self._take(node, paths, row, touched)
                    own.count(row.entry, _chunk_count(node.catalog, row.key, row.entry))
                for row, old in diff.modified(directories=directories):
                    self._take(node, paths, row, touched)
                    touched.note(old)
                    own.count(old, _chunk_count(before.catalog, row.key, old), -1)
                    own.count(row.entry, _chunk_count(node.catalog, row.key, row.entry))
            if diff.has_files:
                self._take_files(diff.files, paths, touched)
                own.add(diff.files.counters())
        return own

    def _take_files(self, files: NewFiles, paths: RowPaths, touched: _Touched) -> None:
        """Validate new files that are handled together."""
        paths.check(files.names())
        touched.note_files(files)
        if self._rules is not None:
            self._rules.check_files(files, paths)

    def _take(self, node: Node, paths: RowPaths, row: Row, touched: _Touched) -> None:
        """Validate a row that is new or changed."""
        path = paths.child(row.key, row.parent, row.entry.name)
        touched.note(row.entry)
        if self._rules is not None:
            chunks = node.catalog.chunks_of_key(row.key) if row.entry.is_chunked else ()
            self._rules.check_entry(path, row.entry, chunks)


class _Touched:
    """Which kinds of links the changed rows involve: only those need to be counted again."""

    def __init__(self) -> None:
        self._directories = self._groups = self._wrong_single = False

    def note(self, entry: Entry) -> None:
        """Note a changed row, in its old or new form."""
        if entry.is_directory:
            self._directories = True
        elif entry.hardlink_group:
            self._groups = True
        elif entry.hardlinks != 1:
            self._wrong_single = True

    def note_files(self, files: NewFiles) -> None:
        """Note new files, none of them in a hard link group."""
        self._wrong_single = self._wrong_single or files.have_links()

    def is_wrong(self, node: Node) -> bool:
        """Whether a link count or a mountpoint of the catalog is wrong."""

        def finds(query: str) -> bool:
            return node.catalog.connection.execute(query).fetchone() is not None

        if self._directories:
            mountpoints = node.catalog.connection.execute(_MOUNTPOINTS).fetchone()[0]
            if mountpoints != len(node.nested) or finds(_WRONG_LINKS):
                return True
        return self._wrong_single or (self._groups and finds(_WRONG_GROUPS))


def _chunk_count(catalog: Catalog, key: PathKey, entry: Entry) -> int:
    return len(catalog.chunks_of_key(key)) if entry.is_chunked else 0


def _same_directory(parent: Catalog, child: Catalog, mountpoint: str) -> bool:
    """Whether a mountpoint's two rows agree in everything but flags."""
    outer, inner = parent.get(mountpoint), child.get(mountpoint)
    if outer is None or inner is None or not outer.flags & FLAG_MOUNTPOINT:
        return False
    return outer._replace(flags=outer.flags & ~NESTING_FLAGS) == inner._replace(flags=inner.flags & ~NESTING_FLAGS)
