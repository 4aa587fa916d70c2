"""File contents for a publish: chunked, compressed, hashed, and kept locally until they are uploaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from cvmfs_gw.engine.sources import StoredContent
from cvmfs_objstore.compression import PIECE, Compression
from cvmfs_objstore.formats.entry import Chunk, storage_flags
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.objects import ObjectStore

CHUNK_SIZE: Final = 8 << 20
"""Length of a chunk in bytes; the average of what other publishers cut."""
CHUNKED_FROM: Final = 16 << 20
"""Files longer than this are chunked."""


class LocalContent:
    """Stores the content of files in *objects*, with memory bounded by one read."""

    def __init__(self, objects: ObjectStore, algorithm: Algorithm, compression: Compression) -> None:
        self._objects, self._algorithm, self._compression = objects, algorithm, compression

    def store(self, path: str, size: int) -> StoredContent:
        """See :class:`cvmfs_gw.engine.sources.ContentStore`."""
        flags = storage_flags(self._algorithm, self._compression)
        with open(path, "rb") as file:
            if size <= CHUNKED_FROM:
                name, length = self._store(_pieces(file, -1), Suffix.NONE)
                return StoredContent(length, flags, name.digest, ())
            chunks: list[Chunk] = []
            offset = 0
            while True:
                name, length = self._store(_pieces(file, CHUNK_SIZE), Suffix.CHUNK)
                if not length:
                    break
                chunks.append(Chunk(offset, length, name.digest))
                offset += length
            if not chunks:  # it was emptied meanwhile, and a file without chunks needs a hash
                name, _ = self._store(iter(()), Suffix.NONE)
                return StoredContent(0, flags, name.digest, ())
        return StoredContent(offset, flags, None, tuple(chunks))

    def _store(self, pieces: Iterator[bytes], suffix: Suffix) -> tuple[ContentHash, int]:
        hasher, encoder, size = self._algorithm.new(), self._compression.encoder(), 0
        with self._objects.storage.stage() as staged:
            for piece in pieces:
                size += len(piece)
                stored = encoder.update(piece)
                hasher.update(stored)
                staged.write(stored)
            stored = encoder.finish()
            hasher.update(stored)
            staged.write(stored)
            name = ContentHash(hasher.digest(), self._algorithm, suffix)
            if size or suffix is Suffix.NONE:
                staged.publish(name.path)
        return name, size


def _pieces(file: BinaryIO, limit: int) -> Iterator[bytes]:
    """The next *limit* bytes of *file* (-1: all) in pieces."""
    while limit:
        piece = file.read(PIECE if limit < 0 else min(PIECE, limit))
        if not piece:
            return
        if limit > 0:
            limit -= len(piece)
        yield piece
