"""The rows that differ between two versions of one catalog.

Both are looked at as sets of rows in SQL. Where the newer file is a copy of the older one that was changed in place,
comparing pages first (see :mod:`cvmfs_objstore.formats.pages`) tells which few rows are worth a look.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from cvmfs_gw.engine.errors import MergeError
from cvmfs_objstore.formats.catalog import ENTRY_COLUMNS, Catalog
from cvmfs_objstore.formats.database import attach, detach
from cvmfs_objstore.formats.entry import Entry, PathKey, path_key
from cvmfs_objstore.formats.pages import changed_rows, root_pages

# CROSS JOIN is SQLite's word for "in this order": what little changed first, and never a walk through all rows.
_KEYS: Final = "n.md5path_1, n.md5path_2, n.parent_1, n.parent_2"
_NEW: Final = ", ".join(f"n.{column}" for column in ENTRY_COLUMNS)
_OLD: Final = ", ".join(f"b.{column}" for column in ENTRY_COLUMNS)
_SAME_KEY: Final = "b.md5path_1 = n.md5path_1 AND b.md5path_2 = n.md5path_2"
_WIDTH: Final = len(ENTRY_COLUMNS)
_CHUNK: Final = "md5path_1, md5path_2, offset, size, hash"

_TABLES: Final = (
    "CREATE TEMP TABLE changed (new INTEGER PRIMARY KEY, old INTEGER)",  # row ids; no old one: added
    "CREATE TEMP TABLE gone (old INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE look_new (id INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE look_old (id INTEGER PRIMARY KEY)",
)
_INSERT_CHANGED: Final = (
    "INSERT OR IGNORE INTO temp.changed SELECT n.rowid, b.rowid FROM {source}"
    f" LEFT JOIN base.catalog b ON {_SAME_KEY} WHERE b.md5path_1 IS NULL OR ({_NEW}) IS NOT ({_OLD})"
)
_INSERT_GONE: Final = (
    "INSERT INTO temp.gone SELECT b.rowid FROM {source}"
    f" WHERE NOT EXISTS (SELECT 1 FROM main.catalog n WHERE {_SAME_KEY})"
)
_INSERT_CHANGED_CHUNKS: Final = (
    "INSERT OR IGNORE INTO temp.changed SELECT n.rowid, b.rowid FROM ("
    f"SELECT md5path_1, md5path_2 FROM (SELECT {_CHUNK} FROM main.chunks EXCEPT SELECT {_CHUNK} FROM base.chunks) UNION"
    f" SELECT md5path_1, md5path_2 FROM (SELECT {_CHUNK} FROM base.chunks EXCEPT SELECT {_CHUNK} FROM main.chunks)"
    f") c JOIN main.catalog n USING (md5path_1, md5path_2) LEFT JOIN base.catalog b ON {_SAME_KEY}"
)
_ADDED: Final = (
    f"SELECT {_KEYS}, {_NEW} FROM temp.changed c CROSS JOIN main.catalog n ON n.rowid = c.new WHERE c.old IS NULL"
)
_MODIFIED: Final = (
    f"SELECT {_KEYS}, {_NEW}, {_OLD} FROM temp.changed c CROSS JOIN main.catalog n ON n.rowid = c.new"
    " CROSS JOIN base.catalog b ON b.rowid = c.old WHERE c.old IS NOT NULL"
)
_GONE: Final = (
    "SELECT n.md5path_1, n.md5path_2, n.parent_1, n.parent_2, "
    f"{_NEW} FROM temp.gone g CROSS JOIN base.catalog n ON n.rowid = g.old"
)
_BAD_TYPES: Final = " OR ".join(
    (
        *(f"typeof(n.{column}) != 'integer'" for column in ("md5path_1", "md5path_2", "parent_1", "parent_2")),
        *(
            f"typeof(n.{column}) != 'integer'"
            for column in ("hardlinks", "size", "mode", "mtime", "flags", "uid", "gid")
        ),
        *(f"typeof(n.{column}) != 'text'" for column in ("name", "symlink")),
        "typeof(n.mtimens) NOT IN ('integer', 'null')",
        "typeof(n.xattr) NOT IN ('blob', 'null')",
        "n.hash IS NOT NULL AND (typeof(n.hash) != 'blob' OR length(n.hash) != 20)",
    )
)
_BAD_CHUNK: Final = (
    "typeof(k.offset) != 'integer' OR typeof(k.size) != 'integer' OR typeof(k.hash) != 'blob' OR length(k.hash) != 20"
)
_OWN_CHUNKS: Final = (
    "CROSS JOIN main.chunks k ON k.md5path_1 = n.md5path_1 AND k.md5path_2 = n.md5path_2 AND n.flags & 64"
)
_BAD_NAMES: Final = frozenset(("", ".", ".."))
_ALL: Final = f"SELECT {_KEYS}, {_NEW} FROM main.catalog n"


class Row(NamedTuple):
    """A row of a catalog with its keys."""

    key: PathKey
    parent: PathKey
    entry: Entry


class CatalogDiff:
    """What changed from *base* to *result*, two catalogs in memory. Close it before either of them.

    *files* are the bytes that they were loaded from, if they are known: they tell which rows are worth a look.
    """

    def __init__(self, base: Catalog, result: Catalog, files: tuple[bytes, bytes] | None = None) -> None:
        self._result = result.connection
        self._result.execute("PRAGMA temp_store=MEMORY")
        attach(self._result, "base", base.file if base.file is not None else base.connection.serialize())
        for statement in _TABLES:
            self._result.execute(statement)
        candidates = None
        if files is not None:
            roots = root_pages(base.connection), root_pages(result.connection)
            candidates = changed_rows(*files, *roots, ("catalog", "chunks"))
        if candidates is None:
            self._find("main.catalog n", "base.catalog b", chunks=True)
            return
        rows, chunks = candidates["catalog"], candidates["chunks"]
        self._note("look_new", rows.new)
        self._note("look_old", rows.old)
        self._find(
            "temp.look_new CROSS JOIN main.catalog n ON n.rowid = id",
            "temp.look_old CROSS JOIN base.catalog b ON b.rowid = id",
            chunks=bool(chunks.new or chunks.old),
        )

    def _note(self, table: str, row_ids: Iterable[int]) -> None:
        self._result.executemany(f"INSERT OR IGNORE INTO temp.{table} VALUES (?)", ((row_id,) for row_id in row_ids))

    def _find(self, new: str, old: str, *, chunks: bool) -> None:
        self._result.execute(_INSERT_CHANGED.format(source=new))
        self._result.execute(_INSERT_GONE.format(source=old))
        if chunks:
            self._result.execute(_INSERT_CHANGED_CHUNKS)
        _check_types(self._result, "temp.changed c CROSS JOIN main.catalog n ON n.rowid = c.new")

    def close(self) -> None:
        """Leave both catalogs as they were."""
        for table in ("changed", "gone", "look_new", "look_old"):
            self._result.execute(f"DROP TABLE IF EXISTS temp.{table}")
        detach(self._result, "base")

    def removed(self) -> Iterator[Row]:
        """Rows that are gone, as they were."""
        return map(_row, self._result.execute(_GONE))

    def added_keys(self) -> Iterator[PathKey]:
        """Keys of the rows that are new."""
        sql = "SELECT n.md5path_1, n.md5path_2 FROM temp.changed c CROSS JOIN main.catalog n ON n.rowid = c.new"
        return self._result.execute(f"{sql} WHERE c.old IS NULL")

    def added(self, *, directories: bool) -> Iterator[Row]:
        """Rows that are new: of directories, or of all else."""
        return map(_row, self._result.execute(f"{_ADDED} AND (n.flags & 1) = ?", (directories,)))

    def modified(self, *, directories: bool) -> Iterator[tuple[Row, Entry]]:
        """Rows of what is now a directory, or all else, that differ themselves or in their chunks, with the old one."""
        for found in self._result.execute(f"{_MODIFIED} AND (n.flags & 1) = ?", (directories,)):
            yield _row(found[: 4 + _WIDTH]), Entry._make(found[4 + _WIDTH :])


def all_rows(catalog: Catalog, *, directories: bool) -> Iterator[Row]:
    """All rows of *catalog*: of directories (ask for these first), or of all else. Raises :exc:`MergeError`."""
    if directories:
        _check_types(catalog.connection, "main.catalog n")
    return map(_row, catalog.connection.execute(f"{_ALL} WHERE (n.flags & 1) = ?", (directories,)))


def _check_types(connection: sqlite3.Connection, rows: str) -> None:
    """Raise :exc:`MergeError` if *rows* of a catalog (``n``) or their chunks hold what is not of their column's type.

    SQLite itself takes any value in any column, so that publishers can send what no code is ready for.
    """
    for found in (f"{rows} WHERE {_BAD_TYPES}", f"{rows} {_OWN_CHUNKS} WHERE {_BAD_CHUNK}"):
        row = connection.execute(f"SELECT n.name FROM {found} LIMIT 1").fetchone()
        if row is not None:
            raise MergeError(f"the catalog's row or chunk for {row[0]!r} makes no sense")


def linked_rows(catalog: Catalog, parent: PathKey, group: int) -> Iterator[Row]:
    """The members of a hard link group of *catalog*."""
    where = "n.parent_1 = ? AND n.parent_2 = ? AND n.hardlinks >> 32 = ? AND NOT n.flags & 1"
    return map(_row, catalog.connection.execute(f"{_ALL} WHERE {where}", (*parent, group)))


def _row(found: tuple[int, ...]) -> Row:
    return Row(found[:2], found[2:4], Entry._make(found[4:]))  # type: ignore[arg-type]


class RowPaths:
    """Paths of the rows of one catalog, from their keys and names, checked."""

    def __init__(self, catalog: Catalog, mountpoint: str) -> None:
        self._catalog = catalog
        self._known: dict[PathKey, str] = {path_key(mountpoint): mountpoint}

    def child(self, key: PathKey, parent: PathKey, name: str) -> str:
        """The path of a row; raises :exc:`MergeError` where row, name and parents do not fit together."""
        known = self._known.get(key)
        if known is not None:
            return known
        path = f"{self._directory(parent)}/{name}"
        if name in _BAD_NAMES or "/" in name or "\0" in name or path_key(path) != key:
            raise MergeError(f"the catalog's row for {path!r} is not where its name belongs")
        return path

    def _directory(self, key: PathKey) -> str:
        known = self._known.get(key)
        if known is None:
            # Deep first contact with a directory: climb until a known one, then name them on the way down.
            climbed: list[tuple[PathKey, str]] = []
            at = key
            while at not in self._known:
                row = self._catalog.connection.execute(
                    "SELECT parent_1, parent_2, name, flags & 1 FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?",
                    at,
                ).fetchone()
                if row is None or not row[3] or len(climbed) > 4096:
                    raise MergeError("the catalog has an entry whose parent is missing or no directory")
                climbed.append((at, row[2]))
                at = (row[0], row[1])
            for below, name in reversed(climbed):
                self._known[below] = self.child(below, at, name)
                at = below
            known = self._known[key]
        return known
