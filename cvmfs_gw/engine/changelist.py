"""The changes between two revisions, path by path, as ``diff`` shows them.

Nested catalogs that are equal in both are not opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cvmfs_gw.engine.catalogs import CatalogStore
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_objstore.formats.entry import NESTING_FLAGS, Entry
from cvmfs_objstore.hashes import ContentHash


class Difference(StrEnum):
    """What happened to a path."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"


_LETTERS: Final = {Difference.ADDED: "A", Difference.REMOVED: "R", Difference.MODIFIED: "M"}
_NAMES: Final = {
    "hash": "content", "size": "size", "mode": "mode", "mtime": "time", "mtimens": "time", "flags": "flags",
    "symlink": "target", "uid": "owner", "gid": "group", "xattr": "attributes", "hardlinks": "links",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PathChange:
    """One path: its old and new entry (None: nothing), and which properties differ."""

    path: str
    difference: Difference
    old: Entry | None
    new: Entry | None
    properties: tuple[str, ...] = ()

    def __str__(self) -> str:
        detail = f" ({', '.join(self.properties)})" if self.properties else ""
        return f"{_LETTERS[self.difference]} {self.path or '/'}{detail}"


def list_changes(catalogs: CatalogStore, old: ContentHash, new: ContentHash, top: str = "") -> Iterator[PathChange]:
    """The changes from the tree of one root catalog to that of *new*, at and below *top*, parents first.

    Raises :exc:`MergeError` and its subclasses.
    """
    with closing(CatalogTree(catalogs, old)) as before, closing(CatalogTree(catalogs, new)) as after:
        yield from compare_trees(before, after, top)


def compare_trees(before: CatalogTree, after: CatalogTree, top: str = "") -> Iterator[PathChange]:
    """As above, for two open trees, which may belong to different repositories."""
    # an explicit stack instead of recursion, as the depth of a tree is unbounded
    pending: list[_Steps] = [_path(before, after, top, before.get(top), after.get(top))]
    while pending:
        step = next(pending[-1], None)
        if step is None:
            pending.pop()
        elif isinstance(step, PathChange):
            yield step
        else:
            pending.append(step)


_Steps = Iterator["PathChange | _Steps"]


def _compare(before: CatalogTree, after: CatalogTree, top: str) -> _Steps:
    old = {entry.name: entry for entry in before.entries(top)}
    new = {entry.name: entry for entry in after.entries(top)}
    for name in sorted(old.keys() | new.keys()):
        yield _path(before, after, f"{top}/{name}", old.get(name), new.get(name))


def _path(before: CatalogTree, after: CatalogTree, path: str, was: Entry | None, now: Entry | None) -> _Steps:
    chunks_differ = bool(was and now and was.is_chunked and before.chunks(path) != after.chunks(path))
    yield from _entry(path, was, now, chunks_differ)
    was_directory, is_directory = (entry is not None and entry.is_directory for entry in (was, now))
    if was_directory and is_directory:
        here, there = before.nested_at(path), after.nested_at(path)
        if here is None or there is None or here.hash != there.hash:
            yield _compare(before, after, path)
    elif was_directory:
        yield _all(before, path, Difference.REMOVED)
    elif is_directory:
        yield _all(after, path, Difference.ADDED)


def _entry(path: str, old: Entry | None, new: Entry | None, chunks_differ: bool) -> Iterator[PathChange]:
    if old is None or new is None:
        if old is not None or new is not None:
            yield PathChange(path, Difference.REMOVED if new is None else Difference.ADDED, old, new)
        return
    mask = ~NESTING_FLAGS
    a, b = (entry._replace(flags=entry.flags & mask, hardlinks=1) for entry in (old, new))
    if not old.is_directory and old.linkcount != new.linkcount:
        b = b._replace(hardlinks=2)
    found = [_NAMES[field] for field, x, y in zip(Entry._fields, a, b, strict=True) if x != y]
    if chunks_differ:
        found.append("content")
    if found:
        yield PathChange(path, Difference.MODIFIED, old, new, tuple(dict.fromkeys(found)))


def _all(tree: CatalogTree, top: str, difference: Difference) -> _Steps:
    for entry in sorted(tree.entries(top), key=lambda entry: entry.name):
        path = f"{top}/{entry.name}"
        added = difference is Difference.ADDED
        yield PathChange(path, difference, None if added else entry, entry if added else None)
        if entry.is_directory:
            yield _all(tree, path, difference)
