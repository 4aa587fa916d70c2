"""Which rows of two versions of an SQLite file can differ, found by comparing pages.

A publisher copies a catalog's file and changes it in place, so all but a few of its pages stay the same. Comparing the
pages of a file of 30 MB takes a few milliseconds; comparing its rows takes a hundred times as long.

A table's rows are in the leaves of its b-tree. A leaf page that is identical in both files holds the same rows, so only
the other leaves matter: :func:`changed_rows` returns their row ids, and SQL then compares those. Long rows continue in
overflow pages, which this module does not follow. The result is None, and all rows must be compared, if a page differs
that is in no b-tree and not on the free list, if a file is not laid out as expected, or if too many pages differ for
this to be worthwhile.

The files are not trusted: everything is checked against their bounds, and no page is visited twice.

Source: SQLite's "database file format", sections 1.3 to 1.6.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_INDEX_INTERIOR: Final = 0x02
_TABLE_INTERIOR: Final = 0x05
_INDEX_LEAF: Final = 0x0A
_TABLE_LEAF: Final = 0x0D
_FILE_HEADER: Final = 100
_BLOCK: Final = 64
"""Pages compared at once before comparing them one by one."""
WORTHWHILE: Final = 0.3
"""With a larger fraction of differing pages, comparing all rows is as fast."""


class _Malformed(Exception):
    """The file is not laid out as a database that this module understands."""


@dataclass(frozen=True, slots=True)
class ChangedRows:
    """Row ids, in the new and in the old file, of rows that may differ."""

    new: list[int]
    old: list[int]


def root_pages(connection: sqlite3.Connection) -> dict[str, int]:
    """Root pages of all tables and indexes of a database, by name."""
    sql = "SELECT name, rootpage FROM main.sqlite_master WHERE rootpage > 0"
    return {"sqlite_master": 1, **{str(name): int(page) for name, page in connection.execute(sql)}}


def changed_rows(
    old: bytes, new: bytes, old_roots: Mapping[str, int], new_roots: Mapping[str, int], tables: tuple[str, ...]
) -> dict[str, ChangedRows] | None:
    """The rows that may differ in each of *tables*, or None if all rows must be compared.

    *old* and *new* are the files' bytes, *old_roots* and *new_roots* their root pages (see :func:`root_pages`).
    """
    try:
        old_file, new_file = _File(old), _File(new)
        if old_file.page_size != new_file.page_size:
            return None
        differing = _differing_pages(old_file, new_file)
        if len(differing) > WORTHWHILE * max(old_file.pages, new_file.pages):
            return None
        return _compare(old_file, new_file, old_roots, new_roots, tables, differing)
    except (_Malformed, IndexError, struct.error):
        return None


def _compare(
    old: _File,
    new: _File,
    old_roots: Mapping[str, int],
    new_roots: Mapping[str, int],
    tables: tuple[str, ...],
    differing: set[int],
) -> dict[str, ChangedRows] | None:
    leaves: list[dict[str, set[int]]] = []
    for file, roots in ((old, old_roots), (new, new_roots)):
        unexplained = {page for page in differing if page <= file.pages} - file.free_pages()
        found: dict[str, set[int]] = {}
        for name, root in roots.items():
            inner, outer = file.tree(root)
            unexplained -= inner
            unexplained -= outer
            if name in tables:
                found[name] = outer
        if unexplained or len(found) != len(tables):
            return None
        leaves.append(found)
    result = {}
    for table in tables:
        old_leaves, new_leaves = leaves[0][table], leaves[1][table]
        same = (old_leaves & new_leaves) - differing
        result[table] = ChangedRows(new.row_ids(new_leaves - same), old.row_ids(old_leaves - same))
    return result


def _differing_pages(old: _File, new: _File) -> set[int]:
    """Numbers of pages that differ between the files, including pages that only one of them has."""
    size, common = old.page_size, min(old.pages, new.pages)
    differing = set(range(common + 1, max(old.pages, new.pages) + 1))
    a, b = old.data, new.data  # bytes, compared by memcmp; memoryviews are compared item by item
    for block in range(0, common, _BLOCK):
        end = min(block + _BLOCK, common)
        if a[block * size : end * size] != b[block * size : end * size]:
            for page in range(block, end):
                if a[page * size : (page + 1) * size] != b[page * size : (page + 1) * size]:
                    differing.add(page + 1)
    return differing


class _File:
    """A database file, page by page; pages are numbered from 1."""

    def __init__(self, data: bytes) -> None:
        if len(data) < _FILE_HEADER:
            raise _Malformed
        size: int = struct.unpack_from(">H", data, 16)[0]
        self.page_size = 65536 if size == 1 else size
        auto_vacuum: int = struct.unpack_from(">I", data, 52)[0]
        # Neither reserved bytes at the end of pages nor pointer-map pages occur in catalogs.
        if self.page_size < 512 or len(data) % self.page_size or data[20] or auto_vacuum:
            raise _Malformed
        self.data = data
        self.pages = len(data) // self.page_size
        # The first byte of every page's header, in one go, as one level of a tree may have thousands of pages.
        self._kinds = b"\0" + data[_FILE_HEADER : _FILE_HEADER + 1] + data[self.page_size :: self.page_size]

    def _offset(self, page: int) -> int:
        if not 1 <= page <= self.pages:
            raise _Malformed
        return (page - 1) * self.page_size

    def free_pages(self) -> set[int]:
        """Pages on the free list, trunk pages included."""
        free: set[int] = set()
        trunk: int = struct.unpack_from(">I", self.data, 32)[0]
        while trunk:
            at = self._offset(trunk)
            if trunk in free:
                raise _Malformed
            following, count = struct.unpack_from(">II", self.data, at)
            if count > self.page_size // 4 - 2:
                raise _Malformed
            free.add(trunk)
            free.update(struct.unpack_from(f">{count}I", self.data, at + 8))
            trunk = following
        return free

    def tree(self, root: int) -> tuple[set[int], set[int]]:
        """Interior pages and leaves of the b-tree that begins at *root*."""
        inner: set[int] = set()
        leaves: set[int] = set()
        level = [root]
        while level:
            following: list[int] = []
            self._offset(min(level))
            self._offset(max(level))
            kinds = {self._kinds[page] for page in level}
            if len(kinds) != 1:
                raise _Malformed  # all leaves are at the same depth
            kind = kinds.pop()
            if kind in (_TABLE_LEAF, _INDEX_LEAF):
                leaves.update(level)
                break
            if kind not in (_TABLE_INTERIOR, _INDEX_INTERIOR):
                raise _Malformed
            for page in level:
                if page in inner:
                    raise _Malformed
                inner.add(page)
                following += self._children(page)
            level = following
        return inner, leaves

    def _header(self, page: int) -> int:
        return self._offset(page) + (_FILE_HEADER if page == 1 else 0)

    def _children(self, page: int) -> list[int]:
        base, at, data = self._offset(page), self._header(page), self.data
        cells: int = struct.unpack_from(">H", data, at + 3)[0]
        if cells * 2 + 12 > self.page_size:
            raise _Malformed
        offsets = struct.unpack_from(f">{cells}H", data, at + 12)
        children = [int.from_bytes(data[base + offset : base + offset + 4], "big") for offset in offsets]
        children.append(struct.unpack_from(">I", data, at + 8)[0])
        return children

    def row_ids(self, leaves: set[int]) -> list[int]:
        """Row ids of the rows in *leaves*."""
        found: list[int] = []
        for page in leaves:
            base, at, data = self._offset(page), self._header(page), self.data
            if data[at] != _TABLE_LEAF:
                raise _Malformed
            cells: int = struct.unpack_from(">H", data, at + 3)[0]
            if cells * 2 + 8 > self.page_size:
                raise _Malformed
            for offset in struct.unpack_from(f">{cells}H", data, at + 8):
                _, position = _varint(data, base + offset)
                row_id, _ = _varint(data, position)
                found.append(row_id)
        return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The variable-length number at *at*, and where it ends."""
    value = 0
    for length in range(8):
        byte = data[at + length]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + length + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9
