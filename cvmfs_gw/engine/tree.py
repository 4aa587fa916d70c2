"""A catalog tree that is being changed: lazily opened nested catalogs, exact counters and link counts.

Catalogs are opened when a path in them is accessed, changed in memory, and stored bottom-up at the end by
:meth:`CatalogTree.store`. The tree maintains what involves more than one row: the two rows of a nested catalog's
directory, the counters of every catalog and its subtree, the link counts of directories, and hard link groups.

Counters: while a nested catalog is open, its parent's subtree counters contain the nested catalog's total at the time
it was opened (``Node.accounted``); the difference is added when it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.changes import PutFiles
from cvmfs_gw.engine.errors import MergeError
from cvmfs_gw.engine.journal import Journal
from cvmfs_gw.engine.links import NEW_DIRECTORY_LINKS, Links
from cvmfs_gw.engine.newfiles import NewFiles
from cvmfs_gw.engine.node import Node
from cvmfs_gw.engine.rows import Row
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.formats.entry import (
    FLAG_BIND_MOUNTPOINT,
    FLAG_DIRECTORY,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    NESTING_FLAGS,
    Chunks,
    Counters,
    Entry,
    PathKey,
    is_below,
    parent_path,
)
from cvmfs_objstore.hashes import Algorithm, ContentHash

_NO_HASH: Final = "0" * 40


class CatalogTree:
    """The tree below one root catalog. Not thread-safe."""

    def __init__(self, catalogs: CatalogStore, root: ContentHash) -> None:
        self._catalogs = catalogs
        data = catalogs.plain(root)
        self.root = self._node("", catalogs.open(root, data), NestedRef(root, len(data)), None)
        self._by_directory: dict[str, Node] = {}
        self._links = Links()

    def _open(self, mountpoint: str, ref: NestedRef, parent: Node | None) -> Node:
        return self._node(mountpoint, self._catalogs.load(ref.hash), ref, parent)

    @staticmethod
    def _node(mountpoint: str, catalog: Catalog, ref: NestedRef, parent: Node | None) -> Node:
        if catalog.mountpoint != mountpoint:
            found = catalog.mountpoint
            catalog.close()
            raise MergeError(f"catalog {ref.hash} belongs to {found or '/'}, not to {mountpoint or '/'}")
        return Node(mountpoint, catalog, parent, ref)

    def close(self) -> None:
        """Free every open catalog."""
        for node in self._nodes():
            node.close()

    def _nodes(self) -> Iterator[Node]:
        """Open catalogs, children before parents."""

        return self.root.subtree()

    def changed_nodes(self) -> Iterator[Node]:
        """Open catalogs that were changed, children before parents."""
        return (node for node in self._nodes() if node.changed)

    # -- reading

    def node_of(self, directory: str) -> Node:
        """The catalog that holds the content of *directory* (for a mountpoint: the nested one)."""
        node = self._by_directory.get(directory)
        if node is None:
            node = self.root
            end = 0
            # There may be mountpoints on the way: look each prefix of the path up in the catalog reached so far.
            while end < len(directory):
                end = directory.find("/", end + 1)
                end = len(directory) if end < 0 else end
                prefix = directory[:end]
                if prefix in node.nested:
                    node = self._child(node, prefix)
            self._by_directory[directory] = node
        return node

    def _child(self, node: Node, mountpoint: str) -> Node:
        child = node.children.get(mountpoint)
        if child is None:
            child = node.children[mountpoint] = self._open(mountpoint, node.nested[mountpoint], node)
        return child

    def get(self, path: str) -> Entry | None:
        """The entry at *path* (for a mountpoint: the row of the parent catalog), or None."""
        return self.node_of(parent_path(path)).catalog.get(path)

    def chunks(self, path: str) -> Chunks:
        """Chunks of the file at *path*."""
        return self.node_of(parent_path(path)).catalog.chunks(path)

    def nested_at(self, path: str) -> NestedRef | None:
        """The nested catalog registered at *path*, if there is one and it is unchanged in this tree."""
        if not path:
            return None if self.root.changed else self.root.ref
        node = self.node_of(parent_path(path))
        child = node.children.get(path)
        if child is not None and any(below.changed for below in child.subtree()):
            return None
        return node.nested.get(path)

    def is_mountpoint(self, path: str) -> bool:
        """Whether *path* is the mountpoint of a nested catalog."""
        return bool(path) and path in self.node_of(parent_path(path)).nested

    def has_children(self, directory: str) -> bool:
        """Whether anything is in *directory*."""
        return self.node_of(directory).catalog.has_children(directory)

    def entries(self, directory: str) -> list[Entry]:
        """Entries of *directory*."""
        return list(self.node_of(directory).catalog.children(directory))

    def directories(self, directory: str) -> list[Entry]:
        """The directories in *directory*."""
        return list(self.node_of(directory).catalog.directories(directory))

    def files_of(self, node: Node, other: CatalogTree, other_node: Node) -> tuple[bytes, bytes] | None:
        """The files that an unchanged node of this tree and one of another were opened from."""
        if node.changed or other_node.changed or node.ref is None or other_node.ref is None:
            return None
        return self._catalogs.plain(node.ref.hash), other._catalogs.plain(other_node.ref.hash)

    # -- changing entries

    def put(
        self,
        path: str,
        entry: Entry,
        chunks: Chunks,
        old: Entry | None,
        bind: NestedRef | None = None,
        keys: tuple[PathKey, PathKey] | None = None,
    ) -> None:
        """Put *entry* at *path*. *old* is the present entry; *keys* are those of path and parent, if known.

        The parent must be a directory. A directory keeps its nesting and its link count; if it is replaced with
        something else, it must be empty and not a mountpoint.
        """
        parent = parent_path(path)
        node = self.node_of(parent)
        flags = entry.flags & ~NESTING_FLAGS
        if flags & FLAG_DIRECTORY:
            if old is not None and old.is_directory:
                flags |= old.flags & NESTING_FLAGS
                links = NEW_DIRECTORY_LINKS if old.flags & FLAG_BIND_MOUNTPOINT else old.hardlinks
            else:
                links = NEW_DIRECTORY_LINKS
                self._links.add_subdirectory(parent)
            if flags & FLAG_BIND_MOUNTPOINT:
                links = entry.hardlinks  # it counts what is shown there
        else:
            if old is not None and old.is_directory:
                self._forget_directory(path)
            links = self._links.file_links(node, parent, entry) if entry.hardlink_group else 1
        if flags != entry.flags or links != entry.hardlinks:
            entry = entry._replace(flags=flags, hardlinks=links)
        node.own.count(entry, len(chunks))
        node.changed = True
        if old is None and not chunks and bind is None:
            node.put_new(Catalog.row(path, entry, *keys) if keys else Catalog.row(path, entry))
            return
        if old is not None:
            self._links.note_group(parent, old)
            node.own.count(old, len(node.catalog.chunks(path)) if old.is_chunked else 0, -1)
            if old.flags & FLAG_BIND_MOUNTPOINT:
                node.catalog.remove_nested(path, "bind_mountpoints")
        node.catalog.put(path, entry, chunks)
        if bind is not None and flags & FLAG_BIND_MOUNTPOINT:
            node.catalog.set_nested(path, bind, "bind_mountpoints")
        if flags & FLAG_MOUNTPOINT:
            self._put_nested_root(self._child(node, path), entry)

    def put_files(
        self, node: Node, change: PutFiles, directories: Iterable[PathKey], *, fresh: bool
    ) -> tuple[list[Row], Counters]:
        """Put the plain files that are in *directories*, all of *node*; *fresh* says that these were empty.

        Returns the files whose path is taken, which are not put, and the counters of the others.
        """
        new = NewFiles.attach(node.catalog.connection, change, directories)
        existing = [] if fresh else new.take_existing()
        counters = new.counters()
        node.own.add(counters)
        node.changed = True
        node.put_files(new)
        return existing, counters

    def _put_nested_root(self, node: Node, entry: Entry) -> None:
        old = node.catalog.get(node.mountpoint)
        if old is not None:
            node.own.count(old, 0, -1)
        entry = entry._replace(flags=entry.flags & ~FLAG_MOUNTPOINT | FLAG_NESTED_ROOT)
        node.catalog.put(node.mountpoint, entry)
        node.own.count(entry, 0)
        node.changed = True

    def put_root(self, entry: Entry) -> None:
        """Replace the entry of the repository's root directory."""
        old = self.root.catalog.get("")
        if old is None:
            raise MergeError("the root catalog has no root directory")
        self.root.own.count(old, 0, -1)
        entry = entry._replace(flags=entry.flags & ~NESTING_FLAGS, hardlinks=old.hardlinks)
        self.root.catalog.put("", entry)
        self.root.own.count(entry, 0)
        self.root.changed = True

    def remove(self, path: str, old: Entry) -> None:
        """Remove the entry at *path*, which is *old*. A directory must be empty; its nested catalog is removed, too."""
        parent = parent_path(path)
        if old.is_directory:
            if path in self.node_of(parent).nested:
                self.unnest(path)
            self._forget_directory(path)
        node = self.node_of(parent)
        node.own.count(old, len(node.catalog.chunks(path)) if old.is_chunked else 0, -1)
        node.catalog.remove(path)
        if old.flags & FLAG_BIND_MOUNTPOINT:
            node.catalog.remove_nested(path, "bind_mountpoints")
        self._links.note_group(parent, old)
        node.changed = True

    def remove_tree(self, path: str) -> None:
        """Remove the entry at *path* and everything below it; nested catalogs as a whole, unread."""
        # iterative, as the depth of a tree is unbounded
        doomed = [path]
        while doomed:
            old = self.get(doomed[-1])
            if old is not None and old.is_directory:
                if self.is_mountpoint(doomed[-1]):
                    self.drop(doomed[-1])
                if inside := self.entries(doomed[-1]):
                    doomed += [f"{doomed[-1]}/{entry.name}" for entry in inside]
                    continue
                old = self.get(doomed[-1])
            if old is not None:
                self.remove(doomed[-1], old)
            doomed.pop()

    def _forget_directory(self, path: str) -> None:
        self._links.forget_directory(path)
        self._by_directory.pop(path, None)

    def settle(self) -> None:
        """Write the link counts that result from the changes so far."""
        self._links.settle_groups(self.node_of)
        self.settle_directories()

    def settle_directories(self) -> None:
        """Write the link counts of directories, but not of hard link groups, which may be incomplete as yet."""
        self._links.settle_directories(self.node_of)

    # -- nesting

    def nest(self, path: str) -> None:
        """Make the directory at *path* a nested catalog. Does nothing if it already is one."""
        self.settle()
        parent = self.node_of(parent_path(path))
        if path in parent.nested:
            return
        entry = parent.catalog.get(path)
        if entry is None or not entry.is_directory or entry.flags & FLAG_BIND_MOUNTPOINT:
            raise MergeError(f"{path} is not a directory that can be a nested catalog")
        catalog = Catalog.create(path, entry)
        moved = parent.catalog.move_below(path, catalog)
        child = Node(path, catalog, parent, None)
        child.own.add(moved)
        parent.own.add(moved, -1)
        for mountpoint in list(parent.nested):
            if is_below(mountpoint, path):
                del parent.nested[mountpoint]
                grandchild = parent.children.pop(mountpoint, None)
                if grandchild is None:
                    accounted = self._total_of(child.nested[mountpoint])
                else:
                    accounted = grandchild.accounted
                    grandchild.parent = child
                    child.children[mountpoint] = grandchild
                child.below.add(accounted)
                parent.below.add(accounted, -1)
        parent.catalog.put(path, entry._replace(flags=entry.flags | FLAG_MOUNTPOINT))
        parent.nested[path] = NestedRef(ContentHash.null(), 0)
        parent.children[path] = child
        parent.changed = True
        self._by_directory.clear()

    def unnest(self, path: str) -> None:
        """Merge the nested catalog at *path* into its parent. Does nothing if there is none."""
        self.settle()
        parent = self.node_of(parent_path(path))
        if path not in parent.nested:
            return
        child = self._child(parent, path)
        offset = parent.catalog.max_hardlink_group() if child.catalog.max_hardlink_group() else 0
        moved = child.catalog.move_below(path, parent.catalog, offset)
        parent.own.add(moved)
        parent.below.add(child.accounted, -1)
        parent.below.add(child.below)
        for mountpoint, grandchild in child.children.items():
            grandchild.parent = parent
            parent.children[mountpoint] = grandchild
        parent.nested.update(child.nested)
        self._unregister(parent, path)
        child.close()

    def drop(self, path: str) -> None:
        """Remove the nested catalog at *path* with its content; an empty directory remains."""
        self.settle_directories()
        parent = self.node_of(parent_path(path))
        child = parent.children.get(path)
        parent.below.add(child.accounted if child else self._total_of(parent.nested[path]), -1)
        if child is not None:
            for node in list(child.subtree()):
                node.close()
        self._unregister(parent, path)
        parent.catalog.set_links(path, NEW_DIRECTORY_LINKS)

    def _unregister(self, parent: Node, path: str) -> None:
        parent.nested.pop(path)
        parent.children.pop(path, None)
        parent.catalog.remove_nested(path)
        entry = parent.catalog.get(path)
        if entry is not None:
            parent.catalog.put(path, entry._replace(flags=entry.flags & ~FLAG_MOUNTPOINT))
        parent.changed = True
        self._by_directory.clear()

    def graft(self, path: str, new: NestedRef) -> None:
        """Make *new* the nested catalog at *path*, which must be an empty directory or a nested catalog."""
        self.settle()
        if self.is_mountpoint(path):
            self.drop(path)
        parent = self.node_of(parent_path(path))
        child = self._open(path, new, parent)
        root = child.catalog.get(path)
        old = parent.catalog.get(path)
        if root is None or old is None or not root.is_directory or not old.is_directory:
            raise MergeError(f"the nested catalog {new.hash} does not fit at {path}")
        # The row in the parent must equal that of the nested catalog's root, whose link count comes with its content.
        row = root._replace(flags=root.flags & ~FLAG_NESTED_ROOT | FLAG_MOUNTPOINT, name=old.name)
        parent.own.count(old, 0, -1)
        parent.own.count(row, 0)
        parent.catalog.put(path, row)
        parent.catalog.set_nested(path, new)
        parent.nested[path] = new
        parent.children[path] = child
        parent.below.add(child.accounted)
        parent.changed = True
        self._by_directory.clear()

    def _total_of(self, ref: NestedRef) -> Counters:
        with self._catalogs.load(ref.hash) as catalog:
            own, below = catalog.counters()
        own.add(below)
        return own

    # -- storing

    def store(
        self,
        now: int,
        algorithm: Algorithm,
        before_root: Callable[[Catalog], None] | None = None,
        check: Callable[[str, int], None] | None = None,
        journal: Journal | None = None,
        last: bool = False,
    ) -> tuple[NestedRef, list[NestedRef]]:
        """Store every changed catalog; returns the new root catalog and all catalogs stored.

        Each gets the next revision, *now* (seconds since the epoch) as ``last_modified``, and the hash that it replaces
        as ``previous_revision``; the root is always stored. *before_root* may set properties of the root; *check* is
        called with the mountpoint and number of entries of each catalog before any is stored, and may raise. With
        *last*, each catalog is closed before it is compressed, to save memory; the tree can then only be closed.
        """
        self.settle()
        stored: list[NestedRef] = []
        self.root.changed = True
        if check is not None:
            for node in self._nodes():
                if node.changed:
                    check(node.mountpoint, node.own.entries)
        for node in self._nodes():
            if not node.changed:
                continue
            if node is self.root and before_root is not None:
                before_root(node.catalog)
            node.own.nested = len(node.nested)
            catalog = node.catalog
            catalog.set_counters(node.own, node.below)
            catalog.set_property("revision", catalog.revision + 1)
            catalog.set_property("previous_revision", node.ref.hash.bare if node.ref else _NO_HASH)
            catalog.set_property("last_modified", now)
            ref = self._catalogs.store(catalog, algorithm, journal, node.ref.hash if node.ref else None, last=last)
            stored.append(ref)
            if node.parent is not None:
                self._account(node.parent, node, ref)
            node.ref, node.changed = ref, False
        assert self.root.ref is not None
        return self.root.ref, stored

    @staticmethod
    def _account(parent: Node, node: Node, ref: NestedRef) -> None:
        total = node.total()
        parent.below.add(total)
        parent.below.add(node.accounted, -1)
        node.accounted = total
        parent.nested[node.mountpoint] = ref
        parent.catalog.set_nested(node.mountpoint, ref)
        parent.changed = True
