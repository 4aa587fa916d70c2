"""The difference of two catalog trees as a list of changes.

*base* is the tree that a publisher saw, *result* the tree that it made; the changes are those at or below *scope*, the
lease path. They will be applied to the tree *present*, which only decides how much can be passed on by reference: a
nested catalog that is the same in present and base is replaced or dropped as a whole, without being opened.

How it works: a path's key is the MD5 of its full path, so a row has the same key in any catalog. First, the nested
catalogs are compared by their registrations, from the root down: equal ones are skipped, differing ones opened. Then
the opened catalogs are compared as sets of rows in SQL. Where a nested catalog was created or dissolved, rows moved
between catalogs; a key that vanished from one and appeared in another is compared as a single entry.

The result is not trusted: the name of every changed row must hash to its key, and its parents must be directories of
the same catalog.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Final

from cvmfs_gw.engine.changes import Change, Drop, Graft, Nest, Put, PutFiles, Remove, Unnest
from cvmfs_gw.engine.inspect import Inspector
from cvmfs_gw.engine.newfiles import MANY, NewFiles
from cvmfs_gw.engine.node import Node
from cvmfs_gw.engine.rowdiff import CatalogDiff, linked_rows
from cvmfs_gw.engine.rowpaths import RowPaths
from cvmfs_gw.engine.rows import Row
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.transaction import same_content
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.formats.entry import (
    FLAG_BIND_MOUNTPOINT,
    FLAG_CHUNKED,
    Chunks,
    Entry,
    PathKey,
    is_below,
    parent_path,
    path_key,
)

_ROOT: Final = path_key("")


class TreeDiff:
    """The changes from *base* to *result* at or below *scope*. Use once: iterate over :meth:`changes`."""

    def __init__(
        self,
        base: CatalogTree,
        result: CatalogTree,
        present: CatalogTree,
        scope: str,
        rules: Rules | None = None,
        many: int = MANY,
    ) -> None:
        """*many* is the number of new files in a catalog from which they are handled together."""
        self._base, self._result, self._present, self._scope = base, result, present, scope
        self._rules = rules
        self._many = many
        self._inspector = Inspector(base, result, rules, many)
        self._pairs: list[tuple[Node, Node]] = []
        self._only_base: list[Node] = []
        self._only_result: list[Node] = []
        self._drops: list[Drop] = []
        self._grafts: list[Graft] = []
        self._nests: list[Nest] = []
        self._unnests: list[Unnest] = []
        self._swapped: set[str] = set()
        self._diffs: list[tuple[Node | None, Node, CatalogDiff]] = []
        self._removed: dict[PathKey, tuple[RowPaths, Row]] = {}
        self._moved: dict[PathKey, tuple[Catalog, Entry]] = {}
        self._bind_changes: set[str] = set()
        self._put_links: dict[tuple[PathKey, int], set[PathKey]] = {}

    def changes(self) -> Generator[Change, None, None]:
        """The changes, in the order defined by :mod:`cvmfs_gw.engine.changes`. Raises :exc:`MergeError`.

        If it is not exhausted, close it before the trees.
        """
        self._compare_nesting()
        try:
            for base, result in self._pairs:
                read = self._base.files_of(base, self._result, result)
                self._diffs.append((base, result, CatalogDiff(base.catalog, result.catalog, read, self._many)))
                self._compare_binds(base.catalog, result.catalog)
            for result in self._only_result:
                self._diffs.append((None, result, CatalogDiff(None, result.catalog, many=self._many)))
            self._compare_keys()
            yield from self._drops
            yield from self._removals()
            together = list(self._choose_files())
            yield from sorted(self._puts(directories=True), key=lambda put: put.path)
            yield from self._puts(directories=False)
            for files, paths, directories in together:
                yield from self._put_files(files, paths, directories)
        finally:
            for _, _, diff in self._diffs:
                diff.close()
        yield from self._grafts
        yield from self._unnests
        yield from self._nests

    # -- which catalogs differ

    def _compare_nesting(self) -> None:
        seen: set[str] = set()
        queue: list[tuple[int, str]] = []

        def push(node: Node) -> None:
            for path in node.nested:
                if path not in seen and (is_below(path, self._scope) or is_below(self._scope, path)):
                    seen.add(path)
                    heapq.heappush(queue, (path.count("/"), path))

        self._pairs.append((self._base.root, self._result.root))
        push(self._base.root)
        push(self._result.root)
        while queue:
            path = heapq.heappop(queue)[1]
            for node in self._compare_nested(path, _registered(self._base, path), _registered(self._result, path)):
                push(node)

    def _compare_nested(self, path: str, old: NestedRef | None, new: NestedRef | None) -> tuple[Node, ...]:
        """Decide how the nested catalog at *path* is handled; returns the catalogs opened for it."""
        if old == new or (old and new and old.hash == new.hash):
            return ()
        in_scope = is_below(path, self._scope)
        untouched = in_scope and old is not None and self._is_present(path, old)
        if old and new:
            if untouched and self._inspector.is_sound(path, old):
                self._grafts.append(Graft(path, old, new))
                self._swapped.add(path)
                return ()
            pair = self._base.node_of(path), self._result.node_of(path)
            self._pairs.append(pair)
            return pair
        if old:
            remains = _is_directory(self._result.get(path))
            if untouched and not remains:
                self._drops.append(Drop(path, old))
                return ()
            node = self._base.node_of(path)
            self._only_base.append(node)
            if in_scope and remains:
                self._unnests.append(Unnest(path))
            return (node,)
        assert new is not None
        fresh = in_scope and not _is_directory(self._base.get(path)) and not _is_directory(self._present.get(path))
        if fresh and self._inspector.is_sound(path, None):
            self._grafts.append(Graft(path, None, new))
            return ()
        node = self._result.node_of(path)
        self._only_result.append(node)
        if in_scope:
            self._nests.append(Nest(path))
        return (node,)

    def _is_present(self, path: str, ref: NestedRef) -> bool:
        parent = self._present.get(parent_path(path))
        if not _is_directory(parent):
            return False
        present = self._present.nested_at(path)
        return present is not None and present.hash == ref.hash

    # -- which rows differ

    def _compare_keys(self) -> None:
        """Find the removed keys and, where catalogs were created or dissolved, those that only moved."""
        origin: dict[PathKey, Catalog] = {}
        for base, _, diff in self._diffs:
            if base is None:
                continue
            paths = RowPaths(base.catalog, base.mountpoint)
            for row in diff.removed():
                self._removed[row.key] = (paths, row)
                if self._only_result:
                    origin[row.key] = base.catalog
        for node in self._only_base:
            paths, top = RowPaths(node.catalog, node.mountpoint), path_key(node.mountpoint)
            with closing(CatalogDiff(None, node.catalog, many=sys.maxsize)) as diff:
                for directories in (True, False):
                    for row in diff.added(directories=directories):
                        if row.key != top:
                            self._removed[row.key] = (paths, row)
                            origin[row.key] = node.catalog
        if not origin:
            return
        for _, _, diff in self._diffs:
            for key in diff.added_keys():
                found = self._removed.pop(key, None)
                if found is not None:
                    self._moved[key] = (origin[key], found[1].entry)

    def _compare_binds(self, base: Catalog, result: Catalog) -> None:
        old, new = base.nested("bind_mountpoints"), result.nested("bind_mountpoints")
        self._bind_changes.update(path for path in new if new[path] != old.get(path))

    def _removals(self) -> Iterator[Remove]:
        found: list[tuple[str, Entry]] = []
        for paths, row in self._removed.values():
            path = paths.child(row.key, row.parent, row.entry.name)
            if is_below(path, self._scope):
                found.append((path, row.entry))
        found.sort(key=lambda item: item[0], reverse=True)
        for path, entry in found:
            yield Remove(path, base=entry)

    def _puts(self, *, directories: bool) -> Iterator[Put]:
        for base, result, diff in self._diffs:
            catalog, paths = result.catalog, RowPaths(result.catalog, result.mountpoint)
            # A change of a nested catalog's root also shows in its parent's row of the mountpoint.
            top = path_key(result.mountpoint) if result.mountpoint else None
            before = base.catalog if base is not None else None
            for row in diff.added(directories=directories):
                if row.key != top and (put := self._put(catalog, paths, row, None, None)):
                    yield put
            for row, old in diff.modified(directories=directories):
                if row.key != top and (put := self._put(catalog, paths, row, old, before)):
                    yield put
            if not directories:
                yield from self._put_rest_of_groups(catalog, paths, before)
            elif before is not None:
                yield from self._put_changed_binds(catalog, paths, before)

    def _choose_files(self) -> Iterator[tuple[NewFiles, RowPaths, dict[PathKey, str]]]:
        """The new files that can be put together, and their directories; the others are put one by one."""
        for _, result, diff in self._diffs:
            if not diff.has_files:
                continue
            files, paths = diff.files, RowPaths(result.catalog, result.mountpoint)
            if self._moved:
                files.leave_out(self._moved)
            known = {parent: paths.directory(parent) for parent in files.parents()}
            inside = {parent: path for parent, path in known.items() if is_below(path, self._scope)}
            if len(inside) < len(known):
                files.leave_out(known.keys() - inside.keys(), parents=True)
            if inside:
                yield files, paths, inside

    def _put_files(self, files: NewFiles, paths: RowPaths, directories: dict[PathKey, str]) -> Iterator[PutFiles]:
        yield files.change(directories)
        # Meanwhile they are inserted into the present tree, which is not stored before the last change is applied.
        paths.check(files.names())
        if self._rules is not None:
            self._rules.check_files(files, paths)

    def _put_changed_binds(self, catalog: Catalog, paths: RowPaths, base: Catalog) -> Iterator[Put]:
        """Bind mountpoints whose catalog has changed; their rows may be unchanged."""
        for path in sorted(self._bind_changes):
            key, entry = path_key(path), catalog.get(path)
            if entry is not None and entry.flags & FLAG_BIND_MOUNTPOINT:
                row = Row(key, path_key(parent_path(path)), entry)
                if put := self._put(catalog, paths, row, base.get_key(key), base):
                    yield put

    def _put_rest_of_groups(self, catalog: Catalog, paths: RowPaths, base: Catalog | None) -> Iterator[Put]:
        """Put a hard link group as a whole, as it gets a new number in the present tree."""
        groups, self._put_links = self._put_links, {}
        for (parent, group), members in groups.items():
            for row in linked_rows(catalog, parent, group):
                if row.key not in members:
                    old = base.get_key(row.key) if base is not None else None
                    if put := self._put(catalog, paths, row, old, base, same_too=True):
                        yield put
        self._put_links.clear()

    def _put(
        self,
        catalog: Catalog,
        paths: RowPaths,
        row: Row,
        old: Entry | None,
        base: Catalog | None,
        same_too: bool = False,
    ) -> Put | None:
        key, parent, entry = row
        path = paths.child(key, parent, entry.name) if key != _ROOT else ""
        if not is_below(path, self._scope) or path in self._swapped:
            return None
        if old is None and key in self._moved:
            base, old = self._moved[key]
        chunks: Chunks = catalog.chunks_of_key(key) if entry.flags & FLAG_CHUNKED else ()
        bind = None
        if entry.flags & FLAG_BIND_MOUNTPOINT:
            bind = catalog.nested("bind_mountpoints").get(path)
        if old is not None and base is not None and same_content(old, entry) and path not in self._bind_changes:
            same_links = entry.is_directory or old.linkcount == entry.linkcount
            if same_links and not same_too and (not chunks or base.chunks_of_key(key) == chunks):
                return None
        if self._rules is not None:
            self._rules.check_entry(path, entry, chunks)
        if entry.hardlinks >> 32 and not entry.is_directory:
            self._put_links.setdefault((parent, entry.hardlink_group), set()).add(key)
        self._bind_changes.discard(path)
        return Put(path, entry, chunks, bind, old, (key, parent))


def _registered(tree: CatalogTree, path: str) -> NestedRef | None:
    """The nested catalog that *tree* has at *path*, if any."""
    return tree.node_of(parent_path(path)).nested.get(path)


def _is_directory(entry: Entry | None) -> bool:
    return entry is not None and entry.is_directory
