"""What would fill the memory goes to a file without a name: files of directories that are done, and long lists.

The file goes with the last of those that have something in it, however the process ends.
"""

from __future__ import annotations

import itertools
import os
import pickle
import tempfile
import weakref
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from cvmfs_gw.ingest.contents import StoredContent
from cvmfs_gw.ingest.items import Item
from cvmfs_gw.ingest.nodes import Node
from cvmfs_objstore import posix
from cvmfs_objstore.formats.entry import Chunk

T = TypeVar("T")

_BATCH: Final = 1024


class SpillFile:
    """Bytes that are written once and read again. *folder* None: the system's folder for temporary files."""

    def __init__(self, folder: str | None = None) -> None:
        with tempfile.TemporaryFile(dir=folder, prefix="cvmfs-spill-", buffering=0) as file:
            self._file = os.dup(file.fileno())
        self._end = 0
        weakref.finalize(self, os.close, self._file)

    def add(self, data: bytes) -> tuple[int, int]:
        """Write *data*; returns where it is."""
        place = self._end, len(data)
        posix.write_all(self._file, memoryview(data))
        self._end += len(data)
        return place

    def read(self, place: tuple[int, int]) -> bytes:
        """What is at *place*. Raises ``OSError`` if it has gone."""
        at, left = place
        pieces = []
        while left:
            piece = os.pread(self._file, left, at)
            if not piece:
                raise OSError("a file of what did not fit into memory has become shorter")
            pieces.append(piece)
            at, left = at + len(piece), left - len(piece)
        return b"".join(pieces)


class Spilled(NamedTuple):
    """Files of the directory *path*: the :class:`cvmfs_gw.ingest.nodes.Rest` of its node."""

    file: SpillFile
    place: tuple[int, int]
    path: str

    def load(self) -> dict[str, Node]:
        return {name: _node(f"{self.path}/{name}", row) for name, row in pickle.loads(self.file.read(self.place))}


def can_spill(node: Node) -> bool:
    """Whether all that is known of a node can be written: it is a file, and no other name of anything."""
    return node.item is not None and node.at_hand is None and node.group is None and node.item.link is None


def spill(file: SpillFile, path: str, nodes: dict[str, Node]) -> Spilled:
    """Write *nodes* of the directory *path*, whose contents are all stored."""
    return Spilled(file, file.add(_packed([(name, _row(node)) for name, node in nodes.items()])), path)


def _packed(rows: Sequence[object]) -> bytes:
    # read by nobody but this process, from a file without a name
    return pickle.dumps(rows, pickle.HIGHEST_PROTOCOL)


def _row(node: Node) -> tuple[object, ...]:
    assert node.item is not None
    stored = node.stored
    content = stored and (stored.size, stored.flags, stored.hash, [tuple(chunk) for chunk in stored.chunks])
    return (*node.item[1:6], *node.item[7:10], node.is_default, content)


def _node(path: str, row: tuple[Any, ...]) -> Node:
    mode, uid, gid, mtime, size, symlink, rdev, xattrs, is_default, content = row
    item = Item(path, mode, uid, gid, mtime, size, None, symlink, rdev, xattrs)
    if not content:
        return Node(item, is_default=bool(is_default))
    size, flags, digest, chunks = content
    return Node(item, StoredContent(size, flags, digest, tuple(map(Chunk._make, chunks))), is_default=bool(is_default))


class LongList(Collection[T]):
    """A list that one can add to and run through, of which no more than *most* are in memory."""

    def __init__(self, most: int, folder: str | None = None) -> None:
        self._most, self._folder = most, folder
        self._last: list[T] = []
        self._file: SpillFile | None = None
        self._places: list[tuple[int, int]] = []
        self._written = 0

    def append(self, one: T) -> None:
        """Add *one* at the end."""
        self._last.append(one)
        if len(self._last) > self._most:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = SpillFile(self._folder)
        for at in range(0, len(self._last), _BATCH):
            self._places.append(self._file.add(_packed(self._last[at : at + _BATCH])))
        self._written += len(self._last)
        self._last = []

    def __contains__(self, one: object) -> bool:
        return any(one == other for other in self)

    def __len__(self) -> int:
        return self._written + len(self._last)

    def __iter__(self) -> Iterator[T]:
        for place in self._places:
            assert self._file is not None
            yield from pickle.loads(self._file.read(place))
        yield from self._last


class Chained(Collection[Any]):
    """Several collections, one after the other."""

    def __init__(self, *parts: Collection[Any]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain(*self._parts)

    def __contains__(self, one: object) -> bool:
        return any(one == other for other in self)
