"""Plain new files, handled by the 100,000: checked and put by queries over all of them, not one by one.

Most of what is published is new, and is no directory, no chunked file and no hard link: a row of its own, which the
tree has nothing to remember for. :class:`NewFiles` is all such rows of one catalog, in a table of their own database.
It is handed on as its bytes and attached to the catalog that they go into, whose connection copies them in.
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
"""From this many new files of a catalog on, it is worth to handle them together."""

TABLE: Final = f"(id INTEGER PRIMARY KEY, old INTEGER, many INTEGER NOT NULL, {TYPED_COLUMNS}) STRICT"
"""Of rows of a catalog: their row id there, that in an older version (NULL: new), whether they are plain new files."""
_SINGLE: Final = FLAG_DIRECTORY | FLAG_CHUNKED | FLAG_BIND_MOUNTPOINT
IS_PLAIN: Final = (
    f"n.flags & {_SINGLE | FLAG_FILE} = {FLAG_FILE} AND n.hardlinks >> 32 = 0 AND n.name != '{CATALOG_MARKER}'"
)
"""SQL for a new row ``n`` of a catalog that may be one of many. Markers of nested catalogs have consequences."""
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
        """How many there are."""
        return int(self._connection.execute(f"SELECT count(*) FROM {self._rows}").fetchone()[0])

    def parents(self) -> list[PathKey]:
        """Keys of the directories that they are in."""
        return self._connection.execute(f"SELECT DISTINCT n.parent_1, n.parent_2 FROM {self._rows}").fetchall()

    def names(self) -> Iterator[NameRow]:
        """Keys and names of all."""
        return self._connection.execute(
            f"SELECT n.md5path_1, n.md5path_2, n.parent_1, n.parent_2, CAST(n.name AS BLOB) FROM {self._rows}"
        )

    def larger_than(self, size: int) -> Iterator[tuple[PathKey, str, int]]:
        """Parent, name and size of regular files of more bytes than that."""
        where = f"n.size > ? AND NOT n.flags & {FLAG_LINK | FLAG_SPECIAL}"
        sql = f"SELECT n.parent_1, n.parent_2, n.name, n.size FROM {self._rows} AND {where}"
        for *parent, name, found in self._connection.execute(sql, (size,)):
            yield (parent[0], parent[1]), name, found

    def flags(self) -> list[int]:
        """The flags that occur."""
        return [flags for (flags,) in self._connection.execute(f"SELECT DISTINCT n.flags FROM {self._rows}")]

    def hashes(self, flags: int) -> Iterator[bytes]:
        """Content hashes of those with these flags, one for each."""
        sql = f"SELECT n.hash FROM {self._rows} AND n.flags = ? AND n.hash IS NOT NULL"
        return (digest for (digest,) in self._connection.execute(sql, (flags,)))

    def holders(self, flags: int) -> Iterator[tuple[PathKey, str, bytes]]:
        """Parent, name and content hash of those with these flags."""
        sql = f"SELECT n.parent_1, n.parent_2, n.name, n.hash FROM {self._rows} AND n.flags = ? AND n.hash IS NOT NULL"
        for *parent, name, digest in self._connection.execute(sql, (flags,)):
            yield (parent[0], parent[1]), name, digest

    def counters(self) -> Counters:
        """What they add up to."""
        result = Counters()
        sql = "SELECT n.flags, count(*), sum(n.size), coalesce(sum(length(n.xattr) > 0), 0)"
        for found in self._connection.execute(f"{sql} FROM {self._rows} GROUP BY n.flags"):
            result.count_files(*found)
        return result

    def have_links(self) -> bool:
        """Whether the link count of one is not 1."""
        sql = f"SELECT 1 FROM {self._rows} AND n.hardlinks != 1 LIMIT 1"
        return self._connection.execute(sql).fetchone() is not None

    # -- which are handled together

    def leave_out(self, keys: Iterable[PathKey], *, parents: bool = False) -> None:
        """Let the rows of these keys (or of directories of these keys) be handled one by one."""
        columns = "parent_1, parent_2" if parents else "md5path_1, md5path_2"
        self._note_keys(keys)
        self._connection.execute(
            f"UPDATE {self._schema}.changed SET many = 0 WHERE many AND ({columns}) IN (SELECT a, b FROM temp.keys)"
        )
        self._connection.execute("DROP TABLE temp.keys")

    def leave_out_all(self) -> None:
        """Let all be handled one by one."""
        self._connection.execute(f"UPDATE {self._schema}.changed SET many = 0 WHERE many")

    def _note_keys(self, keys: Iterable[PathKey]) -> None:
        self._connection.execute("CREATE TEMP TABLE keys (a INTEGER, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID")
        self._connection.executemany("INSERT OR IGNORE INTO temp.keys VALUES (?, ?)", keys)

    # -- on their way

    def change(self, directories: Mapping[PathKey, str]) -> PutFiles:
        """The change that puts all of them; *directories* are those that they are in."""
        return PutFiles(serialize(self._connection, self._schema), directories)

    @classmethod
    def attach(cls, connection: sqlite3.Connection, change: PutFiles, directories: Iterable[PathKey]) -> NewFiles:
        """Those of a change that are in *directories*, for the catalog of *connection*; end it with :meth:`put`."""
        attach(connection, _SCHEMA, change.data)
        here = set(directories)
        files = cls(connection, _SCHEMA)
        if elsewhere := change.directories.keys() - here:
            files.leave_out(elsewhere, parents=True)
        return files

    def take_existing(self) -> list[Row]:
        """Take out those that the catalog has an entry for already, and return them."""
        there = f"many AND EXISTS (SELECT 1 FROM main.catalog m WHERE {_SAME_KEY})"
        found = self._connection.execute(f"SELECT {columns_of('n')} FROM {_FOUND} n WHERE {there}").fetchall()
        rows = [make_row(row) for row in found]
        if rows:
            self.leave_out(row.key for row in rows)
        return rows

    def put(self) -> None:
        """Copy all into the catalog. What it takes is SQLite's own work, so other threads go on meanwhile.

        Raises ``sqlite3.IntegrityError`` where the catalog has an entry already.
        """
        self._connection.execute(_PUT)
        detach(self._connection, _SCHEMA)
