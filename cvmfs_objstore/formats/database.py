"""What the three SQLite formats (catalog, tag database, reflog) have in common.

Each is an SQLite file with a table ``properties(key, value)`` that holds, among others, ``schema`` and
``schema_revision``. A database is edited in memory: loaded from its bytes, upgraded to the newest schema
revision, and serialized again. A loaded database is a private copy, so neither the upgrade nor any change is
visible before the result is stored under a new name. Unknown tables, columns and properties are kept as they are.

Names in CernVM-FS are bytes; in Python they are ``str`` with surrogateescape. SQLite does not accept lone
surrogates, so text goes in as bytes with a cast (``CAST(? AS TEXT)``) and comes out through :func:`to_str`.

Source: observed schemas of deployed databases; SQLite's "database file format".
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import ClassVar, Final, Self

from cvmfs_objstore.errors import DatabaseError

if sqlite3.sqlite_version_info < (3, 37):  # 3.36 for deserialize, 3.37 for STRICT tables
    raise ImportError(f"SQLite 3.37 or newer is needed, this is {sqlite3.sqlite_version}")

_MAGIC: Final = b"SQLite format 3\x00"
_WAL_VERSIONS: Final = slice(18, 20)
# An in-memory copy cannot have a write-ahead log: a file in WAL mode is opened as if in rollback-journal mode.
_ROLLBACK_VERSIONS: Final = b"\x01\x01"
_FREE_PAGE_LIMIT: Final = 0.2
_LARGE: Final = 32 << 20
"""The size in bytes from which a copy must not block other threads; see :func:`serialize`."""
# Triggers, views and virtual tables run code of the database's author when somebody else uses the database.
_ALIEN: Final = (
    "SELECT CASE type WHEN 'table' THEN 'virtual table' ELSE type END, name FROM sqlite_master"
    " WHERE type NOT IN ('table', 'index') OR (type = 'table' AND rootpage = 0) LIMIT 1"
)


def to_bytes(text: str) -> bytes:
    """The bytes on disk of a name or path."""
    return text.encode("utf-8", "surrogateescape")


def to_str(raw: bytes) -> str:
    """The name or path that bytes on disk stand for."""
    return raw.decode("utf-8", "surrogateescape")


class Database:
    """An SQLite database of a known schema, in memory.

    Subclasses set the class variables and override :meth:`_create_tables` and :meth:`_upgrade`. Not thread-safe, but
    it may be handed from one thread to another. Close it, or use it as a context manager.
    """

    KIND: ClassVar[str]
    """What the database is called in messages."""
    SCHEMA: ClassVar[float]
    """The schema version that is written."""
    SCHEMA_REVISION: ClassVar[int]
    """The schema revision that is written."""
    READABLE: ClassVar[tuple[float, ...]]
    """The schema versions that can be read (and are upgraded)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.file: bytes | None = None
        """The bytes that it was loaded from, if it needed no upgrade: still its content until it is changed."""
        self.loaded_revision = self.SCHEMA_REVISION
        """The schema revision before the upgrade."""
        connection.text_factory = to_str
        # The copy in memory does not survive a crash anyway, so a rollback journal would only cost time.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        for pragma in ("cell_size_check=ON", "trusted_schema=OFF"):
            connection.execute(f"PRAGMA {pragma}")

    @classmethod
    def _connect(cls) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)

    @classmethod
    def _new(cls) -> Self:
        """An empty database with the tables of the newest schema."""
        database = cls(cls._connect())
        database.connection.execute(
            "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))"
        )
        database._create_tables()
        database.set_property("schema", f"{cls.SCHEMA:.1f}")
        database.set_property("schema_revision", str(cls.SCHEMA_REVISION))
        return database

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Open a database from its (decompressed) bytes; raises :exc:`DatabaseError` for anything else."""
        database = cls(cls._connect())
        try:
            attach(database.connection, "main", data)
            if not database._check_schema():
                database.file = data
        except (sqlite3.Error, ValueError) as error:
            database.close()
            raise DatabaseError(f"not a {cls.KIND}: {error}") from error
        except BaseException:
            database.close()
            raise
        return database

    def _check_schema(self) -> bool:
        """Upgrade the schema if it is old; returns whether it was."""
        alien = self.connection.execute(_ALIEN).fetchone()
        if alien is not None:
            raise DatabaseError(f"a {self.KIND} has no {alien[0]} ({alien[1]!r})")
        version = float(self.property("schema") or "0")
        revision = int(self.property("schema_revision") or "0")
        if not any(abs(version - known) < 0.0005 for known in self.READABLE):
            raise DatabaseError(f"{self.KIND} of unknown schema {version:g}")
        self.loaded_revision = revision
        if version < self.SCHEMA - 0.0005 or revision < self.SCHEMA_REVISION:
            self._upgrade(version, revision)
            self.set_property("schema", f"{self.SCHEMA:.1f}")
            self.set_property("schema_revision", str(self.SCHEMA_REVISION))
            return True
        return False

    def _create_tables(self) -> None:
        raise NotImplementedError

    def _upgrade(self, version: float, revision: int) -> None:
        """Bring the tables from schema *version*, *revision* to the newest."""
        raise NotImplementedError

    def dump(self) -> bytes:
        """The bytes of the database file, compacted if much of it is unused."""
        pages, free = (self._pragma(name) for name in ("page_count", "freelist_count"))
        if free > pages * _FREE_PAGE_LIMIT:
            self.connection.execute("VACUUM")
        return serialize(self.connection)

    def _pragma(self, name: str) -> int:
        return int(self.connection.execute(f"PRAGMA {name}").fetchone()[0])

    def property(self, key: str) -> str | None:
        """The value of a property as text, or None if there is none."""
        row = self.connection.execute("SELECT value FROM properties WHERE key = ?", (key,)).fetchone()
        return None if row is None or row[0] is None else str(row[0])

    def int_property(self, key: str, default: int) -> int:
        """The value of a property as a whole number; *default* if there is none; raises :exc:`DatabaseError`."""
        value = self.property(key)
        if value is None:
            return default
        try:
            return int(value)
        except ValueError as error:
            raise DatabaseError(f"{self.KIND}: property {key} is not a number: {value[:40]!r}") from error

    def set_property(self, key: str, value: str | int | None) -> None:
        """Set a property, or with None remove it."""
        if value is None:
            self.connection.execute("DELETE FROM properties WHERE key = ?", (key,))
        else:
            sql = "INSERT OR REPLACE INTO properties (key, value) VALUES (?, CAST(? AS TEXT))"
            self.connection.execute(sql, (key, to_bytes(str(value))))

    def properties(self) -> dict[str, str]:
        """All properties, as text, in the order in which they were first set."""
        return {
            str(key): str(value)
            for key, value in self.connection.execute("SELECT key, value FROM properties ORDER BY rowid")
        }

    def columns(self, table: str) -> set[str]:
        """Column names of *table*; empty if there is no such table."""
        return {row[1] for row in self.connection.execute(f"PRAGMA table_info({table})")}

    @contextlib.contextmanager
    def bulk(self) -> Iterator[None]:
        """Make the changes in one transaction, for speed (three times as fast). There is no rollback on an error."""
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.execute("COMMIT")

    def close(self) -> None:
        """Free the memory. May be called more than once."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def attach(connection: sqlite3.Connection, name: str, data: bytes) -> None:
    """Open the bytes of a database file, in memory, on *connection* as the schema *name*.

    Raises :exc:`DatabaseError` if they are not an SQLite file. Detach any schema but ``main`` after use.
    """
    if not data.startswith(_MAGIC) or len(data) < 512:
        raise DatabaseError("not an SQLite database")
    if data[_WAL_VERSIONS] != _ROLLBACK_VERSIONS:
        data = data[: _WAL_VERSIONS.start] + _ROLLBACK_VERSIONS + data[_WAL_VERSIONS.stop :]
    if name != "main":
        attach_empty(connection, name)
    connection.deserialize(data, name=name)


def serialize(connection: sqlite3.Connection, name: str = "main") -> bytes:
    """The database file's bytes of a schema.

    ``Connection.serialize`` holds the interpreter lock while it copies, half a millisecond per MiB. So a large database
    is copied through an unnamed temporary file: three times as slow, but other threads go on.
    """
    pages = connection.execute(f"PRAGMA {name}.page_count").fetchone()[0]
    if pages * connection.execute(f"PRAGMA {name}.page_size").fetchone()[0] >= _LARGE:
        with contextlib.suppress(OSError, sqlite3.Error):  # no room, for example
            return _through_file(connection, name)
    return connection.serialize(name=name)


def _through_file(connection: sqlite3.Connection, name: str) -> bytes:
    with contextlib.ExitStack() as stack:
        with tempfile.TemporaryDirectory(prefix="cvmfs-gw-") as folder:
            path = os.path.join(folder, "database")
            target = stack.enter_context(contextlib.closing(sqlite3.connect(path, isolation_level=None)))
            file = stack.enter_context(open(path, "rb", buffering=0))
        # Unlinked before anything is written to it, so a process that is killed leaves nothing behind.
        for pragma in ("journal_mode=OFF", "synchronous=OFF"):
            target.execute(f"PRAGMA {pragma}")
        connection.backup(target, name=name)
        return file.read()


def attach_empty(connection: sqlite3.Connection, name: str) -> None:
    """Attach an empty in-memory database to *connection* as the schema *name*."""
    connection.execute(f"ATTACH ':memory:' AS {name}")
    connection.execute(f"PRAGMA {name}.journal_mode=OFF")


def detach(connection: sqlite3.Connection, name: str) -> None:
    """Undo :func:`attach`; does nothing if it is not attached."""
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute(f"DETACH {name}")
