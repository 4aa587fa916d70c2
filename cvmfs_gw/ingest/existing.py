"""What is now where a source is to go, and how files are found that have not changed.

In a directory of which nothing has changed, files are compared as rows, all of them at once, and none becomes an
object. What comes of it is what :mod:`cvmfs_gw.ingest.gather` and :mod:`cvmfs_gw.ingest.plan` find one by one: the
content may be taken for the same, and all the rest of the entry is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.engine.balance import MARKER as AUTOMATIC_MARKER
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.ingest.contents import StoredContent
from cvmfs_gw.ingest.items import Item, Listing, Status
from cvmfs_gw.ingest.nodes import Node
from cvmfs_gw.ingest.ownership import SAME, IdMap
from cvmfs_objstore.formats.entry import (
    FLAG_CHUNKED,
    FLAG_DIRECTORY,
    FLAG_FILE,
    FLAG_HIDDEN,
    FLAG_LINK,
    NESTING_FLAGS,
    STORAGE_FLAGS,
    Chunks,
    Entry,
    path_key,
)

_LISTINGS: Final = 64
"""Directories whose entries are kept in memory."""
_CHUNKS: Final = "EXISTS (SELECT 1 FROM chunks c WHERE c.md5path_1 = k.md5path_1 AND c.md5path_2 = k.md5path_2)"
_IS_FILE: Final = (
    f"flags & ~{STORAGE_FLAGS | FLAG_CHUNKED | NESTING_FLAGS} = {FLAG_FILE} AND mode & 0xF000 = 0x8000"
    f" AND (NOT flags & {FLAG_CHUNKED} OR {_CHUNKS})"
)
_IS_LINK: Final = f"flags & ~{NESTING_FLAGS} = {FLAG_FILE | FLAG_LINK} AND mode & 0xF000 = 0xA000 AND hash IS NULL"
_IS_PLAIN: Final = (
    f"hardlinks & 0xFFFFFFFF = 1 AND ifnull(mtimens, 0) BETWEEN 0 AND 999999999 AND ({_IS_FILE} OR {_IS_LINK})"
)
# The columns of a Status. What may be there and no source has, an external file for one, is of no mode.
_STATUS: Final = (
    f"SELECT CAST(name AS BLOB), CASE WHEN {_IS_PLAIN} THEN mode END, uid, gid,"
    " mtime * 1000000000 + ifnull(mtimens, 0), size, CAST(symlink AS BLOB), xattr"
    " FROM catalog k WHERE parent_1 = ? AND parent_2 = ?"
    f" AND NOT flags & {FLAG_DIRECTORY | FLAG_HIDDEN} AND name != '{AUTOMATIC_MARKER}'"
)


class ExistingBelow:
    """What is below *target* in *tree*: the :class:`cvmfs_gw.ingest.gather.Existing` of a source that goes there.

    *tree* may be one that is being opened in another thread; whoever asks waits for it. *uids* and *gids* are those of
    the plan that is to be made.
    """

    def __init__(
        self, tree: CatalogTree | Future[CatalogTree], target: str, uids: IdMap = SAME, gids: IdMap = SAME
    ) -> None:
        self._tree, self.target = tree, target
        self.uids, self.gids = uids, gids
        self._listings: dict[str, dict[str, Entry]] = {}
        self._owners: dict[tuple[int, int], tuple[int, int] | None] = {}

    @property
    def tree(self) -> CatalogTree:
        """The tree, as soon as it is open. Raises what opening it raised."""
        return self._tree.result() if isinstance(self._tree, Future) else self._tree

    def ready(self) -> bool:
        """Whether the tree is open, or will never be."""
        return not isinstance(self._tree, Future) or self._tree.done()

    def get(self, path: str) -> Entry | None:
        """The entry at *path* within the target."""
        if not path:
            return self.tree.get(self.target)
        parent, _, name = path.rpartition("/")
        return self._listing(parent).get(name)

    def chunks(self, path: str) -> Chunks:
        """The chunks of the file at *path* within the target."""
        return self.tree.chunks(self.target + path)

    def _listing(self, directory: str) -> dict[str, Entry]:
        # Sources come directory by directory, and most directories of a new tree are not there at all.
        found = self._listings.get(directory)
        if found is None:
            parent, _, name = directory.rpartition("/")
            above = self._listings.get(parent) if directory else None
            # not by the listings of all directories above: a path may have two thousand
            entry = self.tree.get(self.target + directory) if above is None else above.get(name)
            there = self.tree.entries(self.target + directory) if entry is not None and entry.is_directory else []
            found = self._listings[directory] = {child.name: child for child in there}
            if len(self._listings) > _LISTINGS:
                del self._listings[next(iter(self._listings))]
        return found

    def listing(self, directory: str) -> Listing | None:
        """What is in *directory* and no directory itself; None for nothing."""
        path = self.target + directory
        rows = self.tree.node_of(path).catalog.connection.execute(_STATUS, path_key(path)).fetchall()
        return _Rows(self, rows) if rows else None

    def kept(self, directory: str) -> Kept:
        """The files of a *directory* of which nothing has changed."""
        return Kept(self, directory)

    def owner(self, uid: int, gid: int) -> tuple[int, int] | None:
        """Whom something of these becomes; None if it would be somebody else's yet if it went the same way again."""
        uids, gids = self.uids, self.gids
        to = uids(uid), gids(gid)
        return to if to == (uids(to[0]), gids(to[1])) else None


class _Rows:
    """See :class:`cvmfs_gw.ingest.items.Listing`."""

    def __init__(self, existing: ExistingBelow, rows: list[Status]) -> None:
        self._existing, self._rows = existing, rows

    def holds(self, found: Sequence[Status]) -> bool:
        if len(found) != len(self._rows):
            return False
        owners = {(status[2], status[3]) for status in found}
        becoming = {owner: self._existing.owner(*owner) for owner in owners}
        if any(owner != to for owner, to in becoming.items()):
            if None in becoming.values():
                return False
            found = [(*status[:2], *(becoming[status[2:4]] or ()), *status[4:]) for status in found]
        return {status[0]: status for status in found} == {row[0]: row for row in self._rows}


@dataclass(frozen=True, slots=True)
class Kept:
    """The files of *directory* within what is there: they are what they were, and are loaded if anybody must know."""

    existing: ExistingBelow
    directory: str

    def is_at(self, tree: CatalogTree, path: str, uids: IdMap, gids: IdMap) -> bool:
        """Whether a plan for *tree* finds all of them at *path* as they are to be."""
        there = self.existing
        return there.tree is tree and there.target + self.directory == path and (there.uids, there.gids) == (uids, gids)

    def load(self) -> dict[str, Node]:
        """The files, by name."""
        tree, path = self.existing.tree, self.existing.target + self.directory
        return {
            entry.name: self._node(entry, tree.chunks(f"{path}/{entry.name}") if entry.is_chunked else ())
            for entry in tree.entries(path)
            if not entry.flags & (FLAG_DIRECTORY | FLAG_HIDDEN) and entry.name != AUTOMATIC_MARKER
        }

    def _node(self, entry: Entry, chunks: Chunks) -> Node:
        mtime = entry.mtime * 10**9 + (entry.mtimens or 0)
        where = f"{self.directory}/{entry.name}"
        if entry.symlink:
            return Node(Item(where, entry.mode, entry.uid, entry.gid, mtime, symlink=entry.symlink, xattrs=entry.xattr))
        stored = StoredContent(entry.size, entry.flags & STORAGE_FLAGS, entry.hash, chunks)
        return Node(Item(where, entry.mode, entry.uid, entry.gid, mtime, entry.size, xattrs=entry.xattr), stored)
