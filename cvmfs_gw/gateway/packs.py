"""Receives an object pack: parse, hash, store.

Each object is hashed before it gets its name in the store, so that nothing invalid is ever stored. If a pack turns out
to be bad, its valid objects stay: they match their hashes, nothing refers to them, and a publisher that tries again
finds them there. They are durable once the commit has synced the store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from cvmfs_gw.engine.commit_api import UploadStatistics
from cvmfs_gw.gateway.errors import BadPack, PackTooLarge, StoreFailure
from cvmfs_gw.gateway.protocol import MAX_PAYLOAD
from cvmfs_objstore.errors import InvalidHash, ObjectNotFound, ObjectPackError
from cvmfs_objstore.formats.objectpack import (
    WHOLE,
    Batch,
    Event,
    ObjectBegin,
    ObjectEnd,
    ObjectSlice,
    PackHeader,
    PackParser,
    Share,
)
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.objects import ObjectStore
from cvmfs_objstore.puts import Puts
from cvmfs_objstore.storage import Staged, Storage


class PackReceiver:
    """Stores the objects of one pack. Synchronous; used by one thread at a time.

    Every method but :meth:`abort` raises :exc:`PayloadError`; after that, only :meth:`abort` makes sense.
    """

    def __init__(
        self,
        store: ObjectStore,
        digest: str,
        header_size: int,
        *,
        max_size: int = MAX_PAYLOAD,
        note: Callable[[ContentHash], object] = lambda name: None,
        share: Share = WHOLE,
    ) -> None:
        """*digest* and *header_size* are announced by the publisher for the pack's header; *max_size* is in bytes.

        *note* is called with every object, new or not, once it is stored. Only the objects of *share* are stored: other
        receivers store the rest.
        """
        self._note = note
        try:
            self._parser = PackParser(ContentHash.parse(digest, Suffix.NONE), header_size, share=share)
        except (InvalidHash, ObjectPackError) as error:
            raise BadPack(str(error)) from error
        self._storage = store.storage
        self._max_size = max_size
        self._puts = Puts(store.storage, self._count)
        self._staged: Staged | None = None  # the large object that is being written
        self.catalogs: list[ContentHash] = []
        """The catalogs in the pack, new or not."""
        self._added = self._duplicated = self._catalogs = 0
        self._bytes = self._catalog_bytes = 0
        self.received = 0
        """Bytes of the pack received so far; may be read from any thread."""

    def feed(self, chunks: Iterable[bytes | memoryview]) -> None:
        """Take the next bytes of the pack."""
        try:
            for chunk in chunks:
                for event in self._parser.feed(chunk):
                    self._take(event)
                self.received += len(chunk)
        except ObjectPackError as error:
            raise BadPack(str(error)) from error
        except OSError as error:
            raise StoreFailure(error.strerror or type(error).__name__) from error

    @property
    def objects(self) -> int:
        """The number of objects stored so far, or found to exist."""
        return self._added + self._duplicated

    def finish(self) -> UploadStatistics:
        """End the pack; returns what it contained, once all of it is stored."""
        try:
            self._parser.finish()
            self._puts.finish()
        except ObjectPackError as error:
            raise BadPack(str(error)) from error
        except OSError as error:
            raise StoreFailure(error.strerror or type(error).__name__) from error
        return UploadStatistics(self._added, self._duplicated, self._catalogs, self._bytes, self._catalog_bytes)

    def abort(self) -> None:
        """Discard partially written objects."""
        if self._staged is not None:
            with contextlib.suppress(OSError):
                self._staged.discard()
            self._staged = None
        self._puts.abort()

    def _take(self, event: Event) -> None:
        if isinstance(event, Batch):
            for name, data in event.verified():
                self._puts.put(name, data)
        elif isinstance(event, ObjectSlice):
            if self._staged is not None:
                self._staged.write(event.data)
        elif isinstance(event, ObjectBegin):
            if not keep(self._storage, event.item.name, event.item.size):
                self._staged = self._storage.stage()
        elif isinstance(event, ObjectEnd):
            staged, self._staged = self._staged, None
            if staged is not None:
                self._puts.publish(event.item.name, event.item.size, staged)
            else:
                self._count(event.item.name, event.item.size, False)
        elif isinstance(event, PackHeader) and event.size > self._max_size:
            raise PackTooLarge(f"a pack of {event.size} bytes: at most {self._max_size} are accepted")

    def _count(self, name: ContentHash, size: int, added: bool) -> None:
        self._note(name)
        if name.suffix is Suffix.CATALOG:
            self.catalogs.append(name)
        if not added:
            self._duplicated += 1
            return
        self._added += 1
        self._bytes += size
        if name.suffix is Suffix.CATALOG:
            self._catalogs += 1
            self._catalog_bytes += size


def keep(storage: Storage, name: ContentHash, size: int) -> bool:
    """Whether an object with this name and stored size exists; refreshes its time. Raises ``OSError``."""
    # one of another length was cut off by a power failure, and is written again
    try:
        return storage.size(name.path) == size and storage.touch(name.path)
    except ObjectNotFound:
        return False
