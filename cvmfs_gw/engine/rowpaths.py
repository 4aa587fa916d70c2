"""The paths of a catalog's rows, which contain only a name and the keys of path and parent.

The structure of a catalog is not trusted: the name of a row must hash to its key, and its parents must be directories
of the same catalog.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from cvmfs_gw.engine.errors import MergeError
from cvmfs_gw.engine.newfiles import NameRow
from cvmfs_objstore.formats.catalog import Catalog
from cvmfs_objstore.formats.database import to_bytes, to_str
from cvmfs_objstore.formats.entry import PathKey, path_key

_BAD_NAMES: Final = frozenset((b"", b".", b".."))
_MAX_DEPTH: Final = 4096
_BATCH: Final = 1000
_KEY: Final = struct.Struct("<qq")


class RowPaths:
    """Paths of the rows of one catalog, from their keys and names, checked."""

    def __init__(self, catalog: Catalog, mountpoint: str) -> None:
        self._catalog = catalog
        self._known: dict[PathKey, str] = {path_key(mountpoint): mountpoint}

    def child(self, key: PathKey, parent: PathKey, name: str) -> str:
        """The path of a row; raises :exc:`MergeError` if key, name and parents are inconsistent."""
        known = self._known.get(key)
        if known is not None:
            return known
        path = f"{self.directory(parent)}/{name}"
        if _is_bad(to_bytes(name)) or path_key(path) != key:
            raise _misplaced(path)
        return path

    def check(self, rows: Iterable[NameRow]) -> None:
        """Check many rows at once, as :meth:`child` does; raises :exc:`MergeError`."""
        pack, known = _KEY.pack, (0, 0)
        start = hashlib.md5(usedforsecurity=False).copy
        for batch in _batches(rows):
            names = [row[4] for row in batch]
            joined = b"".join(names)
            doubtful = b"/" in joined or b"\0" in joined or not _BAD_NAMES.isdisjoint(names)
            for one, two, parent_1, parent_2, name in batch:
                # Rows of the same directory are mostly adjacent.
                if known != (parent_1, parent_2):
                    known = parent_1, parent_2
                    directory = self.directory(known)
                    start = hashlib.md5(to_bytes(directory) + b"/", usedforsecurity=False).copy
                path = start()
                path.update(name)
                if path.digest() != pack(one, two) or (doubtful and _is_bad(name)):
                    raise _misplaced(f"{self.directory(known)}/{to_str(name)}")

    def directory(self, key: PathKey) -> str:
        """The path of the directory of that key; raises :exc:`MergeError` if there is none."""
        known = self._known.get(key)
        if known is None:
            # Walk up to the nearest known ancestor, then build the paths on the way down.
            climbed: list[tuple[PathKey, str]] = []
            at = key
            while at not in self._known:
                row = self._catalog.connection.execute(
                    "SELECT parent_1, parent_2, ifnull(CAST(name AS TEXT), ''), flags & 1 FROM catalog"
                    " WHERE md5path_1 = ? AND md5path_2 = ?",
                    at,
                ).fetchone()
                if row is None or not row[3] or len(climbed) > _MAX_DEPTH:
                    raise MergeError("the catalog has an entry whose parent is missing or no directory")
                climbed.append((at, row[2]))
                at = (row[0], row[1])
            for below, name in reversed(climbed):
                self._known[below] = self.child(below, at, name)
                at = below
            known = self._known[key]
        return known


def _batches(rows: Iterable[NameRow]) -> Iterator[list[NameRow]]:
    remaining = iter(rows)
    while batch := list(itertools.islice(remaining, _BATCH)):
        yield batch


def _is_bad(name: bytes) -> bool:
    return name in _BAD_NAMES or b"/" in name or b"\0" in name


def _misplaced(path: str) -> MergeError:
    return MergeError(f"the catalog's row for {path!r} is not where its name belongs")
