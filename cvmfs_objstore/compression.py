"""The codecs of stored objects: zlib, or none.

An object's name is the hash of its *compressed* bytes, so how it is compressed is part of its identity:

* File contents, certificates and meta info use **stock zlib, level 6**. Every other tool does too, so equal
  files get equal names, and a Stratum 1 that recompresses a certificate arrives at the same name.
* Catalogs and tag databases are never deduplicated and never recompressed, so they may use any encoder whose
  output an ordinary zlib inflates: :func:`deflate_fast` is about ten times faster at nearly the same size, and
  :mod:`cvmfs_objstore.piecewise` reuses the compressed form of unchanged parts.

Everything is inflated by zlib-ng, which rejects exactly what zlib rejects. igzip is as fast but too lenient: it accepts
streams with back-references beyond their start, which zlib, and hence every client, rejects.

Source: ``CVMFS_COMPRESSION_ALGORITHM``; bits 11 to 13 of a catalog entry's flags.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import BinaryIO, Final, Protocol, cast

from isal import isal_zlib
from zlib_ng import zlib_ng

from cvmfs_objstore.errors import FormatError, ObjectCorrupt, ObjectTooLarge

PIECE: Final = 256 * 1024
"""Streaming functions read, and hand on, at most this many bytes at a time."""

STOCK_LEVEL: Final = 6
"""The zlib level whose output other tools name objects by."""

# Measured on a catalog of 60,000 entries (8.8 MB): zlib 6 takes 230 ms for 4.67 MB; igzip level 0 12 ms for
# 5.77 MB, level 1 13 ms for 4.89 MB, level 2 20 ms for 4.92 MB, level 3 30 ms for 4.84 MB.
FAST_LEVEL: Final = 1

STOCK_ZLIB: Final = "ng" not in zlib.ZLIB_RUNTIME_VERSION
"""False where Python is linked with zlib-ng, whose streams are valid but differ, so that objects get other names."""

_INFLATE_ERROR: Final = cast(type[Exception], zlib_ng.error)  # its type stub wrongly declares an instance

Bytes = bytes | bytearray | memoryview


class Encoder(Protocol):
    """Plain bytes in, stored bytes out."""

    def update(self, data: Bytes, /) -> bytes:
        """The next bytes of the stored form; often none yet."""

    def finish(self) -> bytes:
        """The rest of the stored form. Ends the encoder."""


class Decoder(Protocol):
    """Stored bytes in, plain bytes out, up to a maximum plain size."""

    def update(self, data: Bytes, /) -> Iterator[bytes]:
        """Plain pieces of at most :data:`PIECE` bytes. Exhaust the iterator before the next call.

        Raises :exc:`ObjectCorrupt` and :exc:`ObjectTooLarge`.
        """

    def finish(self) -> None:
        """Mark the end of the input; raises :exc:`ObjectCorrupt` if the stored form is incomplete."""


class Compression(IntEnum):
    """Codecs, by the number that catalogs store in three bits of an entry's flags."""

    ZLIB = 0
    NONE = 1

    @property
    def config_name(self) -> str:
        """The name in ``CVMFS_COMPRESSION_ALGORITHM``."""
        return "default" if self is Compression.ZLIB else "none"

    @classmethod
    def from_config(cls, name: str) -> Compression:
        """The codec that ``CVMFS_COMPRESSION_ALGORITHM=name`` asks for; raises :exc:`FormatError`."""
        try:
            return _CONFIG_NAMES[name]
        except KeyError:
            raise FormatError(f"unknown compression algorithm {name!r}") from None

    def encode(self, data: bytes) -> bytes:
        """The stored form of *data*, as other tools make it."""
        return deflate(data) if self is Compression.ZLIB else data

    def decode(self, data: bytes, max_size: int) -> bytes:
        """The plain form of *data*: at most *max_size* bytes, else :exc:`ObjectTooLarge`."""
        if self is Compression.ZLIB:
            return inflate(data, max_size)
        if len(data) > max_size:
            raise ObjectTooLarge(f"more than {max_size} bytes")
        return data

    def encoder(self) -> Encoder:
        """The same as :meth:`encode`, piece by piece."""
        return Deflater() if self is Compression.ZLIB else _Copy()

    def decoder(self, max_size: int) -> Decoder:
        """The same as :meth:`decode`, piece by piece."""
        return Inflater(max_size) if self is Compression.ZLIB else _BoundedCopy(max_size)


_CONFIG_NAMES: Final = {
    "default": Compression.ZLIB,
    "zlib": Compression.ZLIB,
    "none": Compression.NONE,
}


def deflate(data: Bytes) -> bytes:
    """Compress with stock zlib, as every other tool does: for file contents, certificates and meta info."""
    return zlib.compress(data, STOCK_LEVEL)


def deflate_fast(data: Bytes) -> bytes:
    """Compress quickly, to a zlib stream that differs from stock zlib's: for tag databases, and contents on request."""
    return isal_zlib.compress(data, FAST_LEVEL)


def inflate(data: Bytes, max_size: int) -> bytes:
    """The plain form of one whole zlib stream of at most *max_size* plain bytes.

    Raises :exc:`ObjectTooLarge` after inflating no more than *max_size* + 1 bytes; :exc:`ObjectCorrupt` for an
    invalid or truncated stream and for trailing bytes.
    """
    if max_size < 0:
        raise ValueError("max_size is negative")
    engine = zlib_ng.decompressobj()
    try:
        plain = engine.decompress(data, max_size + 1)
    except _INFLATE_ERROR as error:
        raise ObjectCorrupt(f"not a zlib stream: {error}") from None
    if len(plain) > max_size:
        raise ObjectTooLarge(f"inflates to more than {max_size} bytes")
    _check_end(engine.eof, engine.unused_data)
    return plain


def inflate_stream(source: BinaryIO, write: Callable[[bytes], object], max_size: int) -> int:
    """Inflate all of *source* into *write* in bounded memory; returns the plain size in bytes.

    Raises as :func:`inflate` does, but *write* may have got a good part of the content by then.
    """
    inflater = Inflater(max_size)
    while data := source.read(PIECE):
        for piece in inflater.update(data):
            write(piece)
    inflater.finish()
    return inflater.size


class Deflater:
    """:func:`deflate` piece by piece: the output does not depend on how the input is split."""

    __slots__ = ("_engine",)

    def __init__(self) -> None:
        self._engine = zlib.compressobj(STOCK_LEVEL)

    def update(self, data: Bytes, /) -> bytes:
        return self._engine.compress(data)

    def finish(self) -> bytes:
        return self._engine.flush()


class FastDeflater:
    """:func:`deflate_fast` piece by piece; the output depends on how the input is split."""

    __slots__ = ("_engine",)

    def __init__(self) -> None:
        self._engine = isal_zlib.compressobj(FAST_LEVEL)

    def update(self, data: Bytes, /) -> bytes:
        return bytes(self._engine.compress(data))

    def finish(self) -> bytes:
        return bytes(self._engine.flush())


class Inflater:
    """:func:`inflate` piece by piece, in bounded memory. ``size`` counts the plain bytes so far."""

    __slots__ = ("_engine", "_max_size", "size")

    def __init__(self, max_size: int) -> None:
        if max_size < 0:
            raise ValueError("max_size is negative")
        self._engine = zlib_ng.decompressobj()
        self._max_size = max_size
        self.size = 0

    def update(self, data: Bytes, /) -> Iterator[bytes]:
        if not data:
            return
        if self._engine.eof:
            raise ObjectCorrupt("bytes behind the end of the zlib stream")
        rest: Bytes = data
        while True:
            # One byte more than allowed, to tell "too large" from "exactly the limit". Never 0, which zlib
            # takes for "no limit".
            room = min(PIECE, self._max_size - self.size + 1)
            try:
                piece = self._engine.decompress(rest, room)
            except _INFLATE_ERROR as error:
                raise ObjectCorrupt(f"not a zlib stream: {error}") from None
            self.size += len(piece)
            if self.size > self._max_size:
                raise ObjectTooLarge(f"inflates to more than {self._max_size} bytes")
            if piece:
                yield piece
            # A full piece may leave output in the engine even when all input is taken.
            if len(piece) < room:
                break
            rest = self._engine.unconsumed_tail
        if self._engine.unused_data:
            raise ObjectCorrupt("bytes behind the end of the zlib stream")

    def finish(self) -> None:
        _check_end(self._engine.eof, self._engine.unused_data)


class _Copy:
    """The encoder of :attr:`Compression.NONE`."""

    __slots__ = ()

    def update(self, data: Bytes, /) -> bytes:
        return bytes(data)

    def finish(self) -> bytes:
        return b""


class _BoundedCopy:
    """The decoder of :attr:`Compression.NONE`."""

    __slots__ = ("_max_size", "_size")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._size = 0

    def update(self, data: Bytes, /) -> Iterator[bytes]:
        self._size += len(data)
        if self._size > self._max_size:
            raise ObjectTooLarge(f"more than {self._max_size} bytes")
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            yield bytes(view[start : start + PIECE])

    def finish(self) -> None:
        pass


def _check_end(eof: bool, unused: bytes) -> None:
    if not eof:
        raise ObjectCorrupt("truncated zlib stream")
    if unused:
        raise ObjectCorrupt("bytes behind the end of the zlib stream")
