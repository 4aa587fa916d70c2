"""Content-defined chunking: where large files are cut, so that equal parts of different files are stored once.

A file is cut before a byte if the rolling hash *x* up to and including this byte is close to 2^31 - 1 and the chunk has
at least *smallest* bytes; and in any case once the chunk has *largest* bytes::

    x' = 2 x xor byte    mod 2^32
    | x - (2^31 - 1) |  <  (2^32 - 1) div average        or  x = 2^32 - 1

(For x = 2^32 - 1 the difference is 2^31, which overflows to a negative number in deployed publishers.) After 32 steps a
byte has been shifted out, so x is a function of the last 32 bytes, wherever a chunk began. For a whole block it is
computed by doubling: from windows of one byte, those of 2, 4, 8, ... follow with one shift and one xor each.

How a block is searched: the lower half of x depends on the last 16 bytes alone, and at a cut all but its lowest bits
are the same. So 16-bit numbers and four doublings leave one candidate in some 60 positions. The values 16 bytes earlier
give the nine highest bits, which leaves one in 16,000. For these x is computed in full: one by one, or, if there are
suspiciously many, for the whole block with 32-bit numbers and five doublings.

Source: ``CVMFS_USE_FILE_CHUNKING``, ``CVMFS_MIN_CHUNK_SIZE``, ``CVMFS_AVG_CHUNK_SIZE`` and ``CVMFS_MAX_CHUNK_SIZE`` in
``server.conf``; the cuts of deployed publishers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cvmfs_objstore.chunksizes import CENTRE, MASK, WINDOW, ChunkSizes

_BEFORE: Final = WINDOW - 1
_BLOCK: Final = 1 << 15  # positions that are searched at once: two arrays of 16-bit numbers that fit a core's cache
_FEW_BITS: Final = 11  # with more free bits than that the lower half of the value rules out too little
_FEW: Final = 64  # so many positions are looked at one by one
# By the nine highest bits of a value: whether it can be at a cut.
_HIGH: Final = np.isin(np.arange(1 << 9), (0x0FF, 0x100, 0x1FF))


class Chunker:
    """Finds the cuts of one file, whose bytes are fed in pieces of any length."""

    __slots__ = ("_before", "_free", "_last", "_offset", "_scratch", "_sizes", "_values", "_wide")

    def __init__(self, sizes: ChunkSizes) -> None:
        self._sizes = sizes
        self._offset = 0
        self._last = 0
        self._before = b""
        self._free = sizes.threshold.bit_length()
        self._values = np.empty(_BLOCK + _BEFORE, np.uint16)
        self._scratch = np.empty(_BLOCK + _BEFORE, np.uint16)
        self._wide: tuple[NDArray[np.uint32], NDArray[np.uint32]] | None = None

    def feed(self, data: bytes | memoryview) -> list[int]:
        """Feed *data*; returns the cuts that it decides, as offsets in the file, in order.

        A cut may lie at the end of what was fed so far; if that is the end of the file, ignore it.
        """
        cuts: list[int] = []
        start, end = self._offset, self._offset + len(data)
        block = np.frombuffer(data, np.uint8)
        while True:
            limit = self._last + self._sizes.largest
            at = max(self._last + self._sizes.smallest, start)
            if at >= end:
                break
            cut = self._search(block, at - start, min(limit, end) - start)
            if cut >= 0:
                self._last = start + cut
            elif limit <= end:
                self._last = limit
            else:
                break
            cuts.append(self._last)
        self._before = (self._before + bytes(data[-_BEFORE:]))[-_BEFORE:]
        self._offset = end
        return cuts

    def _search(self, block: NDArray[np.uint8], at: int, end: int) -> int:
        """The first position in *block*, from *at* and before *end*, that has a cut before it; -1 if none."""
        while at < end:
            stop = min(at + _BLOCK, end)
            if at >= _BEFORE:
                window = block[at - _BEFORE : stop]
            else:
                # A chunk has at least as many bytes as the window before it is looked at.
                missing = _BEFORE - at
                stop = min(stop, at + WINDOW)
                window = np.concatenate((np.frombuffer(self._before[-missing:], np.uint8), block[:stop]))
            found = self._first(window) if self._free <= _FEW_BITS else self._first_of_many(window)
            if found >= 0:
                return at + found
            at = stop
        return -1

    def _first(self, window: NDArray[np.uint8]) -> int:
        values = _roll(window, self._values, self._scratch, 4)
        low = values[_BEFORE:]
        shifted = np.add(low, 1 << self._free, out=self._scratch[: len(low)])
        candidates = np.flatnonzero(shifted < 2 << self._free)
        if len(candidates):
            candidates = candidates[_HIGH[values[candidates + (_BEFORE - 16)] >> 7]]
        if len(candidates) > _FEW:
            return self._first_of_many(window)
        for candidate in candidates.tolist():
            value = rolling_value(window[candidate : candidate + WINDOW].tobytes())
            if abs(value - CENTRE) < self._sizes.threshold or value == MASK:
                return int(candidate)
        return -1

    def _first_of_many(self, window: NDArray[np.uint8]) -> int:
        if self._wide is None:
            self._wide = np.empty(_BLOCK + _BEFORE, np.uint32), np.empty(_BLOCK + _BEFORE, np.uint32)
        values = _roll(window, *self._wide, 5)[_BEFORE:]
        nearest = self._sizes.threshold - 1
        close = values + np.uint32((nearest - CENTRE) & MASK) <= 2 * nearest
        found = np.flatnonzero(close | (values == MASK))
        return int(found[0]) if len(found) else -1


_Numbers = NDArray[np.uint16] | NDArray[np.uint32]


def _roll(window: NDArray[np.uint8], numbers: _Numbers, scratch: _Numbers, doublings: int) -> _Numbers:
    """The rolling hashes at each byte of *window*, in *numbers*, truncated to the width of its type."""
    values = numbers[: len(window)]
    values[:] = window
    for step in range(doublings):
        span = 1 << step
        shifted = np.left_shift(values[:-span], span, out=scratch[: len(window) - span])
        rest = values[span:]
        np.bitwise_xor(rest, shifted, out=rest)
    return values


def rolling_value(window: bytes) -> int:
    """The rolling hash after the bytes of *window*, of which only the last 32 count."""
    value = 0
    for byte in window[-WINDOW:]:
        value = value << 1 ^ byte
    return value & MASK
