"""An index of where each of many objects is stored: recent ones in memory, older ones in an unnamed database.

An entry takes some 300 bytes of memory, and a tree has objects by the million.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from typing import Final, NamedTuple

IN_MEMORY: Final = 1 << 16
"""Objects that are looked up in memory."""
_CACHE_KIB: Final = 16 << 10
_BATCH: Final = 8192
_OBJECTS: Final = "data/"
_DIGEST_END: Final = len("data/00/") + 38


class Place(NamedTuple):
    """*size* bytes from *offset* on of an open *file*."""

    file: int
    offset: int
    size: int


class Places:
    """Places by the path that the object has in a storage, in the order in which they are added. Not thread-safe.

    *folder* is where the database lies (None: the system's folder for temporary files).
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder
        self._last: dict[str, Place] = {}
        self._database: sqlite3.Connection | None = None
        self._written = 0

    def close(self) -> None:
        """Forget everything."""
        self._last.clear()
        self._written = 0
        if self._database is not None:
            self._database.close()
            self._database = None

    def __len__(self) -> int:
        return self._written + len(self._last)

    def get(self, path: str) -> Place | None:
        """Where the object is, if it is there."""
        place = self._last.get(path)
        if place is not None or self._database is None or not path.startswith(_OBJECTS):
            return place
        row = self._database.execute("SELECT file, offset, size FROM place WHERE key = ?", (_key(path),)).fetchone()
        return None if row is None else Place(*row)

    def add(self, path: str, place: Place) -> None:
        """Note where an object is, which is not there yet."""
        self._last[path] = place
        if len(self._last) > IN_MEMORY:
            self._write()

    def _write(self) -> None:
        if self._database is None:
            self._database = _open(self._folder)
        rows = [(_key(path), *place) for path, place in self._last.items()]
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO place (key, file, offset, size) VALUES (?, ?, ?, ?)", rows)
        self._database.execute("COMMIT")
        self._written += len(rows)
        self._last.clear()

    def some(self, start: int) -> list[tuple[str, Place]]:
        """Some of those from number *start* on; none only at the end."""
        if start < self._written:
            assert self._database is not None
            sql = "SELECT key, file, offset, size FROM place WHERE rowid > ? ORDER BY rowid LIMIT ?"
            rows = self._database.execute(sql, (start, _BATCH)).fetchall()
            return [(_path(key), Place(*place)) for key, *place in rows]
        return [*self._last.items()][start - self._written :]


def _open(folder: str | None) -> sqlite3.Connection:
    """A database in a file that is there for as long as it is open."""
    descriptor, name = tempfile.mkstemp(prefix="cvmfs-places-", dir=folder)
    os.close(descriptor)
    try:
        database = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", f"cache_size=-{_CACHE_KIB}"):
            database.execute(f"PRAGMA {pragma}").close()
        database.execute("CREATE TABLE place (key BLOB UNIQUE, file INTEGER, offset INTEGER, size INTEGER)")
    finally:
        os.unlink(name)
    return database


def _key(path: str) -> bytes:
    """A path in a storage, shorter: the digest, and what is behind it."""
    return bytes.fromhex(path[5:7] + path[8:_DIGEST_END]) + path[_DIGEST_END:].encode()


def _path(key: bytes) -> str:
    digest = key[:20].hex()
    return f"data/{digest[:2]}/{digest[2:]}{key[20:].decode()}"
