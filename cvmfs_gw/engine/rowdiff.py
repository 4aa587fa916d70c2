"""The rows that differ between two versions of one catalog.

They are compared as sets of rows in SQL. Where the newer file is a copy of the older one that was changed in place,
comparing pages first (see :mod:`cvmfs_objstore.formats.pages`) limits this to a few candidate rows, and the rest of the
older catalog is not needed.

Differing rows are copied into typed tables (see :mod:`cvmfs_gw.engine.rows`); everything after that reads only these.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from cvmfs_gw.engine.errors import MergeError
from cvmfs_gw.engine.newfiles import IS_PLAIN, MANY, TABLE, NewFiles
from cvmfs_gw.engine.rows import COLUMN_LIST, COLUMNS, TYPED_COLUMNS, Row, columns_of, make_row
from cvmfs_objstore.formats.catalog import ENTRY_COLUMNS, Catalog
from cvmfs_objstore.formats.database import attach, attach_empty, detach, serialize
from cvmfs_objstore.formats.entry import FLAG_CHUNKED, Entry, PathKey
from cvmfs_objstore.formats.pages import ChangedRows, changed_rows, root_pages

# In SQLite, CROSS JOIN fixes the join order: the few candidates first, so that no query scans all rows.
_NEW: Final = ", ".join(f"n.{column}" for column in ENTRY_COLUMNS)
_OLD: Final = ", ".join(f"b.{column}" for column in ENTRY_COLUMNS)
_SAME_KEY: Final = "b.md5path_1 = n.md5path_1 AND b.md5path_2 = n.md5path_2"
_WIDTH: Final = len(COLUMNS)
_CHUNK: Final = "md5path_1, md5path_2, offset, size, hash"
_TEXTS: Final = ("name", "symlink")
_FEW: Final = 4000
"""At most this many rows of the older version are copied one by one; otherwise all of it is copied at once."""
_SMALL: Final = 1 << 20
"""A file of fewer bytes is always copied as a whole."""

_TABLES: Final = (
    f"CREATE TABLE found.changed {TABLE}",
    "CREATE TABLE found.gone (id INTEGER PRIMARY KEY)",
    "CREATE TABLE found.look_new (id INTEGER PRIMARY KEY)",
    "CREATE TABLE found.look_old (id INTEGER PRIMARY KEY)",
)
_FORMER: Final = f"CREATE TABLE found.former (id INTEGER PRIMARY KEY, {TYPED_COLUMNS}) STRICT"
_HAS_FORMER: Final = (
    "SELECT EXISTS (SELECT 1 FROM found.gone) OR EXISTS (SELECT 1 FROM found.changed WHERE old IS NOT NULL)"
)
_INTO_CHANGED: Final = f"INSERT INTO found.changed (id, old, many, {COLUMN_LIST}) SELECT n.rowid"
_INSERT_ALL: Final = f"{_INTO_CHANGED}, NULL, {IS_PLAIN}, {columns_of('n')} FROM main.catalog n NOT INDEXED"
_INSERT_CHANGED: Final = (
    f"{_INTO_CHANGED}, b.rowid, b.rowid IS NULL AND {IS_PLAIN}, {columns_of('n')} FROM {{source}}"
    f" LEFT JOIN base.catalog b ON {_SAME_KEY} WHERE b.md5path_1 IS NULL OR ({_NEW}) IS NOT ({_OLD})"
)
_INSERT_GONE: Final = (
    "INSERT INTO found.gone SELECT b.rowid FROM {source}"
    f" WHERE NOT EXISTS (SELECT 1 FROM main.catalog n WHERE {_SAME_KEY})"
)
_INSERT_FORMER: Final = (
    f"INSERT INTO found.former (id, {COLUMN_LIST}) SELECT b.rowid, {columns_of('b')} FROM ("
    "SELECT id FROM found.gone UNION SELECT old FROM found.changed WHERE old IS NOT NULL"
    ") l CROSS JOIN base.catalog b ON b.rowid = l.id"
)
_INSERT_CHANGED_CHUNKS: Final = (
    f"{_INTO_CHANGED}, b.rowid, 0, {columns_of('n')} FROM ("
    f"SELECT md5path_1, md5path_2 FROM (SELECT {_CHUNK} FROM main.chunks EXCEPT SELECT {_CHUNK} FROM base.chunks) UNION"
    f" SELECT md5path_1, md5path_2 FROM (SELECT {_CHUNK} FROM base.chunks EXCEPT SELECT {_CHUNK} FROM main.chunks)"
    f") c CROSS JOIN main.catalog n USING (md5path_1, md5path_2) LEFT JOIN base.catalog b ON {_SAME_KEY}"
    " WHERE n.rowid NOT IN (SELECT id FROM found.changed)"
)
_ADDED: Final = f"SELECT {columns_of('n')} FROM found.changed n WHERE n.old IS NULL AND NOT n.many AND n.flags & 1 = ?"
_MODIFIED: Final = (
    f"SELECT {columns_of('n')}, {_OLD} FROM found.changed n CROSS JOIN found.former b ON b.id = n.old"
    " WHERE n.flags & 1 = ?"
)
_GONE: Final = f"SELECT {columns_of('b')} FROM found.gone g CROSS JOIN found.former b ON b.id = g.id"
_BAD_CHUNKS: Final = (
    f"SELECT n.name FROM found.changed n CROSS JOIN main.chunks k USING (md5path_1, md5path_2)"
    f" WHERE n.flags & {FLAG_CHUNKED} AND (typeof(k.offset) != 'integer' OR typeof(k.size) != 'integer'"
    " OR typeof(k.hash) != 'blob' OR length(k.hash) != 20) LIMIT 1"
)


class CatalogDiff:
    """The changes from *base* to *result*, two catalogs in memory. Close it before *result*.

    Without *base*, everything is new. *files* are the bytes that both were loaded from, if known: they are compared by
    pages. If there are at least *many* plain new files, these are in :attr:`files` and not in :meth:`added`. Raises
    :exc:`MergeError` for invalid rows.
    """

    def __init__(
        self, base: Catalog | None, result: Catalog, files: tuple[bytes, bytes] | None = None, many: int = MANY
    ) -> None:
        self._result = result.connection
        self.files = NewFiles(self._result, "found")
        """Plain new files: all or none of them."""
        self._has_former = False
        try:
            attach_empty(self._result, "found")
            for statement in _TABLES:
                self._result.execute(statement)
            if base is None:
                self._result.execute(_INSERT_ALL)
            else:
                self._compare(base, result, files)
            bad = self._result.execute(_BAD_CHUNKS).fetchone()
        except sqlite3.IntegrityError as error:
            self.close()
            raise MergeError(f"a row of the catalog is invalid: {error}") from error
        except BaseException:
            self.close()
            raise
        if bad is not None:
            self.close()
            raise MergeError(f"the catalog's chunks of {bad[0]!r} are invalid")
        count = self.files.count()
        self.has_files = count >= many > 0
        """Whether there are any :attr:`files`."""
        if count and not self.has_files:
            self.files.leave_out_all()

    def _compare(self, base: Catalog, result: Catalog, files: tuple[bytes, bytes] | None) -> None:
        candidates = None
        if files is not None:
            roots = root_pages(base.connection), root_pages(result.connection)
            candidates = changed_rows(*files, *roots, ("catalog", "chunks"))
        if candidates is None:
            self._attach(base)
            self._find("main.catalog n NOT INDEXED", "base.catalog b", chunks=True)
            return
        rows, chunks = candidates["catalog"], candidates["chunks"]
        with_chunks = bool(chunks.new or chunks.old)
        if with_chunks or len(rows.old) > _FEW or base.file is None or len(base.file) < _SMALL:
            self._attach(base)
        else:
            self._copy(base, rows)
        self._note("look_new", rows.new)
        self._note("look_old", rows.old)
        self._find(
            "found.look_new l CROSS JOIN main.catalog n ON n.rowid = l.id",
            "found.look_old l CROSS JOIN base.catalog b ON b.rowid = l.id",
            chunks=with_chunks,
        )

    def _attach(self, base: Catalog) -> None:
        attach(self._result, "base", base.file if base.file is not None else serialize(base.connection))

    def _copy(self, base: Catalog, rows: ChangedRows) -> None:
        """Make a base that has only the candidate rows."""
        attach_empty(self._result, "base")
        self._result.execute(f"CREATE TABLE base.catalog ({COLUMN_LIST}, id INTEGER PRIMARY KEY)")
        self._result.execute("CREATE INDEX base.catalog_key ON catalog (md5path_1, md5path_2)")
        # Text that need not be UTF-8 goes through Python as bytes.
        columns = ", ".join(f"CAST({name} AS BLOB)" if name in _TEXTS else name for name in COLUMNS)
        query = f"SELECT {columns}, rowid FROM catalog WHERE rowid = ?"
        marks = ", ".join("CAST(? AS TEXT)" if name in _TEXTS else "?" for name in COLUMNS)
        found = (row for row_id in rows.old for row in base.connection.execute(query, (row_id,)))
        self._result.executemany(f"INSERT INTO base.catalog VALUES ({marks}, ?)", found)

    def _note(self, table: str, row_ids: Iterable[int]) -> None:
        self._result.executemany(f"INSERT OR IGNORE INTO found.{table} VALUES (?)", ((row_id,) for row_id in row_ids))

    def _find(self, new: str, old: str, *, chunks: bool) -> None:
        self._result.execute(_INSERT_CHANGED.format(source=new))
        self._result.execute(_INSERT_GONE.format(source=old))
        if chunks:
            self._result.execute(_INSERT_CHANGED_CHUNKS)
        self._has_former = bool(self._result.execute(_HAS_FORMER).fetchone()[0])
        if self._has_former:
            self._result.execute(_FORMER)
            self._result.execute(_INSERT_FORMER)
        detach(self._result, "base")

    def close(self) -> None:
        """Detach everything from the result, which is then as it was."""
        # Where an error cut a query off, that may hold its table yet; nobody goes on with such a catalog.
        detach(self._result, "base")
        detach(self._result, "found")

    def removed(self) -> Iterator[Row]:
        """Rows that are gone, as they were."""
        return map(make_row, self._result.execute(_GONE)) if self._has_former else iter(())

    def added_keys(self) -> Iterator[PathKey]:
        """Keys of all rows that are new."""
        return self._result.execute("SELECT md5path_1, md5path_2 FROM found.changed WHERE old IS NULL")

    def added(self, *, directories: bool) -> Iterator[Row]:
        """Rows that are new: of directories, or of everything else except :attr:`files`."""
        return map(make_row, self._result.execute(_ADDED, (directories,)))

    def modified(self, *, directories: bool) -> Iterator[tuple[Row, Entry]]:
        """Rows that differ, or whose chunks do, each with its old entry: of directories, or of everything else."""
        for found in self._result.execute(_MODIFIED, (directories,)) if self._has_former else ():
            yield make_row(found[:_WIDTH]), Entry._make(found[_WIDTH:])


def linked_rows(catalog: Catalog, parent: PathKey, group: int) -> Iterator[Row]:
    """The members of a hard link group of *catalog*."""
    where = "n.parent_1 = ? AND n.parent_2 = ? AND n.hardlinks >> 32 = ? AND NOT n.flags & 1"
    sql = f"SELECT {columns_of('n')} FROM catalog n WHERE {where}"
    return map(make_row, catalog.connection.execute(sql, (*parent, group)))
