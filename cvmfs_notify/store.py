"""What is kept across restarts: the newest message of each repository, in one small SQLite file.

Written after each publication, in its own transaction, but not synced: a power cut may lose the last ones. A gateway is
not affected, as it publishes the current manifests of its repositories when it starts.

A file that cannot be read is renamed, and the server starts with an empty one: subscribers miss nothing but the initial
message about the current revision.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable
from typing import Final

from cvmfs_notify.broker import Event, Publication

log = logging.getLogger(__name__)

_SCHEMA: Final = """
create table if not exists newest(
  fqrn text primary key, number integer not null, revision integer not null, published integer not null,
  message blob not null) without rowid;
create table if not exists property(key text primary key, value text not null) without rowid;
"""


class EventStore:
    """The newest events in a file, or in memory if *path* is None. Thread-safe."""

    def __init__(self, path: str | None) -> None:
        self._lock = threading.Lock()
        self._connection = _open(path)
        self.epoch = self._epoch()

    def load(self) -> list[Event]:
        """Every event, in the order of their numbers."""
        with self._lock:
            rows = self._connection.execute(
                "select number, fqrn, revision, published, message from newest order by number"
            ).fetchall()
        return [Event(number, Publication(*rest)) for number, *rest in rows]

    def save(self, events: Iterable[Event]) -> None:
        """Store *events*, each replacing the one of its repository unless that is newer."""
        rows = [
            (e.fqrn, e.number, e.publication.revision, e.publication.published, e.publication.message) for e in events
        ]
        with self._lock, self._connection:
            self._connection.executemany(
                "insert into newest(fqrn, number, revision, published, message) values(?, ?, ?, ?, ?)"
                " on conflict(fqrn) do update set number = excluded.number, revision = excluded.revision,"
                " published = excluded.published, message = excluded.message where excluded.number > number",
                rows,
            )

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _epoch(self) -> str:
        with self._connection:
            self._connection.execute(
                "insert or ignore into property(key, value) values('epoch', ?)", (secrets.token_hex(4),)
            )
            (value,) = self._connection.execute("select value from property where key = 'epoch'").fetchone()
        return str(value)


def _open(path: str | None) -> sqlite3.Connection:
    if path is None:
        return _connect(":memory:")
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise OSError(f"cannot open {path}: {error}") from error
        log.error("%s cannot be read and is put aside: %s", path, error)
        os.replace(path, path + ".broken")
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + suffix)
        return _connect(path)


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=10.0)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = normal")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection
