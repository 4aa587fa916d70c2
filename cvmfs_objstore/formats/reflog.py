"""The reflog: every root catalog, certificate, tag database and meta info object that a manifest ever referred to.

It is stored uncompressed as ``.cvmfsreflog``; the manifest has the hash of that file. Garbage collection starts there.

Source: schema 1.0 of deployed reflogs.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import ClassVar, Final

from cvmfs_objstore.errors import DatabaseError
from cvmfs_objstore.formats.database import Database
from cvmfs_objstore.hashes import ContentHash, Suffix

REFLOG_PATH: Final = ".cvmfsreflog"


class RefType(IntEnum):
    """What a reference names, as stored in column ``type``."""

    CATALOG = 0
    CERTIFICATE = 1
    HISTORY = 2
    METAINFO = 3

    @property
    def suffix(self) -> Suffix:
        return _SUFFIXES[self]


_SUFFIXES: Final = {
    RefType.CATALOG: Suffix.CATALOG,
    RefType.CERTIFICATE: Suffix.CERTIFICATE,
    RefType.HISTORY: Suffix.HISTORY,
    RefType.METAINFO: Suffix.METAINFO,
}
_BY_SUFFIX: Final = {suffix: kind for kind, suffix in _SUFFIXES.items()}


class Reflog(Database):
    """A reflog in memory."""

    KIND: ClassVar[str] = "reflog"
    SCHEMA: ClassVar[float] = 1.0
    SCHEMA_REVISION: ClassVar[int] = 0
    READABLE: ClassVar[tuple[float, ...]] = (1.0,)

    @classmethod
    def create(cls, fqrn: str) -> Reflog:
        """An empty reflog of a repository."""
        reflog = cls._new()
        reflog.set_property("fqrn", fqrn)
        return reflog

    def _create_tables(self) -> None:
        self.connection.execute(
            "CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, CONSTRAINT pk_refs PRIMARY KEY (hash))"
        )

    def _upgrade(self, version: float, revision: int) -> None:
        raise DatabaseError(f"reflog of unknown schema {version:g}")

    def add(self, ref: ContentHash, timestamp: int) -> bool:
        """Record an object (its suffix says what it is) as of *timestamp* in seconds; False if it was known."""
        sql = "INSERT OR IGNORE INTO refs (hash, type, timestamp) VALUES (?, ?, ?)"
        return self.connection.execute(sql, (ref.bare, _BY_SUFFIX[ref.suffix], timestamp)).rowcount > 0

    def remove(self, ref: ContentHash) -> None:
        """Forget an object."""
        self.connection.execute("DELETE FROM refs WHERE hash = ?", (ref.bare,))

    def __contains__(self, ref: ContentHash) -> bool:
        row = self.connection.execute("SELECT type FROM refs WHERE hash = ?", (ref.bare,)).fetchone()
        return row is not None and RefType(row[0]).suffix == ref.suffix

    def refs(self, kind: RefType | None = None) -> Iterator[tuple[ContentHash, int]]:
        """References with their time in seconds, oldest first; raises :exc:`DatabaseError`."""
        sql = "SELECT hash, type, timestamp FROM refs ORDER BY timestamp, rowid"
        for text, number, timestamp in self.connection.execute(sql):
            try:
                ref = ContentHash.parse(text, RefType(number).suffix)
            except (TypeError, ValueError) as error:
                raise DatabaseError(f"reflog: an invalid row: {error}") from error
            if kind is None or number == kind:
                yield ref, timestamp
