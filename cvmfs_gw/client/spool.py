"""New objects on their way to a gateway, appended to one unnamed temporary file.

A file for each of 100,000 small objects would cost more than compressing them. Adjacent objects are read and sent
together. Nothing is left behind, however the process ends.
"""

from __future__ import annotations

import functools
import io
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import BinaryIO, Final

from cvmfs_gw.client.places import Place, Places
from cvmfs_objstore import posix
from cvmfs_objstore.errors import ObjectNotFound
from cvmfs_objstore.formats.objectpack import PackHeader, PackItem
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix

_RUN: Final = 1 << 20
_DIGEST_END: Final = len("data/00/") + 38


class Spool:
    """Objects by the path that they have in a storage. Thread-safe; as a context manager it frees its room.

    *folder* is where the file lies (None: the system's folder for temporary files).
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._places = Places(folder)
        self._files: list[BinaryIO] = []
        self._main = self._new_file()
        self._end = 0
        self.total = 0
        """Bytes of all objects."""

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything."""
        for file in self._files:
            file.close()
        self._files.clear()
        self._places.close()

    def __len__(self) -> int:
        return len(self._places)

    def _new_file(self) -> int:
        file = tempfile.TemporaryFile(dir=self._folder, prefix="cvmfs-publish-", buffering=0)  # noqa: SIM115
        self._files.append(file)
        return file.fileno()

    # -- writing

    def put(self, path: str, data: bytes | bytearray | memoryview, /) -> bool:
        """Add an object; returns False if it was there. It may be read once this has returned in every thread."""
        with self._lock:
            if self._places.get(path) is not None:
                return False
            offset = self._end
            self._end += len(data)
            self._places.add(path, Place(self._main, offset, len(data)))
            self.total += len(data)
        view = memoryview(data)
        while view:
            written = os.pwrite(self._main, view, offset)
            view, offset = view[written:], offset + written
        return True

    def stage(self) -> SpooledObject:
        """A new object whose name is known only at its end."""
        with self._lock:
            return SpooledObject(self, self._new_file())

    def adopt(self, path: str, file: int) -> None:
        """Add an object that has the open *file* for itself."""
        size = os.fstat(file).st_size
        with self._lock:
            if self._places.get(path) is None:
                self._places.add(path, Place(file, 0, size))
                self.total += size

    # -- reading

    def exists(self, path: str) -> bool:
        with self._lock:
            return self._places.get(path) is not None

    def size(self, path: str) -> int:
        return self._place(path).size

    def open(self, path: str) -> BinaryIO:
        place = self._place(path)
        return io.BytesIO(b"".join(_read(place.file, place.offset, place.size)))

    def _place(self, path: str) -> Place:
        with self._lock:
            place = self._places.get(path)
        if place is None:
            raise ObjectNotFound(path)
        return place

    def items(self) -> Iterator[PackItem]:
        """All objects that are there now, in the order in which they were added."""
        return self._items(len(self._places))

    def _items(self, number: int) -> Iterator[PackItem]:
        at = 0
        while at < number:
            with self._lock:
                some = self._places.some(at)[: number - at]
            yield from (PackItem(name_of(path), place.size) for path, place in some)
            at += len(some)

    def pieces(self, items: Iterable[PackItem]) -> Iterator[bytes]:
        """The bytes of *items*, one after the other, neighbours at once."""
        file = start = length = 0
        for item in items:
            place = self._place(item.name.path)
            if place.file == file and place.offset == start + length and length + place.size <= _RUN:
                length += place.size
                continue
            yield from _read(file, start, length)
            file, start, length = place
        yield from _read(file, start, length)


class SpooledObject:
    """See :meth:`Spool.stage`."""

    def __init__(self, spool: Spool, file: int) -> None:
        self._spool, self._file = spool, file

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        posix.write_all(self._file, memoryview(data))
        return len(data)

    def publish(self, path: str) -> None:
        """Add it to the spool."""
        self._spool.adopt(path, self._file)

    def discard(self) -> None:
        """Nothing to do: what was not added goes with the spool."""

    def __enter__(self) -> SpooledObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class SpoolPack:
    """Some objects of a spool as an object pack."""

    def __init__(self, spool: Spool, items: Sequence[PackItem]) -> None:
        self._spool = spool
        self.items = tuple(items)
        self.size = sum(item.size for item in items)

    def __len__(self) -> int:
        return len(self.items)

    def header(self) -> bytes:
        return PackHeader(self.items, self.size).serialize()

    def stream(self) -> Iterator[bytes]:
        """The header, then the objects' bytes, in pieces."""
        yield self.header()
        yield from self._spool.pieces(self.items)


def name_of(path: str) -> ContentHash:
    """The name of the object that lies at *path* of a storage."""
    # asked for each of 100,000 objects, and all that differs is the digest
    algorithm, suffix = _kind(path[_DIGEST_END:])
    return ContentHash(bytes.fromhex(path[5:7] + path[8:_DIGEST_END]), algorithm, suffix)


@functools.cache
def _kind(tail: str) -> tuple[Algorithm, Suffix]:
    """What the end of a path says, behind the digest."""
    name = ContentHash.parse("0" * 40 + tail)
    return name.algorithm, name.suffix


def _read(file: int, offset: int, size: int) -> Iterator[bytes]:
    while size > 0:
        piece = os.pread(file, min(size, _RUN), offset)
        if not piece:
            raise OSError("the file of new objects has become shorter")
        yield piece
        offset, size = offset + len(piece), size - len(piece)
