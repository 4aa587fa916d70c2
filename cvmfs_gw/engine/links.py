"""Link counts in a tree that is being changed: accumulated, and written when they are needed.

A directory's link count is 2 plus its sub-directories, whatever the source of a change claims. Hard link groups are
numbered per catalog and never leave a directory. So an entry from another catalog gets a new group number, and whenever
an entry joins or leaves a group, its members are counted again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cvmfs_gw.engine.errors import MergeError
from cvmfs_gw.engine.node import Node
from cvmfs_objstore.formats.entry import Entry, parent_path

NEW_DIRECTORY_LINKS: Final = 2

NodeOf = Callable[[str], Node]
"""Returns the node that holds a directory's content."""


class Links:
    """The pending link counts of one tree."""

    def __init__(self) -> None:
        self._subdirectories: dict[str, int] = {}
        self._numbers: dict[tuple[str, int], int] = {}
        self._touched: set[tuple[str, int]] = set()
        self._last: dict[str, int] = {}

    # -- directories

    def add_subdirectory(self, directory: str, change: int = 1) -> None:
        """Note that a directory was made (or, with -1, removed) in *directory*."""
        self._subdirectories[directory] = self._subdirectories.get(directory, 0) + change

    def forget_directory(self, path: str) -> None:
        """Note that the directory at *path* was removed."""
        self.add_subdirectory(parent_path(path), -1)
        self._subdirectories.pop(path, None)

    def settle_directories(self, node_of: NodeOf) -> None:
        """Write the link counts of directories."""
        for directory, change in self._subdirectories.items():
            if change:
                _change_links(node_of, directory, change)
        self._subdirectories.clear()

    # -- hard links

    def file_links(self, node: Node, directory: str, entry: Entry) -> int:
        """The ``hardlinks`` column for an entry from another catalog, with the new number of its group."""
        source = (directory, entry.hardlink_group)
        group = self._numbers.get(source)
        if group is None:
            last = self._last.get(node.mountpoint)
            group = (node.catalog.max_hardlink_group() if last is None else last) + 1
            self._numbers[source] = self._last[node.mountpoint] = group
        self._touched.add((directory, group))
        return entry.with_links(1, group).hardlinks

    def note_group(self, directory: str, old: Entry) -> None:
        """Note that the entry *old* of *directory* was replaced or removed."""
        if not old.is_directory and old.hardlink_group:
            self._touched.add((directory, old.hardlink_group))

    def settle_groups(self, node_of: NodeOf) -> None:
        """Write the link counts of hard link groups."""
        for directory, group in self._touched:
            node_of(directory).catalog.renumber_hardlink_group(directory, group)
        self._touched.clear()
        self._numbers.clear()
        self._last.clear()


def _change_links(node_of: NodeOf, directory: str, change: int) -> None:
    inner = node_of(directory)
    entry = inner.catalog.get(directory)
    if entry is None:
        raise MergeError(f"no directory {directory or '/'}")
    links = max(NEW_DIRECTORY_LINKS, entry.linkcount + change)
    for node in {inner, node_of(parent_path(directory))}:
        node.catalog.set_links(directory, links)
        node.changed = True
