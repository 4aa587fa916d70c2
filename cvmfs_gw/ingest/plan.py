"""Operations as a list of changes of one catalog tree: what is there already is left out.

The list is in the order that :mod:`cvmfs_gw.engine.changes` asks for. Each change names what it replaces, so that a
list can be shown to people, and so that applying it to a newer tree notes what others did meanwhile.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from cvmfs_gw.engine.balance import MARKER as AUTOMATIC_MARKER
from cvmfs_gw.engine.changes import CATALOG_MARKER, Change, Nest, Put, Remove, Unnest
from cvmfs_gw.engine.transaction import same_content
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.errors import BadSource, BadTarget
from cvmfs_gw.ingest.existing import Kept
from cvmfs_gw.ingest.items import Item
from cvmfs_gw.ingest.marks import mark_catalogs
from cvmfs_gw.ingest.nodes import Node
from cvmfs_gw.ingest.overlay import Operation, overlay
from cvmfs_gw.ingest.ownership import SAME, IdMap
from cvmfs_gw.ingest.spill import Chained, LongList
from cvmfs_objstore.formats.database import to_bytes
from cvmfs_objstore.formats.entry import (
    FLAG_CHUNKED,
    FLAG_DIRECTORY,
    FLAG_FILE,
    FLAG_HIDDEN,
    FLAG_LINK,
    FLAG_SPECIAL,
    Chunks,
    Entry,
    Kind,
    is_below,
    parent_path,
)
from cvmfs_objstore.objects import ObjectStore

AT_HAND: Final = 1 << 16
"""Changes that are in memory at once."""
DIRECTORY_SIZE: Final = 4096
"""The size in bytes that every directory has."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How items become entries.

    *now* is the time of what no source has a time for, in nanoseconds since the epoch; *directory* the mode, and
    *owner* the user and group, of directories that are made because something has to be in them. *mtime_ns*: store
    fractions of seconds. *uids* and *gids* map all owners.
    """

    now: int
    directory: int = 0o755
    owner: tuple[int, int] = (0, 0)
    uids: IdMap = SAME
    gids: IdMap = SAME
    mtime_ns: bool = True
    hard_links: bool = True
    """False: names of one file become files of their own."""
    spill_folder: str | None = None
    """Where changes are kept that are too many for the memory; None: the system's folder for temporary files."""


@dataclass(slots=True)
class Plan:
    """Changes, and the deepest path that all of them are at or below: what has to be leased."""

    changes: Collection[Change] = field(default_factory=list)
    scope: str = ""


def plan(
    tree: CatalogTree, operations: Sequence[Operation], options: PlanOptions, objects: ObjectStore | None = None
) -> Plan:
    """What *operations* change in *tree*. Raises :exc:`BadTarget`, :exc:`BadSource` and :exc:`BadConfiguration`.

    With *objects*, where both the repository's contents and the new ones can be read, ``.cvmfsdirtab`` is honoured:
    directories that are changed and that it names get the file that marks a nested catalog, unless they have it.

    Divergence: ``cvmfs_server publish`` looks at every directory of the repository, also far from what is leased, and
    ``ingest`` at those that were there before.
    """
    root = overlay(operations)
    if objects is not None:
        root = mark_catalogs(tree, root, [operation.target for operation in operations], objects, options.now)
    return Plan(
        _Planner(tree, options).changes(root),
        scope(tree, [operation.target for operation in operations]),
    )


def scope(tree: CatalogTree, targets: Sequence[str]) -> str:
    """The path to lease for changes at and below *targets*.

    That is the deepest path that they have in common or, if that is not there yet, the highest of the directories that
    are made on the way to it. Raises :exc:`BadTarget` where something else than a directory is in the way.
    """
    common = targets[0] if targets else ""
    for target in targets[1:]:
        while not is_below(target, common):
            common = parent_path(common)
    existing = nearest_directory(tree, common)
    if existing == common:
        return common
    lease = f"{existing}/{common[len(existing) + 1 :].partition('/')[0]}"
    if lease != common and tree.get(lease) is not None:
        raise BadTarget(f"{lease} is not a directory, so nothing can be at {common}")
    return lease


def nearest_directory(tree: CatalogTree, path: str) -> str:
    """The longest part of *path* that is a directory of *tree*."""
    while path and not ((entry := tree.get(path)) and entry.is_directory):
        path = parent_path(path)
    return path


_Pending = tuple[str, Node, Entry | None, bool]
"""A directory that is to be planned: the arguments of :meth:`_Planner._directory`."""


class _Planner:
    def __init__(self, tree: CatalogTree, options: PlanOptions) -> None:
        self._tree, self._options = tree, options
        self._removes: list[Remove] = []
        self._puts: LongList[Put] = LongList(AT_HAND, options.spill_folder)
        self._nested: list[str] = []
        self._dissolved: list[str] = []

    def changes(self, root: Node) -> Collection[Change]:
        # a stack of its own instead of recursion: a path may have two thousand directories
        pending: list[_Pending] = [("", root, self._tree.get(""), False)]
        while pending:
            pending.extend(reversed(self._directory(*pending.pop())))
        dissolved, nested = [*map(Unnest, sorted(self._dissolved))], [*map(Nest, sorted(self._nested))]
        if len(self._puts) > AT_HAND:
            return Chained(self._removes, self._puts, dissolved, nested)
        return [*self._removes, *self._puts, *dissolved, *nested]

    def _directory(self, path: str, node: Node, old: Entry | None, opaque: bool) -> list[_Pending]:
        """Plan the directory *node*, where *old* is now; *opaque*: a directory above it is.

        Returns the directories in it, which are still to be planned.
        """
        is_directory = old is not None and old.is_directory
        if (opaque or not is_directory) and not node.is_needed:
            # There is something to be removed in it, at most.
            if opaque and old is not None:
                self._remove(path, old)
            return []
        opaque = opaque or node.opaque
        if old is not None and not is_directory:
            if node.item is None and not opaque:
                raise BadTarget(f"{path} is not a directory, so nothing can be in it")
            self._removes.append(Remove(path, base=old))
            old = None
        if old is None:
            self._put(path, node.item or self._made(path), old)
        elif node.item is not None and not node.is_default:
            self._put(path, node.item, old)
        children = self._changed(path, node) if old is not None else None
        is_kept = children is not None
        if children is None:
            children = node.look()
        there: dict[str, Entry] = {}
        if old is not None and opaque:
            entries = self._tree.directories(path) if is_kept else self._tree.entries(path)
            there = {entry.name: entry for entry in entries}
        groups: dict[object, list[tuple[str, Node, Entry | None]]] = {}
        directories: list[_Pending] = []
        for name, child in children.items():
            below = f"{path}/{name}"
            if old is None:
                before = None
            elif opaque:
                before = there.pop(name, None)
            else:
                before = self._tree.get(below)
            if child.is_directory:
                directories.append((below, child, before, opaque))
            elif child.item is None:
                if before is not None:
                    self._remove(below, before)
            elif child.group is not None and self._options.hard_links:
                groups.setdefault(child.group, []).append((below, child, before))
            else:
                self._file(below, child, before)
        for number, members in enumerate(groups.values(), 1):
            self._linked(number, members)
        for name, entry in there.items():
            # Hidden entries and marks of automatic catalogs are made by servers: nobody means to remove them.
            if not entry.flags & FLAG_HIDDEN and name != AUTOMATIC_MARKER:
                self._remove(f"{path}/{name}", entry)
        if path:
            self._follow_marker(path, None if is_kept else children, old, opaque)
        return directories

    def _changed(self, path: str, node: Node) -> dict[str, Node] | None:
        """What there is to look at in a directory whose files are all as they are to be; None for any other."""
        kept, options = node.rest, self._options
        if not isinstance(kept, Kept) or not kept.is_at(self._tree, path, options.uids, options.gids):
            return None
        marker = self._tree.get(f"{path}/{CATALOG_MARKER}")
        if not options.mtime_ns or (marker is not None and marker.kind is not Kind.FILE):
            return None
        return node.at_hand

    def _follow_marker(self, path: str, children: dict[str, Node] | None, old: Entry | None, opaque: bool) -> None:
        """*children* None: it is what it was."""
        marker = None if children is None else children.get(CATALOG_MARKER)
        if children is None:
            marked = self._tree.get(f"{path}/{CATALOG_MARKER}") is not None
        elif marker is not None:
            if not marker.is_gone and (marker.item is None or not stat.S_ISREG(marker.item.mode)):
                raise BadSource(f"{path}/{CATALOG_MARKER} is not a file")
            marked = not marker.is_gone
        elif old is not None and not opaque:
            return  # nobody says anything of it
        else:
            marked = False
        is_nested = old is not None and self._tree.is_mountpoint(path)
        if is_nested and not marked and self._tree.get(f"{path}/{AUTOMATIC_MARKER}") is not None:
            return  # a server made it, and it ends when the server finds it small
        if marked != is_nested:
            (self._nested if marked else self._dissolved).append(path)

    def _remove(self, path: str, old: Entry) -> None:
        self._removes.append(Remove(path, recursive=old.is_directory, base=old))

    # -- entries

    def _put(self, path: str, item: Item, old: Entry | None) -> None:
        entry = self._entry(path, item)
        if old is None or not same_content(old, entry):
            self._puts.append(Put(path, entry, base=old))

    def _file(self, path: str, node: Node, old: Entry | None) -> None:
        if node.is_default and old is not None and not old.is_directory:
            return
        entry, chunks = self._file_entry(path, node)
        if old is not None:
            if old.is_directory:
                self._remove(path, old)
                old = None
            elif old.linkcount == 1 and self._is_same(path, old, entry, chunks):
                return
        self._puts.append(Put(path, entry, chunks, base=old))

    def _linked(self, group: int, members: list[tuple[str, Node, Entry | None]]) -> None:
        """Plan names of one file in one directory: all or none of them, as each one's link count is at stake."""
        if len(members) == 1:
            self._file(*members[0])
            return
        made = [(path, *self._file_entry(path, node), old) for path, node, old in members]
        first = made[0][3]
        if first is not None and all(
            old is not None
            and old.hardlinks == first.hardlinks
            and old.linkcount == len(members)
            and self._is_same(path, old, entry, chunks)
            for path, entry, chunks, old in made
        ):
            return
        for path, entry, chunks, old in made:
            if old is not None and old.is_directory:
                self._remove(path, old)
                old = None
            self._puts.append(Put(path, entry.with_links(1, group), chunks, base=old))

    def _is_same(self, path: str, old: Entry, new: Entry, chunks: Chunks) -> bool:
        return same_content(old, new) and (not chunks or self._tree.chunks(path) == chunks)

    def _file_entry(self, path: str, node: Node) -> tuple[Entry, Chunks]:
        assert node.item is not None
        stored = node.stored
        if stored is None:
            return self._entry(path, node.item), ()
        flags = FLAG_FILE | stored.flags | (FLAG_CHUNKED if stored.chunks else 0)
        return self._entry(path, node.item, stored.size, stored.hash, flags), stored.chunks

    def _entry(
        self, path: str, item: Item, size: int = 0, digest: bytes | None = None, flags: int = FLAG_FILE
    ) -> Entry:
        options, mode = self._options, item.mode
        seconds, fraction = divmod(item.mtime, 10**9)
        if stat.S_ISDIR(mode):
            size, flags = DIRECTORY_SIZE, FLAG_DIRECTORY
        elif stat.S_ISLNK(mode):
            size, flags = len(to_bytes(item.symlink)), FLAG_FILE | FLAG_LINK
        elif not stat.S_ISREG(mode):
            size, flags = item.rdev, FLAG_FILE | FLAG_SPECIAL
        return Entry(
            1,
            digest,
            size,
            mode,
            seconds,
            fraction if options.mtime_ns else None,
            flags,
            path.rpartition("/")[2],
            item.symlink,
            options.uids(item.uid),
            options.gids(item.gid),
            item.xattrs,
        )

    def _made(self, path: str) -> Item:
        """A directory that no source says anything of."""
        options = self._options
        return Item(path, stat.S_IFDIR | options.directory, *options.owner, options.now)
