"""``stats.db``: what each publish and each garbage collection changed, for ``cvmfs_server print-stats``.

Source: schema 1.0 revision 4 in ``/var/spool/cvmfs/<fqrn>/stats.db``; times are UTC text, sizes bytes.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import astuple, dataclass
from typing import Final

from cvmfs_objstore.formats.entry import FLAG_DIRECTORY, FLAG_FILE, FLAG_LINK, FLAG_SPECIAL, Counters, Entry, Kind

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))",
    "CREATE TABLE IF NOT EXISTS publish_statistics (publish_id INTEGER PRIMARY KEY,start_time TEXT,finish_time TEXT,"
    "revision INTEGER,files_added INTEGER,files_removed INTEGER,files_changed INTEGER,chunks_added INTEGER,"
    "chunks_duplicated INTEGER,catalogs_added INTEGER,directories_added INTEGER,directories_removed INTEGER,"
    "directories_changed INTEGER,symlinks_added INTEGER,symlinks_removed INTEGER,symlinks_changed INTEGER,"
    "sz_bytes_added INTEGER,sz_bytes_removed INTEGER,sz_bytes_uploaded INTEGER,sz_catalog_bytes_uploaded INTEGER,"
    "success INTEGER)",
    "CREATE TABLE IF NOT EXISTS gc_statistics (gc_id INTEGER PRIMARY KEY,start_time TEXT,finish_time TEXT,"
    "n_preserved_catalogs INTEGER,n_condemned_catalogs INTEGER,n_condemned_objects INTEGER,"
    "sz_condemned_bytes INTEGER,n_duplicate_delete_requests INTEGER,success INTEGER)",
)
_KINDS: Final = FLAG_DIRECTORY | FLAG_FILE | FLAG_LINK | FLAG_SPECIAL
_TIMEOUT_S: Final = 5.0
_TIME: Final = "%Y-%m-%d %H:%M:%S"


@dataclass(slots=True)
class PublishCounts:
    """The statistics of one publish, in the order of the columns. Sizes are in bytes."""

    files_added: int = 0
    files_removed: int = 0
    files_changed: int = 0
    chunks_added: int = 0
    chunks_duplicated: int = 0
    catalogs_added: int = 0
    directories_added: int = 0
    directories_removed: int = 0
    directories_changed: int = 0
    symlinks_added: int = 0
    symlinks_removed: int = 0
    symlinks_changed: int = 0
    bytes_added: int = 0
    bytes_removed: int = 0
    bytes_uploaded: int = 0
    catalog_bytes_uploaded: int = 0

    def count(self, old: Entry | None, new: Entry | None) -> None:
        """Count the replacement of *old* with *new*; None means no entry."""
        if old is None and new is not None and new.flags & _KINDS == FLAG_FILE:  # by far the most frequent case
            self.files_added += 1
            self.bytes_added += new.size
            return
        if old is not None and new is not None and old.kind is new.kind:
            self._add(_PLURAL[new.kind], "changed")
        else:
            if old is not None:
                self._add(_PLURAL[old.kind], "removed")
            if new is not None:
                self._add(_PLURAL[new.kind], "added")
        if old is not None and old.kind is Kind.FILE:
            self.bytes_removed += old.size
        if new is not None and new.kind is Kind.FILE:
            self.bytes_added += new.size

    def count_files(self, new: Counters) -> None:
        """Count new files, links and special files."""
        self.files_added += new.regular + new.special
        self.symlinks_added += new.symlink
        self.bytes_added += new.file_size

    def _add(self, kind: str, what: str) -> None:
        name = f"{kind}_{what}"
        setattr(self, name, getattr(self, name) + 1)


_PLURAL: Final = {
    Kind.FILE: "files",
    Kind.SPECIAL: "files",
    Kind.DIRECTORY: "directories",
    Kind.SYMLINK: "symlinks",
}


@dataclass(frozen=True, slots=True)
class GcCounts:
    """The statistics of one garbage collection, in the order of the columns. Sizes are in bytes."""

    preserved_catalogs: int = 0
    condemned_catalogs: int = 0
    condemned_objects: int = 0
    condemned_bytes: int = 0
    duplicate_delete_requests: int = 0


def record_publish(path: str, fqrn: str, started: float, finished: float, revision: int, counts: PublishCounts) -> None:
    """Add a successful publish to the database at *path*; times in seconds. Raises ``sqlite3.Error``."""
    _insert(path, fqrn, "publish_statistics", (_text(started), _text(finished), revision, *astuple(counts), 1))


def record_gc(path: str, fqrn: str, started: float, finished: float, counts: GcCounts, *, success: bool) -> None:
    """Add a garbage collection to the database at *path*; times in seconds. Raises ``sqlite3.Error``."""
    _insert(path, fqrn, "gc_statistics", (_text(started), _text(finished), *astuple(counts), int(success)))


def _insert(path: str, fqrn: str, table: str, values: tuple[object, ...]) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=_TIMEOUT_S, isolation_level=None)) as connection:
        # At worst, a power cut loses the last row.
        connection.execute("PRAGMA synchronous=OFF")
        # a file without it is one that a full disk, or a kill, has kept from getting its tables
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'properties'").fetchone() is None:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _TABLES:
                connection.execute(statement)
            connection.executemany(
                "INSERT OR IGNORE INTO properties VALUES (?, ?)",
                [("schema", "1.0"), ("schema_revision", "4"), ("repo_name", fqrn)],
            )
            connection.execute("COMMIT")
        marks = ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO {table} VALUES (NULL, {marks})", values)


def _text(moment: float) -> str:
    return time.strftime(_TIME, time.gmtime(moment))
