"""Catalogs by content hash, over an object store, with a bounded cache of recent ones."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import Final

from cvmfs_gw.engine.errors import MergeError, MissingObject
from cvmfs_gw.engine.journal import Journal
from cvmfs_objstore.errors import DatabaseError, ObjectCorrupt, ObjectNotFound, ObjectTooLarge
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.objects import ObjectStore
from cvmfs_objstore.piecewise import HEADER, OTHER_HEADER, Deflated

MAX_CATALOG_SIZE: Final = 4 << 30
"""The largest catalog that is opened, in bytes before compression."""
CACHE_SIZE: Final = 96 << 20
"""Bytes of recent catalogs that are kept in memory, for all repositories together."""


class CatalogCache:
    """An LRU cache of catalogs. Thread-safe.

    Catalogs that were read are kept as plain bytes; those that were stored also in their stored form, whose unchanged
    parts the next version reuses.
    """

    def __init__(self, size: int = CACHE_SIZE) -> None:
        self._size = size
        self._held: OrderedDict[tuple[int, ContentHash], bytes | Deflated] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, store: int, ref: ContentHash) -> bytes | None:
        """A catalog of the store number *store*."""
        with self._lock:
            data = self._held.get((store, ref))
            if data is not None:
                self._held.move_to_end((store, ref))
            return data.plain if isinstance(data, Deflated) else data

    def put(self, store: int, ref: ContentHash, data: bytes | Deflated) -> None:
        """Cache a catalog, unless it is so large that it would leave no room for others."""
        if isinstance(data, Deflated) and data.size > self._size // 2:
            data = data.plain
        if _size(data) > self._size // 2:
            return
        with self._lock:
            if (store, ref) not in self._held:
                self._held[store, ref] = data
                self._bytes += _size(data)
            while self._bytes > self._size:
                _, dropped = self._held.popitem(last=False)
                self._bytes -= _size(dropped)

    def take_deflated(self, store: int, ref: ContentHash) -> Deflated | None:
        """A catalog with its stored form; from now on, only the plain bytes are cached."""
        with self._lock:
            data = self._held.get((store, ref))
            if not isinstance(data, Deflated):
                return None
            self._held[store, ref] = data.plain
            self._bytes -= data.size - len(data.plain)
            return data

    def drop(self, store: int, ref: ContentHash) -> None:
        """Remove a catalog from the cache."""
        with self._lock:
            data = self._held.pop((store, ref), None)
            self._bytes -= _size(data) if data is not None else 0


def _size(data: bytes | Deflated) -> int:
    return data.size if isinstance(data, Deflated) else len(data)


_numbers = itertools.count()


class CatalogStore:
    """Loads and stores catalogs. Thread-safe; the catalogs that it returns are private copies."""

    def __init__(self, objects: ObjectStore, cache: CatalogCache | None = None) -> None:
        self.objects = objects
        self._cache = cache or CatalogCache()
        self._number = next(_numbers)
        self._loading: set[ContentHash] = set()
        self._loaded = threading.Condition()

    def plain(self, ref: ContentHash) -> bytes:
        """The database file's bytes of a catalog; raises :exc:`MissingObject` or :exc:`MergeError`, naming it."""
        with self._loaded:
            # Another thread may be reading it already: wait for that rather than do the same work twice.
            self._loaded.wait_for(lambda: ref not in self._loading)
            data = self._cache.get(self._number, ref)
            if data is not None:
                return data
            self._loading.add(ref)
        try:
            data = self.objects.get_plain(ref, max_size=MAX_CATALOG_SIZE)
            self._cache.put(self._number, ref, data)
            return data
        except ObjectNotFound as error:
            raise MissingObject(f"not in the storage: catalog {ref}") from error
        except (ObjectCorrupt, ObjectTooLarge) as error:
            raise MergeError(f"catalog {ref}: {error}") from error
        finally:
            with self._loaded:
                self._loading.discard(ref)
                self._loaded.notify_all()

    def forget(self, ref: ContentHash) -> None:
        """Drop a catalog from the cache: it is unlikely to be needed again."""
        self._cache.drop(self._number, ref)

    def load(self, ref: ContentHash) -> Catalog:
        """Open a catalog; raises like :meth:`plain`."""
        return self.open(ref, self.plain(ref))

    @staticmethod
    def open(ref: ContentHash, data: bytes) -> Catalog:
        """Open the catalog *ref*, whose plain bytes are *data*; raises :exc:`MergeError`."""
        try:
            return Catalog.load(data)
        except DatabaseError as error:
            raise MergeError(f"catalog {ref}: {error}") from error

    def store(
        self,
        catalog: Catalog,
        algorithm: Algorithm,
        journal: Journal | None = None,
        replaced: ContentHash | None = None,
        *,
        last: bool = False,
    ) -> NestedRef:
        """Store a catalog; returns its reference.

        Unless it exists, its name is recorded in *journal* first; it never equals the name of a publisher's upload.
        *replaced* is the catalog that it was made from. With *last*, *catalog* is closed before it is compressed.
        """
        data = catalog.dump()
        if last:
            catalog.close()
        earlier = self._cache.take_deflated(self._number, replaced) if replaced is not None else None
        # Catalogs contain their revision and time, so they are never deduplicated, and a faster encoder loses nothing.
        deflated = Deflated.of(data, earlier)
        # A publisher may upload the very same catalog, made from the same root in the same second. Undoing our commit
        # must not remove that, so ours must be a different object.
        stored = deflated.stream(HEADER if journal is None else OTHER_HEADER)
        ref = ContentHash.of(stored, algorithm, Suffix.CATALOG)
        if journal is not None and not self.objects.has(ref):
            journal.note(ref)
        self.objects.put(ref, stored)
        self._cache.put(self._number, ref, deflated)
        return NestedRef(ref, len(data))
