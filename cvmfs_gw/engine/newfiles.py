"""Plain new files in bulk: 100,000 of them are checked and inserted by a few queries, not one by one.

Most of what is published is new, and neither a directory nor a chunked file nor a hard link: a single row, with no
further bookkeeping in the tree. :class:`NewFiles` holds all such rows of one catalog, in a table of another database.
That database is passed on as bytes and attached to the connection of the target catalog, which copies the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from cvmfs_gw.engine.changes import CATALOG_MARKER, PutFiles
from cvmfs_gw.engine.rows import COLUMN_LIST, TYPED_COLUMNS, Row, columns_of, make_row
from cvmfs_objstore.formats.database import attach, detach, serialize
from cvmfs_objstore.formats.entry import (
    FLAG_BIND_MOUNTPOINT,
    FLAG_CHUNKED,
    FLAG_DIRECTORY,
    FLAG_FILE,
    FLAG_LINK,
    FLAG_SPECIAL,
    NESTING_FLAGS,
    Counters,
    PathKey,
)

MANY: Final = 500
"""The number of new files in a catalog from which handling them together pays off."""

TABLE: Final = f"(id INTEGER PRIMARY KEY, old INTEGER, many INTEGER NOT NULL, {TYPED_COLUMNS}) STRICT"
"""Columns: row id in the catalog, row id in the older version (NULL: new), whether it is a plain new file, the row."""
_SINGLE: Final = FLAG_DIRECTORY | FLAG_CHUNKED | FLAG_BIND_MOUNTPOINT
IS_PLAIN: Final = (
    f"n.flags & {_SINGLE | FLAG_FILE} = {FLAG_FILE} AND n.hardlinks >> 32 = 0 AND n.name != '{CATALOG_MARKER}'"
)
"""SQL: whether a new row ``n`` may be handled in bulk. Not markers of nested catalogs, which have side effects."""
_SCHEMA: Final = "more"
_FOUND: Final = f"{_SCHEMA}.changed"
_SAME_KEY: Final = "m.md5path_1 = n.md5path_1 AND m.md5path_2 = n.md5path_2"
_PUT: Final = (
    f"INSERT INTO main.catalog ({COLUMN_LIST}) SELECT "
    + columns_of("n").replace("n.hardlinks", "1").replace("n.flags", f"n.flags & {~NESTING_FLAGS}")
    + f" FROM {_FOUND} n WHERE n.many"
)

NameRow = tuple[int, int, int, int, bytes]
"""Key, parent's key and name of a file."""


class NewFiles:
    """The rows of a table ``changed`` (see :data:`TABLE`) that are plain new files."""

    def __init__(self, connection: sqlite3.Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self._rows = f"{schema}.changed n WHERE n.many"

    def count(self) -> int:
        """The number of files."""
        return int(self._connection.execute(f"SELECT count(*) FROM {self._rows}").fetchone()[0])

    def parents(self) -> list[PathKey]:
        """The keys of their directories."""
        return self._connection.execute(f"SELECT DISTINCT n.parent_1, n.parent_2 FROM {self._rows}").fetchall()

    def names(self) -> Iterator[NameRow]:
        """Keys and names of all files."""
        return self._connection.execute(
            f"SELECT n.md5path_1, n.md5path_2, n.parent_1, n.parent_2, CAST(n.name AS BLOB) FROM {self._rows}"
        )

    def larger_than(self, size: int) -> Iterator[tuple[PathKey, str, int]]:
        """Parent, name and size of regular files larger than a number of bytes."""
        where = f"n.size > ? AND NOT n.flags & {FLAG_LINK | FLAG_SPECIAL}"
        sql = f"SELECT n.parent_1, n.parent_2, n.name, n.size FROM {self._rows} AND {where}"
        for *parent, name, found in self._connection.execute(sql, (size,)):
            yield (parent[0], parent[1]), name, found

    def flags(self) -> list[int]:
        """The flags that occur."""
        return [flags for (flags,) in self._connection.execute(f"SELECT DISTINCT n.flags FROM {self._rows}")]

    def hashes(self, flags: int) -> Iterator[bytes]:
        """Content hashes of the files with these flags, one for each."""
        sql = f"SELECT n.hash FROM {self._rows} AND n.flags = ? AND n.hash IS NOT NULL"
        return (digest for (digest,) in self._connection.execute(sql, (flags,)))

    def holders(self, flags: int) -> Iterator[tuple[PathKey, str, bytes]]:
        """Parent, name and content hash of the files with these flags."""
        sql = f"SELECT n.parent_1, n.parent_2, n.name, n.hash FROM {self._rows} AND n.flags = ? AND n.hash IS NOT NULL"
        for *parent, name, digest in self._connection.execute(sql, (flags,)):
            yield (parent[0], parent[1]), name, digest

    def counters(self) -> Counters:
        """The counters of all files."""
        result = Counters()
        sql = "SELECT n.flags, count(*), sum(n.size), coalesce(sum(length(n.xattr) > 0), 0)"
        for found in self._connection.execute(f"{sql} FROM {self._rows} GROUP BY n.flags"):
            result.count_files(*found)
        return result

    def have_links(self) -> bool:
        """Whether any of them has a link count other than 1."""
        sql = f"SELECT 1 FROM {self._rows} AND n.hardlinks != 1 LIMIT 1"
        return self._connection.execute(sql).fetchone() is not None

    # -- excluding files

    def leave_out(self, keys: Iterable[PathKey], *, parents: bool = False) -> None:
        """Exclude the rows with these keys (or in directories with these keys): they are handled one by one."""
        columns = "parent_1, parent_2" if parents else "md5path_1, md5path_2"
        self._note_keys(keys)
        self._connection.execute(
            f"UPDATE {self._schema}.changed SET many = 0 WHERE many AND ({columns}) IN (SELECT a, b FROM temp.keys)"
        )
        self._connection.execute("DROP TABLE temp.keys")

    def leave_out_all(self) -> None:
        """Exclude all rows: they are handled one by one."""
        self._connection.execute(f"UPDATE {self._schema}.changed SET many = 0 WHERE many")

    def _note_keys(self, keys: Iterable[PathKey]) -> None:
        self._connection.execute("CREATE TEMP TABLE keys (a INTEGER, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID")
        self._connection.executemany("INSERT OR IGNORE INTO temp.keys VALUES (?, ?)", keys)

    # -- insertion

    def change(self, directories: Mapping[PathKey, str]) -> PutFiles:
        """The change that puts all of them; *directories* are their parents."""
        return PutFiles(serialize(self._connection, self._schema), directories)

    @classmethod
    def attach(cls, connection: sqlite3.Connection, change: PutFiles, directories: Iterable[PathKey]) -> NewFiles:
        """The files of a change in *directories*, attached to the catalog of *connection*; finish with :meth:`put`."""
        attach(connection, _SCHEMA, change.data)
        here = set(directories)
        files = cls(connection, _SCHEMA)
        if elsewhere := change.directories.keys() - here:
            files.leave_out(elsewhere, parents=True)
        return files

    def take_existing(self) -> list[Row]:
        """Exclude and return the files whose path is taken in the catalog."""
        there = f"many AND EXISTS (SELECT 1 FROM main.catalog m WHERE {_SAME_KEY})"
        found = self._connection.execute(f"SELECT {columns_of('n')} FROM {_FOUND} n WHERE {there}").fetchall()
        rows = [make_row(row) for row in found]
        if rows:
            self.leave_out(row.key for row in rows)
        return rows

    def put(self) -> None:
        """Copy all files into the catalog. SQLite does the work in one call, so other threads run meanwhile.

        Raises ``sqlite3.IntegrityError`` if the catalog already has one of the entries.
        """
        self._connection.execute(_PUT)
        detach(self._connection, _SCHEMA)
