"""Catalogs: the SQLite databases that hold a repository's directory tree.

A repository's tree is divided into a root catalog and nested catalogs; each holds the entries below its mountpoint
down to the mountpoints of its own nested catalogs. The directory at a mountpoint has two rows that agree in
everything but flags: one in the parent catalog (flag mountpoint) and one in the nested catalog (flag nested root).

This module handles a single catalog: its rows, registered nested catalogs, counters and properties. It does not
keep counters, link counts or nesting consistent; ``cvmfs_gw.engine.tree`` does.

Source: schema 2.5, revision 7. Older revisions (and 2.4) are upgraded when they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from cvmfs_objstore.errors import DatabaseError, InvalidHash
from cvmfs_objstore.formats.database import Database, to_bytes
from cvmfs_objstore.formats.entry import (
    COUNTER_NAMES,
    FLAG_DIRECTORY,
    FLAG_MOUNTPOINT,
    FLAG_NESTED_ROOT,
    NO_PARENT,
    Chunk,
    Chunks,
    Counters,
    Entry,
    PathKey,
    parent_path,
    path_key,
)
from cvmfs_objstore.hashes import ContentHash, Suffix

_TABLES: Final = (
    "CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER,"
    " hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, flags INTEGER,"
    " name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB,"
    " CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2))",
    "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)",
    "CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB,"
    " CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size),"
    " FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog (md5path_1, md5path_2))",
    "CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER,"
    " CONSTRAINT pk_nested_catalogs PRIMARY KEY (path))",
    "CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER,"
    " CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path))",
    "CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter))",
)

ENTRY_COLUMNS: Final = Entry._fields
_COLUMN_LIST: Final = ", ".join(ENTRY_COLUMNS)
_SELECT: Final = f"SELECT {_COLUMN_LIST} FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?"
_CHILDREN: Final = f"SELECT {_COLUMN_LIST} FROM catalog WHERE parent_1 = ? AND parent_2 = ?"
_WITH_XATTRS: Final = (
    f"SELECT md5path_1, md5path_2, parent_1, parent_2, {_COLUMN_LIST} FROM catalog WHERE xattr IS NOT NULL"
)
_PARENT: Final = "SELECT parent_1, parent_2, name FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?"
# Names and link targets are bytes that need not be UTF-8, so they are bound as blobs and cast.
_INSERT: Final = (
    f"INSERT OR REPLACE INTO catalog (md5path_1, md5path_2, parent_1, parent_2, {_COLUMN_LIST})"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?)"
)
_CHUNK_COLUMNS: Final = "md5path_1, md5path_2, offset, size, hash"
_INSERT_CHUNK: Final = f"INSERT INTO chunks ({_CHUNK_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
_BELOW: Final = (
    "WITH RECURSIVE below (a, b) AS ("
    " SELECT md5path_1, md5path_2 FROM catalog WHERE parent_1 = ? AND parent_2 = ?"
    " UNION SELECT c.md5path_1, c.md5path_2 FROM catalog c JOIN below ON c.parent_1 = a AND c.parent_2 = b)"
)

NestingTable = Literal["nested_catalogs", "bind_mountpoints"]


@dataclass(frozen=True, slots=True)
class NestedRef:
    """A registered nested catalog: its content hash and its size in bytes before compression (0: not recorded)."""

    hash: ContentHash
    size: int


Row = tuple[int, int, int, int, int, bytes | None, int, int, int, int | None, int, bytes, bytes, int, int, bytes | None]


class Catalog(Database):
    """One catalog in memory. Paths are absolute within the repository (``""`` or ``/a/b``)."""

    KIND: ClassVar[str] = "catalog"
    SCHEMA: ClassVar[float] = 2.5
    SCHEMA_REVISION: ClassVar[int] = 7
    READABLE: ClassVar[tuple[float, ...]] = (2.5, 2.4)

    @classmethod
    def create(cls, mountpoint: str, root: Entry) -> Catalog:
        """A new catalog at *mountpoint* with only the entry of its root directory; revision 0.

        Sets the root's nesting flags as required; the counters include the root directory.
        """
        catalog = cls._new()
        catalog.set_property("revision", 0)
        if mountpoint:
            catalog.set_property("root_prefix", mountpoint)
        flags = root.flags & ~(FLAG_MOUNTPOINT | FLAG_NESTED_ROOT) | (FLAG_NESTED_ROOT if mountpoint else 0)
        catalog.put(mountpoint, root._replace(flags=flags | FLAG_DIRECTORY))
        own = Counters()
        own.count(root, 0)
        catalog.set_counters(own, Counters())
        return catalog

    def _create_tables(self) -> None:
        for statement in _TABLES:
            self.connection.execute(statement)

    def _upgrade(self, version: float, revision: int) -> None:
        # Looks for what is missing rather than trusting the revision number: half-migrated catalogs are in use.
        have = self.columns("catalog")
        for column, kind in (("mtimens", "INTEGER"), ("xattr", "BLOB")):
            if column not in have:
                self.connection.execute(f"ALTER TABLE catalog ADD {column} {kind}")
        if "size" not in self.columns("nested_catalogs"):
            self.connection.execute("ALTER TABLE nested_catalogs ADD size INTEGER")
        if not self.columns("bind_mountpoints"):
            self.connection.execute(_TABLES[4])
        if not self.columns("chunks"):
            self.connection.execute(_TABLES[2])
        self.connection.executemany(
            "INSERT OR IGNORE INTO statistics (counter, value) VALUES (?, 0)",
            [(f"{scope}_{name}",) for scope in ("self", "subtree") for name in COUNTER_NAMES],
        )

    # -- properties

    @property
    def mountpoint(self) -> str:
        """Path of the catalog's root directory."""
        return self.property("root_prefix") or ""

    @property
    def revision(self) -> int:
        return self.int_property("revision", 0)

    @property
    def previous_revision(self) -> ContentHash | None:
        """The catalog that this one replaced; None if it is new."""
        text = self.property("previous_revision")
        # Release 2.1 writes more zeros than a hash has digits.
        if not text or not text.strip("0"):
            return None
        try:
            previous = ContentHash.parse(text, Suffix.CATALOG)
        except InvalidHash as error:
            raise DatabaseError(f"catalog: previous_revision: {error}") from error
        return None if previous.is_null else previous

    # -- entries

    def get(self, path: str) -> Entry | None:
        """The entry at *path* (the catalog's own root included), or None."""
        row = self.connection.execute(_SELECT, path_key(path)).fetchone()
        return None if row is None else Entry._make(row)

    def get_key(self, key: PathKey) -> Entry | None:
        """The entry of a path key, or None."""
        row = self.connection.execute(_SELECT, key).fetchone()
        return None if row is None else Entry._make(row)

    def keys(self) -> Iterator[PathKey]:
        """The keys of all entries."""
        return self.connection.execute("SELECT md5path_1, md5path_2 FROM catalog")

    def children(self, path: str) -> Iterator[Entry]:
        """Entries of the directory *path* that this catalog holds."""
        return map(Entry._make, self.connection.execute(_CHILDREN, path_key(path)))

    def directories(self, path: str) -> Iterator[Entry]:
        """Directories in the directory *path* that this catalog holds."""
        return map(Entry._make, self.connection.execute(f"{_CHILDREN} AND flags & {FLAG_DIRECTORY}", path_key(path)))

    def has_children(self, path: str) -> bool:
        """Whether this catalog holds entries of the directory *path*."""
        sql = "SELECT 1 FROM catalog WHERE parent_1 = ? AND parent_2 = ? LIMIT 1"
        return self.connection.execute(sql, path_key(path)).fetchone() is not None

    def chunks(self, path: str) -> Chunks:
        """Chunks of the file at *path*, by offset."""
        return self.chunks_of_key(path_key(path))

    def chunks_of_key(self, key: PathKey) -> Chunks:
        """Chunks of the file of a path key, by offset."""
        sql = "SELECT offset, size, hash FROM chunks WHERE md5path_1 = ? AND md5path_2 = ? ORDER BY offset"
        return tuple(map(Chunk._make, self.connection.execute(sql, key)))

    def put(self, path: str, entry: Entry, chunks: Chunks = ()) -> None:
        """Insert or replace the entry at *path* together with its chunks."""
        key = path_key(path)
        self.connection.execute(_INSERT, self.row(path, entry, key))
        self.connection.execute("DELETE FROM chunks WHERE md5path_1 = ? AND md5path_2 = ?", key)
        if chunks:
            self.connection.executemany(_INSERT_CHUNK, [(*key, *chunk) for chunk in chunks])

    def put_new_rows(self, rows: Iterable[Row]) -> None:
        """Insert many rows made by :meth:`row` at once, of entries without chunks."""
        with self.bulk():
            self.connection.executemany(_INSERT, rows)

    @staticmethod
    def row(path: str, entry: Entry, key: PathKey | None = None, parent: PathKey | None = None) -> Row:
        """The row of *entry* at *path*, as :meth:`put_new_rows` takes it. Path keys are computed unless given."""
        if key is None:
            key = path_key(path)
        if parent is None:
            parent = path_key(parent_path(path)) if path else NO_PARENT
        links, digest, size, mode, mtime, mtimens, flags, name, symlink, uid, gid, xattr = entry
        raw_name, raw_link = to_bytes(name), to_bytes(symlink) if symlink else b""
        return (
            *key,
            *parent,
            links,
            digest,
            size,
            mode,
            mtime,
            mtimens,
            flags,
            raw_name,
            raw_link,
            uid,
            gid,
            xattr,
        )

    def remove(self, path: str) -> None:
        """Remove the entry at *path* and its chunks; nothing below it."""
        key = path_key(path)
        self.connection.execute("DELETE FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?", key)
        self.connection.execute("DELETE FROM chunks WHERE md5path_1 = ? AND md5path_2 = ?", key)

    def set_links(self, path: str, hardlinks: int) -> None:
        """Set the ``hardlinks`` column of the entry at *path*."""
        sql = "UPDATE catalog SET hardlinks = ? WHERE md5path_1 = ? AND md5path_2 = ?"
        self.connection.execute(sql, (hardlinks, *path_key(path)))

    def walk(self, top: str) -> Iterator[tuple[str, Entry]]:
        """Path and entry of everything that this catalog holds below *top* (without *top*), parents first."""
        level = [top]
        while level:
            following: list[str] = []
            for directory in level:
                for entry in self.children(directory):
                    path = f"{directory}/{entry.name}"
                    yield path, entry
                    if entry.is_directory:
                        following.append(path)
            level = following

    def with_xattrs(self) -> Iterator[tuple[str, Entry]]:
        """Path and entry of everything with extended attributes, except rows without a path to the root."""
        paths: dict[PathKey, str | None] = {path_key(self.mountpoint): self.mountpoint}
        for key_1, key_2, parent_1, parent_2, *row in self.connection.execute(_WITH_XATTRS).fetchall():
            entry = Entry._make(row)
            path = paths.get((key_1, key_2))
            if path is None and (above := self._path_of((parent_1, parent_2), paths)) is not None:
                path = f"{above}/{entry.name}"
            if path is not None:
                yield path, entry

    def _path_of(self, key: PathKey, known: dict[PathKey, str | None]) -> str | None:
        """The path of a key, built from the names up to the nearest *known* ancestor; adds it to *known*."""
        trail: list[tuple[PathKey, str]] = []
        while key not in known:
            known[key] = None  # ends the walk on a cycle
            row = self.connection.execute(_PARENT, key).fetchone()
            if row is None:
                break
            trail.append((key, row[2]))
            key = (row[0], row[1])
        path = known[key]
        for below, name in reversed(trail):
            path = known[below] = None if path is None else f"{path}/{name}"
        return path

    # -- hard links

    def max_hardlink_group(self) -> int:
        """The highest number of a hard link group in this catalog; 0 if there is none."""
        sql = "SELECT coalesce(max(hardlinks >> 32), 0) FROM catalog WHERE NOT flags & 1"
        return int(self.connection.execute(sql).fetchone()[0])

    def renumber_hardlink_group(self, directory: str, group: int) -> None:
        """Set the link count of every member of a directory's hard link group to the group's actual size.

        A group with only one member left is dissolved.
        """
        where = "parent_1 = ? AND parent_2 = ? AND hardlinks >> 32 = ? AND NOT flags & 1"
        args = (*path_key(directory), group)
        count = int(self.connection.execute(f"SELECT count(*) FROM catalog WHERE {where}", args).fetchone()[0])
        value = group << 32 | count if count > 1 else 1
        self.connection.execute(f"UPDATE catalog SET hardlinks = ? WHERE {where}", (value, *args))

    # -- nested catalogs

    def nested(self, table: NestingTable = "nested_catalogs") -> dict[str, NestedRef]:
        """Registered nested catalogs (or bind mountpoints) by mountpoint; raises :exc:`DatabaseError`."""
        rows = self.connection.execute(f"SELECT path, sha1, size FROM {table}")
        result: dict[str, NestedRef] = {}
        try:
            for path, text, size in rows:
                if path[0] != "/":
                    raise ValueError(f"path {path!r}")
                result[path] = NestedRef(ContentHash.parse(text, Suffix.CATALOG), int(size or 0))
        except (IndexError, TypeError, ValueError) as error:
            raise DatabaseError(f"catalog: {table} has an invalid row: {error}") from error
        return result

    def set_nested(self, path: str, ref: NestedRef, table: NestingTable = "nested_catalogs") -> None:
        """Register a nested catalog (or bind mountpoint), or replace its registration."""
        sql = f"INSERT OR REPLACE INTO {table} (path, sha1, size) VALUES (CAST(? AS TEXT), ?, ?)"
        self.connection.execute(sql, (to_bytes(path), ref.hash.bare, ref.size))

    def remove_nested(self, path: str, table: NestingTable = "nested_catalogs") -> None:
        """Remove a registration."""
        self.connection.execute(f"DELETE FROM {table} WHERE path = CAST(? AS TEXT)", (to_bytes(path),))

    # -- moving a directory's content between catalogs

    def move_below(self, top: str, target: Catalog, group_offset: int = 0) -> Counters:
        """Move everything below *top* (without *top*) with chunks and registrations to *target*.

        Hard link groups are numbered per catalog: *group_offset* is added to their numbers. Returns the counters of
        what was moved; its mountpoints count as ``nested``.
        """
        key = path_key(top)
        moved = Counters()
        select = f"{_BELOW} SELECT md5path_1, md5path_2, parent_1, parent_2, {_COLUMN_LIST} FROM catalog"
        select += " WHERE (md5path_1, md5path_2) IN (SELECT a, b FROM below)"
        chunk_counts: dict[PathKey, int] = {}
        chunk_select = f"{_BELOW} SELECT {_CHUNK_COLUMNS} FROM chunks"
        chunk_select += " WHERE (md5path_1, md5path_2) IN (SELECT a, b FROM below)"
        chunk_rows = self.connection.execute(chunk_select, key).fetchall()
        for row in chunk_rows:
            owner = (row[0], row[1])
            chunk_counts[owner] = chunk_counts.get(owner, 0) + 1

        def rows() -> Iterator[Row]:
            for row in self.connection.execute(select, key):
                entry = Entry._make(row[4:])
                if group_offset and entry.hardlink_group:
                    entry = entry.with_links(entry.linkcount, entry.hardlink_group + group_offset)
                moved.count(entry, chunk_counts.get((row[0], row[1]), 0))
                if entry.flags & FLAG_MOUNTPOINT:
                    moved.nested += 1
                yield self.row("", entry, (row[0], row[1]), (row[2], row[3]))

        target.put_new_rows(rows())
        target.connection.executemany(_INSERT_CHUNK, chunk_rows)
        # The set ``below`` is found through the rows, so chunks go first, and then all entries in one statement.
        for table in ("chunks", "catalog"):
            where = "(md5path_1, md5path_2) IN (SELECT a, b FROM below)"
            self.connection.execute(f"{_BELOW} DELETE FROM {table} WHERE {where}", key)
        nesting: tuple[NestingTable, ...] = ("nested_catalogs", "bind_mountpoints")
        for table_name in nesting:
            for path, ref in self.nested(table_name).items():
                if path.startswith(top + "/"):
                    target.set_nested(path, ref, table_name)
                    self.remove_nested(path, table_name)
        return moved

    # -- counters

    def counters(self) -> tuple[Counters, Counters]:
        """The catalog's own counters and those of the catalogs below it, as stored."""
        stored = dict(self.connection.execute("SELECT counter, value FROM statistics"))
        try:
            own, below = (
                Counters(**{name: int(stored.get(f"{scope}_{name}", 0)) for name in COUNTER_NAMES})
                for scope in ("self", "subtree")
            )
        except (TypeError, ValueError) as error:
            raise DatabaseError("catalog: a counter is not a number") from error
        return own, below

    def set_counters(self, own: Counters, below: Counters) -> None:
        """Store all 24 counters."""
        self.connection.executemany(
            "INSERT OR REPLACE INTO statistics (counter, value) VALUES (?, ?)",
            [
                (f"{scope}_{name}", getattr(values, name))
                for scope, values in (("self", own), ("subtree", below))
                for name in COUNTER_NAMES
            ],
        )

    def count_rows(self) -> Counters:
        """The counters of this catalog computed from its rows: what the stored ones should be."""
        result = Counters()
        chunk_counts = {
            (a, b): n
            for a, b, n in self.connection.execute("SELECT md5path_1, md5path_2, count(*) FROM chunks GROUP BY 1, 2")
        }
        for row in self.connection.execute(f"SELECT md5path_1, md5path_2, {_COLUMN_LIST} FROM catalog"):
            result.count(Entry._make(row[2:]), chunk_counts.get((row[0], row[1]), 0))
        result.nested = int(self.connection.execute("SELECT count(*) FROM nested_catalogs").fetchone()[0])
        return result
