"""The maps of sparse files in tar archives: which parts of a file the data in the archive is.

GNU tar has written four formats: one of its own, in the header and in blocks behind it, and three in pax records: 0.0
(records that repeat), 0.1 (one record), 1.0 (in front of the data).

Source: "Storing Sparse Files" in the manual of GNU tar.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from cvmfs_gw.ingest.errors import BadArchive, SourceTooLarge
from cvmfs_gw.ingest.inputs import Input
from cvmfs_gw.ingest.tarfields import BLOCK, decimal, number

MAX_SEGMENTS: Final = 1 << 20
"""Most segments of data in a sparse file."""

_OLD_HEADER: Final = struct.Struct("386x96s?12s17x")
_LONGEST_LINE: Final = 32

Segments = tuple[tuple[int, int], ...]
"""Where the data of a sparse file is, as offsets and lengths in bytes, in order."""


class SparseMap(NamedTuple):
    """The length of a file, the number of bytes that are still in the archive, and where in the file they are."""

    size: int
    data: int
    segments: Segments


def old_map(block: bytes, data: int, source: Input) -> SparseMap:
    """The map in GNU's own format: four segments in the header *block*, 21 in each block that follows.

    Raises :exc:`BadArchive` and :exc:`SourceTooLarge`, as :func:`new_map` does.
    """
    raw, is_extended, real_size = _OLD_HEADER.unpack(block)
    numbers = [raw]
    while is_extended:
        block = source.exactly(BLOCK)
        numbers.append(block[:504])
        is_extended = bool(block[504])
        if len(numbers) * 21 > MAX_SEGMENTS:
            raise SourceTooLarge("a sparse file of too many parts in the archive")
    fields = b"".join(numbers)
    values = [number(fields[at : at + 12]) for at in range(0, len(fields), 12) if fields[at]]
    return _checked(values, number(real_size), data)


def new_map(records: Mapping[str, bytes], pairs: list[bytes], data: int, source: Input) -> SparseMap:
    """The map in pax *records* (0.1), in repeated ones (0.0, offsets and lengths in *pairs*) or before the data."""
    real_size = records.get("GNU.sparse.realsize", records.get("GNU.sparse.size"))
    if real_size is None:
        raise BadArchive("a sparse file of no size in the archive")
    if records.get("GNU.sparse.major") == b"1":
        values, taken = _map_before_data(source, data)
        data -= taken
    elif (text := records.get("GNU.sparse.map")) is not None:
        values = [decimal(value) for value in text.split(b",")] if text else []
    else:
        values = [decimal(value) for value in pairs]
    return _checked(values, decimal(real_size), data)


def _map_before_data(source: Input, data: int) -> tuple[list[int], int]:
    """Numbers in lines, the first of which says how many pairs follow, filled up to whole blocks."""
    values: list[int] = []
    expected, rest, taken = 1, b"", 0
    while len(values) < expected:
        if taken + BLOCK > data + -data % BLOCK:
            raise BadArchive("a sparse file whose map does not end")
        *lines, rest = (rest + source.exactly(BLOCK)).split(b"\n")
        taken += BLOCK
        for line in lines:
            if len(values) == expected:
                break
            values.append(decimal(line))
            if values[0] > MAX_SEGMENTS:
                raise SourceTooLarge("a sparse file of too many parts in the archive")
            expected = 1 + 2 * values[0]
        if len(values) < expected and len(rest) > _LONGEST_LINE:
            raise BadArchive("a sparse file with an invalid map")
    return values[1:], taken


def _checked(values: list[int], size: int, data: int) -> SparseMap:
    if len(values) % 2 or len(values) > 2 * MAX_SEGMENTS:
        raise BadArchive("a sparse file with an invalid map")
    segments = tuple(zip(values[::2], values[1::2], strict=True))
    end = 0
    for offset, length in segments:
        if offset < end or length < 0:
            raise BadArchive("a sparse file with an invalid map")
        end = offset + length
    if end > size or sum(length for _, length in segments) != data:
        raise BadArchive("a sparse file whose map does not fit its data")
    return SparseMap(size, data, segments)
