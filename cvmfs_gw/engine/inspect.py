"""Nested catalogs that a publisher made, looked through before they are passed on as they are.

A publisher's nested catalog may become the repository's by reference alone. What is in it is the publisher's business,
as it lies in its lease; but names must be where their keys say, and the counters and link counts must be right, or
every later change on top of them goes wrong. Where the catalog was made from one that the repository trusts, only the
difference is looked at.

A catalog with impossible rows is an error. One whose arithmetic is wrong is not passed on: its content is merged, row
by row, into catalogs of our own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cvmfs_gw.engine.rowdiff import CatalogDiff, RowPaths, all_rows
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.tree import CatalogTree, Node
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.formats.entry import FLAG_BIND_MOUNTPOINT, FLAG_MOUNTPOINT, NESTING_FLAGS, Counters, Entry

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
_WRONG_SINGLES: Final = "SELECT 1 FROM catalog WHERE NOT flags & 1 AND hardlinks >> 32 = 0 AND hardlinks != 1 LIMIT 1"


class Inspector:
    """Looks through what *result* has and *base* has not; *rules* is told of every entry and catalog."""

    def __init__(self, base: CatalogTree, result: CatalogTree, rules: Rules | None) -> None:
        self._base, self._result, self._rules = base, result, rules

    def is_sound(self, path: str, old: NestedRef | None) -> bool:
        """Whether the result's nested catalog at *path*, made from *old* (None: from nothing), can be used as it is.

        Raises :exc:`~cvmfs_gw.engine.errors.MergeError` and its kin.
        """
        return self._total(path, old) is not None

    def _total(self, path: str, old: NestedRef | None) -> Counters | None:
        """What the catalog at *path* and those below add up to; None if it says something else itself."""
        node = self._result.node_of(path)
        before = self._base.node_of(path) if old is not None else None
        own = self._own(node) if before is None else self._changed_own(before, node)
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
        if own != node.own or below != node.below or _has_wrong_links(node.catalog):
            return None
        own.add(below)
        return own

    def _own(self, node: Node) -> Counters:
        paths = RowPaths(node.catalog, node.mountpoint)
        for directories in (True, False):
            for row in all_rows(node.catalog, directories=directories):
                self._check(node, paths.child(row.key, row.parent, row.entry.name), row.key, row.entry)
        return node.catalog.count_rows()

    def _changed_own(self, before: Node, node: Node) -> Counters:
        own = replace(before.own)
        paths = RowPaths(node.catalog, node.mountpoint)
        files = self._base.files_of(before, self._result, node)
        diff = CatalogDiff(before.catalog, node.catalog, files)

        def chunk_count(catalog: Catalog, key: tuple[int, int], entry: Entry) -> int:
            return len(catalog.chunks_of_key(key)) if entry.is_chunked else 0

        try:
            for row in diff.removed():
                own.count(row.entry, chunk_count(before.catalog, row.key, row.entry), -1)
            for directories in (True, False):
                for row in diff.added(directories=directories):
                    self._check(node, paths.child(row.key, row.parent, row.entry.name), row.key, row.entry)
                    own.count(row.entry, chunk_count(node.catalog, row.key, row.entry))
                for row, old in diff.modified(directories=directories):
                    self._check(node, paths.child(row.key, row.parent, row.entry.name), row.key, row.entry)
                    own.count(old, chunk_count(before.catalog, row.key, old), -1)
                    own.count(row.entry, chunk_count(node.catalog, row.key, row.entry))
        finally:
            diff.close()
        return own

    def _check(self, node: Node, path: str, key: tuple[int, int], entry: Entry) -> None:
        if self._rules is not None:
            chunks = node.catalog.chunks_of_key(key) if entry.is_chunked else ()
            self._rules.check_entry(path, entry, chunks)


def _has_wrong_links(catalog: Catalog) -> bool:
    queries = (_WRONG_LINKS, _WRONG_GROUPS, _WRONG_SINGLES)
    return any(catalog.connection.execute(query).fetchone() is not None for query in queries)


def _same_directory(parent: Catalog, child: Catalog, mountpoint: str) -> bool:
    """Whether a mountpoint's two rows agree in all but flags."""
    outer, inner = parent.get(mountpoint), child.get(mountpoint)
    if outer is None or inner is None or not outer.flags & FLAG_MOUNTPOINT:
        return False
    return outer._replace(flags=outer.flags & ~NESTING_FLAGS) == inner._replace(flags=inner.flags & ~NESTING_FLAGS)
