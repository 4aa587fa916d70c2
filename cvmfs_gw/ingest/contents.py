"""File contents become objects: cut into chunks, compressed, hashed and stored, on all cores.

Files that are no longer than the shortest chunk are read whole: tiny ones are handed to the workers in batches, as
handing over costs more than their work. Longer ones are read and cut by the caller's thread, which is much faster than
compressing, and their chunks go to the workers. Whatever is read and not yet stored has to fit into :data:`IN_FLIGHT`
bytes, beside the one chunk that is being read.

Names do not depend on the order in which the work is done, nor on how many do it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol

from cvmfs_gw.ingest.items import Content, LocalFile
from cvmfs_gw.ingest.reading import pieces_of, read_file
from cvmfs_gw.ingest.workers import Workers
from cvmfs_objstore.chunksizes import DEFAULT_SIZES, ChunkSizes
from cvmfs_objstore.compression import Compression, Encoder, FastDeflater, deflate_fast
from cvmfs_objstore.formats.entry import Chunk, Chunks, storage_flags
from cvmfs_objstore.hashes import Algorithm, Suffix, object_path
from cvmfs_objstore.storage import Staged

if TYPE_CHECKING:
    from cvmfs_objstore.chunking import Chunker

IN_FLIGHT: Final = 96 << 20
"""Bytes of content that may be in memory at once."""
WHOLE: Final = 8 << 20
"""Files up to this many bytes are read whole, unless chunks may be shorter."""
BUFFERED: Final = 64 << 20
"""Where chunks may be longer than this many bytes, they are compressed one after the other as they are read."""

_BATCH_FILES: Final = 128
_BATCH_BYTES: Final = 1 << 20


class Sink(Protocol):
    """Where objects go: any :class:`cvmfs_objstore.storage.Storage`, or less. Used from several threads."""

    def put(self, path: str, data: bytes, /) -> bool:
        """Store an object; returns False if it was there."""

    def stage(self) -> Staged:
        """A new object whose name is known only at its end."""


@dataclass(frozen=True, slots=True)
class ContentOptions:
    """How contents are stored. *chunks* None: no file is cut.

    *fast*: compressed by an encoder that other tools do not use, so that they give other names to the same contents.
    """

    algorithm: Algorithm = Algorithm.SHA1
    compression: Compression = Compression.ZLIB
    chunks: ChunkSizes | None = DEFAULT_SIZES
    fast: bool = False

    def encode(self, data: bytes) -> bytes:
        """The stored form of one object."""
        if self.fast and self.compression is Compression.ZLIB:
            return deflate_fast(data)
        return self.compression.encode(data)

    def encoder(self) -> Encoder:
        """What makes the stored form of one object."""
        if self.fast and self.compression is Compression.ZLIB:
            return FastDeflater()
        return self.compression.encoder()


class StoredContent:
    """What became of a file's content: its size in bytes, storage flags, and either a hash or chunks.

    Valid once :meth:`Contents.finish` has returned; the size of a stream, once it has been read.
    """

    __slots__ = ("chunks", "flags", "hash", "size")

    def __init__(self, size: int = 0, flags: int = 0, digest: bytes | None = None, chunks: Chunks = ()) -> None:
        self.size, self.flags, self.hash, self.chunks = size, flags, digest, chunks


_NOTHING: Final[frozenset[str]] = frozenset()
_Small = tuple[StoredContent, "bytes | LocalFile", int, frozenset[str]]


class Contents:
    """Stores contents in *sink*. For one thread; as a context manager it ends its workers.

    *threads* is the number of workers (None: one for each core), *in_flight* how many bytes may wait for them.
    *progress* is told how many bytes of content were taken since it was told last, in the caller's thread.
    """

    def __init__(
        self,
        sink: Sink,
        options: ContentOptions | None = None,
        *,
        threads: int | None = None,
        in_flight: int = IN_FLIGHT,
        progress: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.options = options or ContentOptions()
        self._sink, self._progress = sink, progress
        self._flags = storage_flags(self.options.algorithm, self.options.compression)
        self._tag = self.options.algorithm.tag
        sizes = self.options.chunks
        self._whole = min(sizes.smallest, WHOLE) if sizes else WHOLE
        self._small: list[_Small] = []
        self._small_bytes = 0
        self._large: list[tuple[StoredContent, list[_Part]]] = []
        self._workers = Workers(threads or len(os.sched_getaffinity(0)), in_flight)

    def __enter__(self) -> Contents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; what they have not begun is not done."""
        self._workers.close()

    def add(self, content: Content, size: int, known: frozenset[str] = _NOTHING) -> StoredContent:
        """Store *content* of *size* bytes, but no object whose path is in *known*.

        Raises ``OSError``, also for what was added before. A stream has been read when this returns. Of a file that
        grew meanwhile only *size* bytes are taken, of one that shrank what there is.
        """
        stored = StoredContent(0, self._flags)
        if size > self._whole:
            self._add_large(stored, pieces_of(content, size), known)
        else:
            if not isinstance(content, (bytes, LocalFile)):
                content = b"".join(pieces_of(content, size))
                stored.size = len(content)
            self._small.append((stored, content, size, known))
            self._small_bytes += size
            if len(self._small) >= _BATCH_FILES or self._small_bytes >= _BATCH_BYTES:
                self._hand_over()
            self._progress(size)
        return stored

    def finish(self) -> None:
        """Wait until everything that was added is stored. Raises ``OSError``."""
        self._hand_over()
        self._workers.wait()
        for stored, parts in self._large:
            if len(parts) == 1:
                stored.hash = parts[0].digest
            else:
                stored.chunks = tuple(Chunk(part.offset, part.size, part.digest) for part in parts)
        self._large.clear()

    # -- short files

    def _hand_over(self) -> None:
        batch, size = self._small, self._small_bytes
        if batch:
            self._small, self._small_bytes = [], 0
            self._workers.submit(lambda: self._store_batch(batch), size)

    def _store_batch(self, batch: list[_Small]) -> None:
        for stored, content, size, known in batch:
            data = content if isinstance(content, bytes) else read_file(content.path, size)
            stored.size = len(data)
            stored.hash = self._store(data, Suffix.NONE, known)

    def _store(self, data: bytes, suffix: Suffix, known: frozenset[str]) -> bytes:
        """Store one object and return its digest."""
        data = self.options.encode(data)
        hasher = self.options.algorithm.new()
        hasher.update(data)
        digest = hasher.digest()
        path = object_path(digest, self._tag, suffix)
        if path not in known:
            self._sink.put(path, data)
        return digest

    # -- long files

    def _add_large(self, stored: StoredContent, pieces: Iterator[bytes], known: frozenset[str]) -> None:
        sizes = self.options.chunks
        parts: list[_Part] = []
        self._large.append((stored, parts))
        part = _Part(0)
        parts.append(part)
        writer = self._writer(part, known)
        end_is_cut = False
        try:
            for segment, is_cut in _segments(pieces, _chunker(sizes) if sizes else None):
                # A cut at the end of the file cuts off nothing, so each one waits for what follows.
                if end_is_cut and segment:
                    writer.finish(Suffix.CHUNK)
                    part = _Part(part.offset + part.size)
                    parts.append(part)
                    writer = self._writer(part, known)
                    end_is_cut = False
                writer.write(segment)
                end_is_cut |= is_cut
                self._progress(len(segment))
            writer.finish(Suffix.CHUNK if len(parts) > 1 else Suffix.NONE)
            stored.size = part.offset + part.size
        finally:
            writer.discard()

    def _writer(self, part: _Part, known: frozenset[str]) -> _Buffered | _Streamed:
        sizes = self.options.chunks
        if sizes is None or sizes.largest > BUFFERED:
            return _Streamed(part, known, self.options, self._sink.stage())

        def store(data: list[bytes], suffix: Suffix) -> None:
            def work() -> None:
                part.digest = self._store(b"".join(data), suffix, known)

            self._workers.submit(work, part.size)

        return _Buffered(part, store)


class _Part:
    """One chunk of a long file, or all of it. The digest comes when it is stored."""

    __slots__ = ("digest", "offset", "size")

    def __init__(self, offset: int) -> None:
        self.offset, self.size, self.digest = offset, 0, b""


class _Buffered:
    """Collects a part in memory and then hands it to the workers."""

    __slots__ = ("_part", "_pieces", "_store")

    def __init__(self, part: _Part, store: Callable[[list[bytes], Suffix], None]) -> None:
        self._part, self._store = part, store
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._part.size += len(piece)

    def finish(self, suffix: Suffix) -> None:
        self._store(self._pieces, suffix)

    def discard(self) -> None:
        self._pieces = []


class _Streamed:
    """Stores a part of any length as it comes."""

    __slots__ = ("_encoder", "_hasher", "_known", "_options", "_part", "_staged")

    def __init__(self, part: _Part, known: frozenset[str], options: ContentOptions, staged: Staged) -> None:
        self._part, self._known, self._options, self._staged = part, known, options, staged
        self._encoder = options.encoder()
        self._hasher = options.algorithm.new()

    def write(self, piece: bytes) -> None:
        self._part.size += len(piece)
        self._add(self._encoder.update(piece))

    def _add(self, data: bytes) -> None:
        if data:
            self._hasher.update(data)
            self._staged.write(data)

    def finish(self, suffix: Suffix) -> None:
        self._add(self._encoder.finish())
        digest = self._part.digest = self._hasher.digest()
        path = object_path(digest, self._options.algorithm.tag, suffix)
        if path not in self._known:
            self._staged.publish(path)

    def discard(self) -> None:
        self._staged.discard()


def _chunker(sizes: ChunkSizes) -> Chunker:
    # Its library takes longer to load than looking through 50,000 files in which nothing has changed.
    from cvmfs_objstore.chunking import Chunker

    return Chunker(sizes)


def _segments(pieces: Iterator[bytes], chunker: Chunker | None) -> Iterator[tuple[bytes, bool]]:
    """The bytes of *pieces*, each with whether there is a cut behind it."""
    offset = 0
    for piece in pieces:
        at = 0
        for cut in chunker.feed(piece) if chunker else ():
            yield piece[at : cut - offset], True
            at = cut - offset
        if at < len(piece):
            yield piece[at:] if at else piece, False
        offset += len(piece)
