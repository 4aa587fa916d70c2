"""Everything that catalog trees refer to, as a set of object names in bounded memory.

Catalogs are prefetched and inflated by threads; each is read once. Small ones are opened in memory, large ones from a
temporary file in the repository's spool folder.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.care.digests import DigestSet
from cvmfs_gw.engine.errors import MergeError, MissingObject
from cvmfs_objstore.errors import DatabaseError, InvalidHash, ObjectCorrupt, ObjectNotFound, ObjectTooLarge
from cvmfs_objstore.formats.database import attach, to_str
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.objects import ObjectStore

IN_MEMORY: Final = 4 << 20
"""Catalogs whose stored form is larger than this, in bytes, are opened from a file."""
MAX_CATALOG: Final = 64 << 30
"""The largest catalog that is opened, in bytes before compression."""
_AHEAD: Final = 4
"""The number of catalogs that are prefetched."""
_THREADS: Final = 2


@dataclass(frozen=True, slots=True)
class CatalogFacts:
    """A marked catalog: its predecessor, and when it was last modified (seconds since the epoch)."""

    previous: ContentHash | None
    last_modified: int


class Marker:
    """Marks trees of one repository. Close it. Not thread-safe.

    Large catalogs are unpacked in *folder*. *check* is called for each catalog and may raise an exception to abort.
    """

    def __init__(self, objects: ObjectStore, folder: str, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._objects = objects
        self._folder = folder
        self._pool = ThreadPoolExecutor(_THREADS, "mark")
        self.marked = DigestSet()
        """All names, including those of the catalogs."""
        self.catalogs: set[ContentHash] = set()
        """The catalogs that were read."""
        self._facts: dict[ContentHash, CatalogFacts] = {}

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def add(self, names: Iterable[ContentHash | None]) -> None:
        """Mark single objects."""
        for name in names:
            if name is not None:
                self.marked.add(name)

    def mark(self, root: ContentHash) -> CatalogFacts:
        """Mark a root catalog and everything below it.

        Raises :exc:`MissingObject` and :exc:`MergeError` for a catalog that is missing or unreadable: as the objects
        it refers to are unknown, nothing must be removed then.
        """
        if root not in self.catalogs:
            waiting: deque[ContentHash] = deque((root,))
            self.catalogs.add(root)
            fetching: deque[tuple[ContentHash, Future[_Fetched]]] = deque()
            try:
                while waiting or fetching:
                    while waiting and len(fetching) < _AHEAD:
                        # the last found first: then no more wait than lie on the way from the root
                        ref = waiting.pop()
                        fetching.append((ref, self._pool.submit(self._fetch, ref)))
                    self._check()
                    ref, future = fetching[0]
                    facts, nested = self._read(ref, future.result())
                    if ref == root:
                        self._facts[root] = facts
                    self.marked.add(ref)
                    fetching.popleft()
                    waiting.extend(nested - self.catalogs)
                    self.catalogs |= nested
            except BaseException:
                # the tree of another root may have what was not looked at, too
                self.catalogs.difference_update((root,), waiting, (ref for ref, _ in fetching))
                raise
        return self._facts.get(root) or self._read_facts(root)

    def _read_facts(self, ref: ContentHash) -> CatalogFacts:
        with self._fetch(ref) as fetched:
            return _facts(fetched.connection)

    def _fetch(self, ref: ContentHash) -> _Fetched:
        try:
            if self._objects.size(ref) <= IN_MEMORY:
                return _Fetched.of_bytes(self._objects.get_plain(ref, max_size=MAX_CATALOG))
            os.makedirs(self._folder, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix="mark-") as file:
                self._objects.get_plain_to(ref, file, max_size=MAX_CATALOG)
                file.flush()
                return _Fetched.of_file(file.name)
        except ObjectNotFound as error:
            raise MissingObject(f"not in the storage: catalog {ref}") from error
        except (ObjectCorrupt, ObjectTooLarge, DatabaseError, sqlite3.Error) as error:
            raise MergeError(f"catalog {ref}: {error}") from error

    def _read(self, ref: ContentHash, fetched: _Fetched) -> tuple[CatalogFacts, set[ContentHash]]:
        with fetched:
            try:
                self.marked.add_references(fetched.connection)
                return _facts(fetched.connection), _nested(fetched.connection)
            except (sqlite3.Error, TypeError, ValueError) as error:
                raise MergeError(f"catalog {ref}: {error}") from error


class _Fetched:
    """An open catalog that is read once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        connection.text_factory = to_str  # properties hold the catalog's path, and names are bytes

    @classmethod
    def of_bytes(cls, data: bytes) -> _Fetched:
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            attach(connection, "main", data)
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    @classmethod
    def of_file(cls, path: str) -> _Fetched:
        """The file may be deleted after this, as it is open."""
        connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    def __enter__(self) -> _Fetched:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def _facts(connection: sqlite3.Connection) -> CatalogFacts:
    properties = {str(key): str(value) for key, value in connection.execute("SELECT key, value FROM properties")}
    text = properties.get("previous_revision", "")
    try:
        previous = ContentHash.parse(text, Suffix.CATALOG) if text.strip("0") else None
    except InvalidHash:
        previous = None
    modified = properties.get("last_modified", "")
    return CatalogFacts(previous, int(modified) if modified.isdigit() else 0)


def _nested(connection: sqlite3.Connection) -> set[ContentHash]:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    found: set[ContentHash] = set()
    for table in ("nested_catalogs", "bind_mountpoints"):
        if table in tables:
            rows = connection.execute(f"SELECT sha1 FROM {table}")
            found.update(ContentHash.parse(text, Suffix.CATALOG) for (text,) in rows)
    return found
