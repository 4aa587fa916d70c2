"""A catalog: an SQLite file in memory. New ones get the schema of one that the target itself has made."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Iterator
from typing import Final

from conformance.entry import (
    CHUNKED,
    DIRECTORY,
    FILE,
    LINK,
    MOUNTPOINT,
    NESTED_ROOT,
    SPECIAL,
    Chunk,
    Entry,
)
from conformance.outcomes import Failed

COUNTERS: Final = (
    "regular",
    "symlink",
    "special",
    "dir",
    "nested",
    "chunked",
    "chunks",
    "file_size",
    "chunked_size",
    "xattr",
    "external",
    "external_file_size",
)
_EXTERNAL: Final = 128
_COLUMNS: Final = "hardlinks, hash, size, mode, mtime, flags, name, symlink, uid, gid, xattr, mtimens"
_KEY: Final = "md5path_1 = ? AND md5path_2 = ?"

Counters = dict[str, int]


def path_key(path: str) -> tuple[int, int]:
    """The MD5 of a path as two numbers; ``""`` is the root."""
    digest = hashlib.md5(as_bytes(path), usedforsecurity=False).digest()
    first, second = struct.unpack("<qq", digest)
    return first, second


def parent_of(path: str) -> str:
    return path.rpartition("/")[0]


class Catalog:
    """One catalog, open. ``prefix`` is the path that it begins at."""

    def __init__(self, data: bytes) -> None:
        self.db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self.db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        try:
            self.db.deserialize(data)
            self.prefix = self.property("root_prefix") or ""
            self._has_nanoseconds = any(row[1] == "mtimens" for row in self.db.execute("PRAGMA table_info(catalog)"))
        except sqlite3.Error as error:
            raise Failed(f"a catalog that SQLite cannot read: {error}") from None

    def close(self) -> None:
        self.db.close()

    def data(self) -> bytes:
        """The file."""
        return self.db.serialize()

    def blank(self, prefix: str) -> Catalog:
        """An empty catalog of the same schema for *prefix*."""
        made = Catalog(self.data())
        for table in ("catalog", "chunks", "nested_catalogs", "bind_mountpoints"):
            if made.has_table(table):
                made.db.execute(f"DELETE FROM {table}")
        made.db.execute("UPDATE statistics SET value = 0")
        made.set_property("root_prefix", prefix)
        made.set_property("revision", 0)
        made.db.execute("DELETE FROM properties WHERE key = 'previous_revision'")
        made.db.execute("VACUUM")
        made.prefix = prefix
        return made

    # --- properties and counters ----------------------------------------------------------------------------------

    def has_table(self, name: str) -> bool:
        return bool(self.db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone())

    def property(self, key: str) -> str | None:
        row = self.db.execute("SELECT value FROM properties WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_property(self, key: str, value: object) -> None:
        if isinstance(value, str):
            sql = "INSERT OR REPLACE INTO properties (key, value) VALUES (?, CAST(? AS TEXT))"
            self.db.execute(sql, (key, as_bytes(value)))
        else:
            self.db.execute("INSERT OR REPLACE INTO properties (key, value) VALUES (?, ?)", (key, value))

    def counters(self) -> Counters:
        """The stored statistics: ``self_...`` and ``subtree_...``."""
        return dict(self.db.execute("SELECT counter, value FROM statistics").fetchall())

    def set_counter(self, name: str, value: int) -> None:
        self.db.execute("INSERT OR REPLACE INTO statistics (counter, value) VALUES (?, ?)", (name, value))

    def count(self) -> Counters:
        """What the counters of this catalog's own entries have to be."""
        plain = f"flags & {FILE} AND NOT flags & {LINK | SPECIAL}"
        conditions = {
            "regular": plain,
            "symlink": f"flags & {LINK}",
            "special": f"flags & {SPECIAL}",
            "dir": f"flags & {DIRECTORY}",
            "chunked": f"flags & {CHUNKED}",
            "xattr": "xattr IS NOT NULL",
            "external": f"{plain} AND flags & {_EXTERNAL}",
        }
        found = {name: self._number(f"SELECT count(*) FROM catalog WHERE {sql}") for name, sql in conditions.items()}
        sums = {"file_size": plain, "chunked_size": f"flags & {CHUNKED}", "external_file_size": conditions["external"]}
        for name, sql in sums.items():
            found[name] = self._number(f"SELECT total(size) FROM catalog WHERE {sql}")
        found["chunks"] = self._number("SELECT count(*) FROM chunks")
        found["nested"] = self._number("SELECT count(*) FROM nested_catalogs")
        return found

    def _number(self, sql: str) -> int:
        return int(self.db.execute(sql).fetchone()[0])

    # --- entries --------------------------------------------------------------------------------------------------

    def get(self, path: str) -> Entry | None:
        """The entry at *path*, which is absolute; None if there is none."""
        row = self.db.execute(f"SELECT {self._columns()} FROM catalog WHERE {_KEY}", path_key(path)).fetchone()
        return None if row is None else self._entry(path, row)

    def children(self, path: str) -> Iterator[tuple[str, Entry]]:
        """Paths and entries directly below *path*."""
        sql = f"SELECT {self._columns()} FROM catalog WHERE parent_1 = ? AND parent_2 = ? ORDER BY name"
        for row in self.db.execute(sql, path_key(path)).fetchall():
            child = f"{path}/{row[6]}"
            if not (child == self.prefix or row[6] == ""):
                yield child, self._entry(child, row)

    def put(self, path: str, entry: Entry) -> None:
        """Add or replace the row of *path*."""
        key = path_key(path)
        parent = (0, 0) if not path else path_key(parent_of(path))
        values: tuple[object, ...] = (
            *key,
            *parent,
            (entry.group << 32) | entry.links,
            entry.hash,
            entry.size,
            entry.mode,
            entry.mtime,
            entry.flags | (CHUNKED if entry.chunks else 0),
            as_bytes(path.rpartition("/")[2]),
            as_bytes(entry.symlink),
            entry.uid,
            entry.gid,
            entry.xattr,
        )
        columns = "md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, flags, name, symlink"
        columns += ", uid, gid, xattr"
        marks = "?,?,?,?,?,?,?,?,?,?,CAST(? AS TEXT),CAST(? AS TEXT),?,?,?"
        if self._has_nanoseconds:
            columns, marks, values = columns + ", mtimens", marks + ",?", (*values, entry.mtimens)
        self.db.execute(f"INSERT OR REPLACE INTO catalog ({columns}) VALUES ({marks})", values)
        self.db.execute(f"DELETE FROM chunks WHERE {_KEY}", key)
        self.db.executemany(
            "INSERT INTO chunks (md5path_1, md5path_2, offset, size, hash) VALUES (?,?,?,?,?)",
            [(*key, chunk.offset, chunk.size, chunk.hash) for chunk in entry.chunks],
        )

    def delete(self, path: str) -> None:
        for table in ("catalog", "chunks"):
            self.db.execute(f"DELETE FROM {table} WHERE {_KEY}", path_key(path))

    def _columns(self) -> str:
        return _COLUMNS if self._has_nanoseconds else _COLUMNS.replace("mtimens", "NULL")

    def _entry(self, path: str, row: tuple[int, bytes, int, int, int, int, str, str, int, int, bytes, int]) -> Entry:
        hardlinks, digest, size, mode, mtime, flags, _, symlink, uid, gid, xattr, mtimens = row
        chunks: tuple[Chunk, ...] = ()
        if flags & CHUNKED:
            sql = f"SELECT offset, size, hash FROM chunks WHERE {_KEY} ORDER BY offset"
            chunks = tuple(Chunk(*found) for found in self.db.execute(sql, path_key(path)))
        return Entry(
            mode=mode,
            size=size,
            mtime=mtime,
            mtimens=mtimens,
            uid=uid,
            gid=gid,
            symlink=symlink,
            hash=digest,
            links=hardlinks & 0xFFFFFFFF,
            group=hardlinks >> 32,
            xattr=xattr,
            flags=flags,
            chunks=chunks,
        )

    # --- nested catalogs ------------------------------------------------------------------------------------------

    def nested(self) -> dict[str, tuple[str, int]]:
        """Path -> name and uncompressed size of the catalogs that begin in this one."""
        return {
            path: (name, size) for path, name, size in self.db.execute("SELECT path, sha1, size FROM nested_catalogs")
        }

    def set_nested(self, path: str, name: str, size: int) -> None:
        sql = "INSERT OR REPLACE INTO nested_catalogs (path, sha1, size) VALUES (CAST(? AS TEXT),?,?)"
        self.db.execute(sql, (as_bytes(path), name, size))

    def drop_nested(self, path: str) -> None:
        self.db.execute("DELETE FROM nested_catalogs WHERE path = CAST(? AS TEXT)", (as_bytes(path),))


def as_bytes(path: str) -> bytes:
    """A name or path as it is on disk; SQLite takes no other than UTF-8 as text."""
    return path.encode("utf-8", "surrogateescape")


def as_mountpoint(flags: int) -> int:
    """Flags of a nested catalog's own row, as they are in the catalog above."""
    return (flags & ~NESTED_ROOT) | MOUNTPOINT


def as_nested_root(flags: int) -> int:
    """The same in the nested catalog itself."""
    return (flags & ~MOUNTPOINT) | NESTED_ROOT


def as_plain(flags: int) -> int:
    return flags & ~(MOUNTPOINT | NESTED_ROOT)
