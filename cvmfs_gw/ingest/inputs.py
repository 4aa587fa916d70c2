"""Archives as plain bytes: from a file or a pipe, compressed or not, read forward only."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

import zstandard
from isal import igzip, isal_zlib

from cvmfs_gw.ingest.errors import BadArchive

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER: Final = 1 << 20
"""Bytes that are read at once."""
MAX_TRAILING: Final = 1 << 30
"""Most bytes that may follow the end of an archive."""

_LONGEST_MAGIC: Final = 6
_ISAL_ERROR = cast(type[Exception], isal_zlib.error)
_DAMAGED: Final = (EOFError, gzip.BadGzipFile, _ISAL_ERROR, zlib.error, lzma.LZMAError, zstandard.ZstdError)


class Readable(Protocol):
    """A file that is open for reading, a pipe, or anything else that gives bytes."""

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes; none only at the end."""


def plain(file: Readable) -> Readable:
    """What *file* holds after gzip, bzip2, xz or zstd, told by its first bytes; the file itself if it is none."""
    head = b""
    while len(head) < _LONGEST_MAGIC and (piece := file.read(_LONGEST_MAGIC - len(head))):
        head += piece
    source = cast(BinaryIO, Rewound(head, file))
    if head.startswith(b"\x1f\x8b"):
        return cast(Readable, igzip.IGzipFile(fileobj=source, mode="rb"))  # type: ignore[no-untyped-call]
    if head.startswith(b"BZh"):
        return cast(Readable, bz2.BZ2File(source))
    if head.startswith(b"\xfd7zXZ\0"):
        return cast(Readable, lzma.LZMAFile(source))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor(max_window_size=1 << 30).stream_reader(source, read_across_frames=True)
    return cast(Readable, source)


class Rewound(io.RawIOBase):
    """A file whose first bytes were looked at."""

    def __init__(self, head: bytes, file: Readable) -> None:
        self._head, self._file = head, file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        size = BUFFER if size < 0 else size
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._file.read(size)

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class Input:
    """Exact numbers of bytes of a :class:`Readable`. Raises :exc:`BadArchive` where they are not there."""

    __slots__ = ("_at", "_buffer", "_read")

    def __init__(self, file: Readable) -> None:
        self._read = file.read
        self._buffer = b""
        self._at = 0

    def exactly(self, size: int) -> bytes:
        """The next *size* bytes."""
        end = self._at + size
        if end <= len(self._buffer):
            data = self._buffer[self._at : end]
            self._at = end
            return data
        return b"".join(self._pieces(size))

    def some(self, size: int) -> bytes:
        """The next bytes, at most *size* but at least one."""
        if self._at == len(self._buffer):
            self._fill()
        data = self._buffer[self._at : self._at + size]
        if not data:
            raise BadArchive("the archive ends early")
        self._at += len(data)
        return data

    def skip(self, size: int) -> None:
        """Pass over *size* bytes."""
        if self._at + size <= len(self._buffer):
            self._at += size
            return
        for _ in self._pieces(size):
            pass

    def finish(self) -> None:
        """Read whatever is left, so that a checksum at the end is looked at. Raises if that is too much."""
        left = MAX_TRAILING
        while not self.at_end():
            left -= len(self.some(BUFFER))
            if left < 0:
                raise BadArchive("too much behind the end of the archive")

    def at_end(self) -> bool:
        """Whether nothing follows."""
        if self._at == len(self._buffer):
            self._fill()
        return not self._buffer

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.some(size)
            yield piece
            size -= len(piece)

    def _fill(self) -> None:
        with _damage_is_bad_archive():
            self._buffer = self._read(BUFFER)
        self._at = 0


class SeekableInput(Input):
    """An :class:`Input` of a file, from its beginning, that knows where it is and skips without reading."""

    __slots__ = ("_file",)

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        super().__init__(file)
        self._file = file

    @property
    def offset(self) -> int:
        """Where the next byte is."""
        return self._file.tell() - (len(self._buffer) - self._at)

    def skip(self, size: int) -> None:
        """Pass over *size* bytes, whether they are there or not."""
        if self._at + size <= len(self._buffer):
            self._at += size
            return
        self._file.seek(self.offset + size)
        self._buffer, self._at = b"", 0


@contextmanager
def _damage_is_bad_archive() -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise BadArchive(f"the archive is damaged or cut off: {error}") from error
    except OSError as error:
        if error.errno is None:  # what bzip2 and gzip say of damaged data; the system's own errors have a number
            raise BadArchive(f"the archive is damaged: {error}") from error
        raise
