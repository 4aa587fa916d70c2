"""Catalogs by content hash, over an object store, with a bounded memory of recent ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from cvmfs_gw.engine.errors import MergeError, MissingObject
from cvmfs_gw.engine.journal import Journal
from cvmfs_objstore.compression import deflate_fast
from cvmfs_objstore.errors import DatabaseError, ObjectCorrupt, ObjectNotFound, ObjectTooLarge
from cvmfs_objstore.formats.catalog import Catalog, NestedRef
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.objects import ObjectStore

MAX_CATALOG_SIZE: Final = 4 << 30
"""Largest catalog that is opened, in bytes before compression."""
_CACHE_BYTES: Final = 192 << 20


class CatalogStore:
    """Loads and stores catalogs. Thread-safe; the catalogs that it returns are private copies."""

    def __init__(self, objects: ObjectStore, cache_bytes: int = _CACHE_BYTES) -> None:
        self.objects = objects
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[ContentHash, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def plain(self, ref: ContentHash) -> bytes:
        """The database file's bytes of a catalog; raises :exc:`MissingObject` or :exc:`MergeError`, naming it."""
        with self._lock:
            data = self._cached.get(ref)
            if data is not None:
                self._cached.move_to_end(ref)
                return data
        try:
            data = self.objects.get_plain(ref, max_size=MAX_CATALOG_SIZE)
        except ObjectNotFound as error:
            raise MissingObject(f"not in the storage: catalog {ref}") from error
        except (ObjectCorrupt, ObjectTooLarge) as error:
            raise MergeError(f"catalog {ref}: {error}") from error
        self._remember(ref, data)
        return data

    def load(self, ref: ContentHash) -> Catalog:
        """Open a catalog; raises like :meth:`plain`."""
        try:
            return Catalog.load(self.plain(ref))
        except DatabaseError as error:
            raise MergeError(f"catalog {ref}: {error}") from error

    def store(self, catalog: Catalog, algorithm: Algorithm, journal: Journal | None = None) -> NestedRef:
        """Store a catalog and say what it became; *journal* is told its name before."""
        data = catalog.dump()
        # Catalogs hold their own revision and time, so no two are alike and nothing is lost by a faster encoder.
        stored = deflate_fast(data)
        ref = ContentHash.of(stored, algorithm, Suffix.CATALOG)
        if journal is not None:
            journal.note(ref)
        self.objects.put(ref, stored)
        self._remember(ref, data)
        return NestedRef(ref, len(data))

    def _remember(self, ref: ContentHash, data: bytes) -> None:
        if len(data) > self._cache_bytes // 2:
            return
        with self._lock:
            if ref not in self._cached:
                self._cached[ref] = data
                self._cached_bytes += len(data)
            while self._cached_bytes > self._cache_bytes:
                _, dropped = self._cached.popitem(last=False)
                self._cached_bytes -= len(dropped)
