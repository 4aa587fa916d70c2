"""Large sets of object names in little memory.

A million names as Python objects take 200 MB; here each is 21 bytes (27 with a size) in one of 256 byte strings, by
the first byte of its digest, which is also the folder of ``data/`` in which the object lies. So a set is built by
appending, and asked folder by folder.

::

    record = digest (20 bytes)  kind (1 byte)  [size (6 bytes)]
    kind   = algorithm - 1 (2 bits)  suffix (3 bits)  compression (3 bits)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from cvmfs_objstore.hashes import DIGEST_SIZE, Algorithm, ContentHash, Suffix

FOLDERS: Final = 256
NAME_SIZE: Final = DIGEST_SIZE + 1
"""Length of a record without a size, in bytes."""
_SIZE_BYTES: Final = 6
_COMPACT_FROM: Final = 4096
"""Records in a folder from which repeated ones are looked for."""
_SUFFIXES: Final = tuple(Suffix)
_SUFFIX_NUMBERS: Final = {suffix: number for number, suffix in enumerate(_SUFFIXES)}
NAME_BITS: Final = 0b11111
"""The bits of a kind that belong to the object's name."""

# Directories may have micro catalogs; what lies outside of the storage has no object in it. SQLite's bit operators all
# bind alike, and nothing is believed of the types of columns.
_KIND: Final = "((e.flags >> 8) & 3) | ({suffix} << 2) | (((e.flags >> 11) & 7) << 5)"
_SIZE: Final = (
    "CASE WHEN typeof({0}.size) = 'integer' AND {0}.size BETWEEN 0 AND 0xFFFFFFFFFFFF THEN {0}.size ELSE 0 END"
)
_ENTRIES: Final = (
    f"SELECT e.hash, {_KIND.format(suffix='iif(e.flags & 1, {micro}, 0)')}, {_SIZE.format('e')} FROM catalog e"
    " WHERE typeof(e.hash) = 'blob' AND length(e.hash) = 20 AND typeof(e.flags) = 'integer' AND NOT e.flags & 128"
    " AND (e.flags >> 8) & 7 < 3"
)
_CHUNKS: Final = (
    f"SELECT c.hash, coalesce({_KIND.format(suffix='{chunk}')}, {{chunk}} << 2), {_SIZE.format('c')} FROM chunks c"
    " LEFT JOIN catalog e ON e.md5path_1 = c.md5path_1 AND e.md5path_2 = c.md5path_2 AND typeof(e.flags) = 'integer'"
    " WHERE typeof(c.hash) = 'blob' AND length(c.hash) = 20 AND NOT coalesce(e.flags & 128, 0)"
    " AND coalesce(e.flags >> 8, 0) & 7 < 3"
)


def kind_of(name: ContentHash, compression: int = 0) -> int:
    """The kind byte of an object's name."""
    return (name.algorithm - 1) | _SUFFIX_NUMBERS[name.suffix] << 2 | compression << 5


def record_of(name: ContentHash) -> bytes:
    """The record of an object's name, without compression and size."""
    return name.digest + bytes((kind_of(name),))


def name_of_record(record: bytes) -> ContentHash:
    """The object's name that a record begins with."""
    kind = record[DIGEST_SIZE]
    return ContentHash(record[:DIGEST_SIZE], Algorithm((kind & 3) + 1), _SUFFIXES[kind >> 2 & 7])


_HEX_TAILS: Final = {
    f"{kind_of(ContentHash.null(algorithm, suffix)):02x}": algorithm.tag + suffix
    for algorithm in Algorithm
    for suffix in Suffix
}


def file_names(packed: bytes) -> set[str]:
    """The names of the files in ``data/ab`` of the objects in a folder as :meth:`DigestSet.packed` gives it."""
    # half a million of them, so nothing is made on the way that is not needed
    text, width, tails = packed.hex(), 2 * NAME_SIZE, _HEX_TAILS
    return {text[at + 2 : at + 40] + tails[text[at + 40 : at + 42]] for at in range(0, len(text), width)}


def compression_of(record: bytes) -> int:
    """Number of the compression algorithm in a record."""
    return record[DIGEST_SIZE] >> 5


def size_of(record: bytes) -> int:
    """The size in a record that has one, in bytes."""
    return int.from_bytes(record[NAME_SIZE:], "big")


class DigestSet:
    """A set of object names; with *sizes*, of names with compression and size. Not thread-safe."""

    __slots__ = ("_folders", "_limits", "_sizes", "_width")

    def __init__(self, *, sizes: bool = False) -> None:
        self._sizes = sizes
        self._width = NAME_SIZE + (_SIZE_BYTES if sizes else 0)
        self._folders = [bytearray() for _ in range(FOLDERS)]
        self._limits = [_COMPACT_FROM * self._width] * FOLDERS

    def add(self, name: ContentHash, compression: int = 0, size: int = 0) -> None:
        """Add one name."""
        record = name.digest + bytes((kind_of(name, compression if self._sizes else 0),))
        self._append(record + size.to_bytes(_SIZE_BYTES, "big") if self._sizes else record)

    def update(self, other: DigestSet) -> None:
        """Add all names of another set of the same kind."""
        for number, records in enumerate(other._folders):
            self._folders[number] += records
            if len(self._folders[number]) > self._limits[number]:
                self._compact(number)

    def _append(self, record: bytes) -> None:
        folder = self._folders[record[0]]
        folder += record
        if len(folder) > self._limits[record[0]]:
            self._compact(record[0])

    def add_references(self, connection: sqlite3.Connection) -> None:
        """Add everything that the rows of a catalog refer to, but for nested catalogs. Raises ``sqlite3.Error``."""
        numbers = {"micro": _SUFFIX_NUMBERS[Suffix.MICRO_CATALOG], "chunk": _SUFFIX_NUMBERS[Suffix.CHUNK]}
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for sql in (_ENTRIES, _CHUNKS) if "chunks" in tables else (_ENTRIES,):
            self._add_rows(connection.execute(sql.format(**numbers)))

    def _add_rows(self, rows: sqlite3.Cursor) -> None:
        folders = self._folders
        if self._sizes:
            for digest, kind, size in rows:
                folder = folders[digest[0]]
                folder += digest
                folder += (kind << 8 * _SIZE_BYTES | size).to_bytes(1 + _SIZE_BYTES, "big")
        else:
            kinds = [bytes((number & NAME_BITS,)) for number in range(256)]
            for digest, kind, _ in rows:
                folder = folders[digest[0]]
                folder += digest
                folder += kinds[kind]
        for number, folder in enumerate(folders):
            if len(folder) > self._limits[number]:
                self._compact(number)

    def _compact(self, number: int) -> None:
        """Drop repeated records, and look again when there are twice as many."""
        records = self.folder(number)
        self._folders[number] = bytearray().join(records)
        self._limits[number] = max(_COMPACT_FROM * self._width, 2 * len(self._folders[number]))

    def folder(self, number: int) -> set[bytes]:
        """The records of one folder of ``data/``."""
        data, width = bytes(self._folders[number]), self._width
        return {data[at : at + width] for at in range(0, len(data), width)}

    def packed(self, number: int) -> bytes:
        """The same, one after the other and perhaps repeated; of a set without sizes."""
        return bytes(self._folders[number])

    def __contains__(self, name: ContentHash) -> bool:
        """Whether a name is in a set without sizes; slow."""
        record, folder = record_of(name), self._folders[name.digest[0]]
        at = folder.find(record)
        while at >= 0 and at % self._width:
            at = folder.find(record, at + 1)
        return at >= 0

    def __len__(self) -> int:
        """How many different records there are; takes a while."""
        return sum(len(self.folder(number)) for number in range(FOLDERS))

    def __iter__(self) -> Iterator[bytes]:
        for number in range(FOLDERS):
            yield from self.folder(number)
