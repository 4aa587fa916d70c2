"""Content-addressed put and get over any storage driver.

An object's name is the hash of its bytes. Everything that ``get*`` returns has been verified against its name;
only ``open`` hands out stored bytes unverified. Objects are immutable: putting one that exists changes nothing.

Source: ``data/<2 hex>/<rest>[-algorithm][suffix]``, the layout that every client and Stratum 1 reads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Protocol

from cvmfs_objstore.compression import PIECE, Compression
from cvmfs_objstore.errors import InvalidHash, ObjectCorrupt, ObjectTooLarge
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.storage import Storage

MAX_OBJECT_SIZE: Final = 1 << 30
"""The default limit, in bytes, on what :meth:`ObjectStore.get` reads into memory."""


class Sink(Protocol):
    """Where streamed content goes: any file that is open for writing, or a staged one."""

    def write(self, data: bytes, /) -> object: ...


class ObjectStore:
    """The objects of one repository. Thread-safe if the storage is; two threads may put the same object."""

    __slots__ = ("storage",)

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def has(self, name: ContentHash) -> bool:
        return self.storage.exists(name.path)

    def size(self, name: ContentHash) -> int:
        """Length of the stored form in bytes; raises :exc:`ObjectNotFound`."""
        return self.storage.size(name.path)

    # Writing

    def put(self, name: ContentHash, data: bytes | bytearray | memoryview) -> bool:
        """Store *data*, whose hash the caller has just computed as *name*: nothing is verified here.

        Returns False, and writes nothing, if the object existed. Durable once the storage is synced.
        """
        return self.storage.put(name.path, data)

    def add(
        self,
        data: bytes,
        algorithm: Algorithm,
        suffix: Suffix = Suffix.NONE,
        *,
        deflate: Callable[[bytes], bytes],
    ) -> ContentHash:
        """Compress *data* with *deflate*, hash the result, store it, and return its name."""
        stored = deflate(data)
        name = ContentHash.of(stored, algorithm, suffix)
        self.storage.put(name.path, stored)
        return name

    def delete(self, name: ContentHash) -> None:
        """Remove the object; no error if it does not exist."""
        self.storage.delete(name.path)

    # Reading

    def open(self, name: ContentHash) -> BinaryIO:
        """The stored bytes, not verified, as a seekable stream; raises :exc:`ObjectNotFound`."""
        return self.storage.open(name.path)

    def get(self, name: ContentHash, *, max_size: int = MAX_OBJECT_SIZE) -> bytes:
        """The stored bytes, verified.

        Raises :exc:`ObjectNotFound`; :exc:`ObjectTooLarge` if there are more than *max_size* of them;
        :exc:`ObjectCorrupt` if they do not have the hash of their name.
        """
        with self.open(name) as file:
            data = file.read(max_size + 1)
        if len(data) > max_size:
            raise ObjectTooLarge(f"{name} has more than {max_size} bytes")
        hasher = name.algorithm.new()
        hasher.update(data)
        _check(name, hasher.digest())
        return data

    def get_plain(
        self,
        name: ContentHash,
        *,
        max_size: int = MAX_OBJECT_SIZE,
        compression: Compression = Compression.ZLIB,
    ) -> bytes:
        """The content, verified and inflated, of at most *max_size* bytes.

        Raises as :meth:`get` does, and :exc:`ObjectCorrupt` also for bytes that match their name but do not
        inflate.
        """
        pieces: list[bytes] = []
        for piece in self._plain(name, max_size, compression):
            pieces.append(piece)
        return b"".join(pieces)

    def get_plain_to(
        self,
        name: ContentHash,
        file: Sink,
        *,
        max_size: int,
        compression: Compression = Compression.ZLIB,
    ) -> int:
        """As :meth:`get_plain`, but writes to *file*, in bounded memory; returns the plain size in bytes.

        The hash is known only at the end: if this raises, discard what *file* has received.
        """
        size = 0
        for piece in self._plain(name, max_size, compression):
            file.write(piece)
            size += len(piece)
        return size

    def verify(self, name: ContentHash) -> int:
        """Read the whole object and check its hash; returns its stored size in bytes.

        Raises :exc:`ObjectNotFound` and :exc:`ObjectCorrupt`.
        """
        hasher = name.algorithm.new()
        size = 0
        with self.open(name) as file:
            while data := file.read(PIECE):
                hasher.update(data)
                size += len(data)
        _check(name, hasher.digest())
        return size

    def list(self) -> Iterator[ContentHash]:
        """The names of all objects, in no order. Files below ``data/`` that are named otherwise are skipped."""
        for path in self.storage.list("data"):
            parts = path.split("/")
            if len(parts) == 3 and len(parts[1]) == 2:
                with contextlib.suppress(InvalidHash):
                    yield ContentHash.parse(parts[1] + parts[2])

    def _plain(self, name: ContentHash, max_size: int, compression: Compression) -> Iterator[bytes]:
        with self.open(name) as file:
            yield from plain_pieces(name, file, max_size=max_size, compression=compression)


def plain_pieces(name: ContentHash, file: BinaryIO, *, max_size: int, compression: Compression) -> Iterator[bytes]:
    """The content, inflated, of the object *name* whose stored bytes are in *file*; at most *max_size* bytes.

    The hash is known only at the end. Raises as :meth:`ObjectStore.get_plain` does.
    """
    hasher = name.algorithm.new()
    decoder = compression.decoder(max_size)
    try:
        while data := file.read(PIECE):
            hasher.update(data)
            yield from decoder.update(data)
        decoder.finish()
    except (ObjectCorrupt, ObjectTooLarge) as error:
        raise type(error)(f"{name}: {error}") from None
    _check(name, hasher.digest())


def _check(name: ContentHash, digest: bytes) -> None:
    if digest != name.digest:
        raise ObjectCorrupt(f"{name} has the content of {digest.hex()}")
