"""Applying changes to a catalog tree.

The present tree may differ from the one that the changes were made against, as others have published meanwhile. The
rules, in order of precedence:

* what the changes do not mention stays as it is in the present tree;
* where both sides changed an entry, the changes win (their author holds the lease), and a collision is recorded;
* a directory is not removed while it has entries that the author of the changes never saw;
* a directory that others removed is restored, as the author had it, if the author puts something into it;
* adding or removing the marker file of a nested catalog creates or dissolves it, whatever others did to either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import assert_never

from cvmfs_gw.engine.changes import (
    CATALOG_MARKER,
    UNKNOWN,
    Base,
    Change,
    Drop,
    Graft,
    Nest,
    Put,
    PutFiles,
    Remove,
    Unnest,
)
from cvmfs_gw.engine.errors import MergeError
from cvmfs_gw.engine.node import Node
from cvmfs_gw.engine.statistics import PublishCounts
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.entry import FLAG_BIND_MOUNTPOINT, NESTING_FLAGS, Entry, PathKey, parent_path

Ancestors = Callable[[str], Entry | None]
"""Looks a directory up in the tree that the changes come from; None if that does not have it either."""


@dataclass(frozen=True, slots=True)
class Collision:
    """An entry that was changed on both sides, and how this was resolved."""

    path: str
    outcome: str


def same_content(one: Entry, other: Entry) -> bool:
    """Whether two entries are equal except for link data and nesting, which depend on the tree they are in.

    Two differences are artefacts and ignored: the size of a directory, which depends on the publisher's file system,
    and nanoseconds that were unknown and are now zero.
    """
    # called for every file of a publish, so it makes no copies of entries
    return (
        one.mode == other.mode
        and one.mtime == other.mtime
        and (one.mtimens or 0) == (other.mtimens or 0)
        and one.hash == other.hash
        and not (one.flags ^ other.flags) & ~NESTING_FLAGS
        and (one.size == other.size or (one.is_directory and other.is_directory))
        and one.name == other.name
        and one.symlink == other.symlink
        and one.uid == other.uid
        and one.gid == other.gid
        and one.xattr == other.xattr
    )


class Transaction:
    """One list of changes on one tree. Use once; the tree is then ready to be stored."""

    def __init__(self, tree: CatalogTree, ancestors: Ancestors = lambda path: None) -> None:
        self.tree = tree
        self.collisions: list[Collision] = []
        self.counts = PublishCounts()
        """Counts of changed entries, except those that came or went with a whole nested catalog."""
        self._ancestors = ancestors
        self._directories: set[str] = set()
        """Directories known to exist."""
        self._fresh: set[str] = set()
        """Directories made by this transaction, so they contain nothing else than what it put there."""
        self._marked: set[str] = set()
        """Directories whose marker of a nested catalog was added or removed."""

    def apply(self, changes: Iterable[Change]) -> None:
        """Apply *changes* in order (see :mod:`cvmfs_gw.engine.changes`); raises :exc:`MergeError`."""
        for change in changes:
            match change:
                case Put():
                    self._put(change)
                case PutFiles():
                    self._put_files(change)
                case Remove():
                    self._remove(change)
                case Nest():
                    self._ensure_directory(change.path)
                    self.tree.nest(change.path)
                case Unnest():
                    self.tree.unnest(change.path)
                case Graft():
                    self._ensure_directory(change.path)
                    self.tree.graft(change.path, change.new)
                case Drop():
                    self.tree.drop(change.path)
                case _:
                    assert_never(change)
        for directory in sorted(self._marked):
            self._follow_marker(directory)

    def _note(self, path: str, present: Entry | None, base: Base, outcome: str) -> None:
        """Record a collision if the present entry is not the one that the changes were made against."""
        if base is UNKNOWN:
            return
        same = present is None and base is None if present is None or base is None else same_content(present, base)
        if not same:
            self.collisions.append(Collision(path, outcome))

    def _put(self, change: Put) -> None:
        path, entry = change.path, change.entry
        if not path:
            if not entry.is_directory:
                raise MergeError("the root is a directory")
            self._note(path, self.tree.get(""), change.base, "replaced")
            self.tree.put_root(entry)
            return
        parent = parent_path(path)
        if parent not in self._directories:
            self._ensure_directory(parent)
        old = None if parent in self._fresh else self.tree.get(path)
        if old is None or not same_content(old, entry):
            self._note(path, old, change.base, "put back" if old is None else "replaced")
        if old is not None and old.is_directory and (not entry.is_directory or entry.flags & FLAG_BIND_MOUNTPOINT):
            if self.tree.has_children(path):
                self.collisions.append(Collision(path, "replaced with what others put in it"))
            old = self._empty(path)
        self.tree.put(path, entry, change.chunks, old, change.bind, change.keys)
        if entry.name == CATALOG_MARKER:
            self._marked.add(parent)
        self.counts.count(old, entry)
        if entry.is_directory:
            self._directories.add(path)
            if old is None or not old.is_directory:
                self._fresh.add(path)

    def _put_files(self, change: PutFiles) -> None:
        for path in change.directories.values():
            self._ensure_directory(path)
        places: dict[Node, dict[PathKey, str]] = {}
        for key, path in change.directories.items():
            places.setdefault(self.tree.node_of(path), {})[key] = path
        for node, here in places.items():
            fresh = self._fresh.issuperset(here.values())
            existing, counters = self.tree.put_files(node, change, here, fresh=fresh)
            self.counts.count_files(counters)
            for key, parent, entry in existing:
                self._put(Put(f"{here[parent]}/{entry.name}", entry, base=None, keys=(key, parent)))

    def _empty(self, path: str) -> Entry | None:
        """Remove the content of the directory at *path*; returns its entry afterwards."""
        if self.tree.is_mountpoint(path):
            self.tree.drop(path)
        for child in self.tree.entries(path):
            self.tree.remove_tree(f"{path}/{child.name}")
        self.tree.settle_directories()
        return self.tree.get(path)

    def _remove(self, change: Remove) -> None:
        path = change.path
        if not path:
            raise MergeError("the root cannot be removed")
        old = self.tree.get(path)
        if old is None:
            return
        if change.recursive:
            self.tree.remove_tree(path)
            return
        if old.is_directory and self.tree.has_children(path):
            self.collisions.append(Collision(path, "kept for what others put in it"))
            return
        self._note(path, old, change.base, "removed")
        self.tree.remove(path, old)
        if old.name == CATALOG_MARKER:
            self._marked.add(parent_path(path))
        self.counts.count(old, None)

    def _follow_marker(self, directory: str) -> None:
        """Make the directory a nested catalog if it has the marker file, else merge it into its parent's catalog."""
        entry = self.tree.get(directory) if directory else None
        if entry is None or not entry.is_directory or entry.flags & FLAG_BIND_MOUNTPOINT:
            return
        if self.tree.get(f"{directory}/{CATALOG_MARKER}") is not None:
            self.tree.nest(directory)
        else:
            self.tree.unnest(directory)

    def _ensure_directory(self, path: str) -> None:
        """Make sure that *path* is a directory, copied from the source of the changes if the present tree has none."""
        if path in self._directories:
            return
        entry = self.tree.get(path)
        if entry is None or not entry.is_directory:
            source = self._ancestors(path)
            if source is None or not source.is_directory:
                raise MergeError(f"{path or '/'} is not a directory")
            self._put(Put(path, source, base=source))
        elif entry.flags & FLAG_BIND_MOUNTPOINT:
            raise MergeError(f"{path} is a bind mountpoint")
        self._directories.add(path)
