"""Taking in object packs: off the network, through the hash, into the store, in bounded memory.

::

    event loop      chunks of a body ──▶ batch of about BATCH bytes ──┐ (reading goes on)
    upload thread                        parse, hash, write  ◀────────┘
    helper                                      hash, write: every other object of a batch, if it is idle

A few batches are in memory for each upload: one that is read, one that waits and one that is stored. Whoever sends
faster than the disk writes is slowed down by the network's own flow control. What crosses threads is a batch and never
a single object: a hop costs more than a small object.

Each object is hashed before it gets its name in the store, so that nothing wrong is ever stored. When a pack turns
out to be bad, the good objects of it stay: they are what their names say, nothing refers to them, and a
publisher that tries again finds them there. They are durable once the commit has synchronised the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from concurrent.futures import Executor, wait
from typing import Final

from cvmfs_gw.engine.commit_api import UploadStatistics
from cvmfs_gw.gateway.errors import BadPack, PackTooLarge, StoreFailure
from cvmfs_gw.gateway.protocol import MAX_PAYLOAD
from cvmfs_objstore.errors import InvalidHash, ObjectNotFound, ObjectPackError
from cvmfs_objstore.formats.objectpack import (
    Batch,
    Event,
    ObjectBegin,
    ObjectEnd,
    ObjectSlice,
    PackHeader,
    PackParser,
)
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.objects import ObjectStore
from cvmfs_objstore.storage import Staged, Storage

BATCH: Final = 1 << 20
"""About how much of a body is handed to a thread at once, in bytes."""
UNFINISHED: Final = 2
"""Batches that a thread has been given, the one that it works on among them, while reading goes on."""
SHARED: Final = 128 << 10
"""From how many bytes on a batch is worth a second thread."""

Stored = tuple[ContentHash, int, bool]
"""An object, its size in bytes, and whether it is new."""


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
        helpers: Executor | None = None,
    ) -> None:
        """*digest* and *header_size* are what the publisher says of the pack's header, *max_size* is in bytes.

        *note* is told of every object, whether it was new or not, once it is there. *helpers* are threads that do a
        part of the work when they have nothing else to do.
        """
        self._note = note
        try:
            self._parser = PackParser(ContentHash.parse(digest, Suffix.NONE), header_size)
        except (InvalidHash, ObjectPackError) as error:
            raise BadPack(str(error)) from error
        self._storage = store.storage
        self._max_size = max_size
        self._helpers = helpers
        self._staged: Staged | None = None  # the large object that is being written
        self.catalogs: list[ContentHash] = []
        """The catalogs that the pack brought, whether they were new or not."""
        self._added = self._duplicated = self._catalogs = 0
        self._bytes = self._catalog_bytes = 0
        self.received = 0
        """Bytes of the pack that were taken in so far; may be read from any thread."""

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
        """How many objects are stored, or were there, so far."""
        return self._added + self._duplicated

    def finish(self) -> UploadStatistics:
        """The body has ended; returns what the pack has brought."""
        try:
            self._parser.finish()
        except ObjectPackError as error:
            raise BadPack(str(error)) from error
        return UploadStatistics(self._added, self._duplicated, self._catalogs, self._bytes, self._catalog_bytes)

    def abort(self) -> None:
        """Throw away what is half written."""
        if self._staged is not None:
            with contextlib.suppress(OSError):
                self._staged.discard()
            self._staged = None

    def _take(self, event: Event) -> None:
        if isinstance(event, Batch):
            for name, size, added in self._store_shared(event):
                self._count(name, size, added)
        elif isinstance(event, ObjectSlice):
            if self._staged is not None:
                self._staged.write(event.data)
        elif isinstance(event, ObjectBegin):
            if not keep(self._storage, event.item.name, event.item.size):
                self._staged = self._storage.stage()
        elif isinstance(event, ObjectEnd):
            staged, self._staged = self._staged, None
            if staged is not None:
                staged.publish(event.item.name.path)
            self._count(event.item.name, event.item.size, staged is not None)
        elif isinstance(event, PackHeader) and event.size > self._max_size:
            raise PackTooLarge(f"a pack of {event.size} bytes: at most {self._max_size} are accepted")

    def _store_shared(self, batch: Batch) -> list[Stored]:
        """Store a batch, half of it in another thread if one is idle. Neither is at work any more when this returns."""
        objects = batch.objects
        if self._helpers is None or len(objects) < 2 or sum(len(data) for _, data in objects) < SHARED:
            return self._store(batch)
        rest = Batch(objects[1::2])
        helper = self._helpers.submit(self._store, rest)
        try:
            stored = self._store(Batch(objects[::2]))
        except BaseException:
            if not helper.cancel():
                wait([helper])
            raise
        return stored + (self._store(rest) if helper.cancel() else helper.result())

    def _store(self, batch: Batch) -> list[Stored]:
        put = self._storage.put
        return [(name, len(data), put(name.path, data)) for name, data in batch.verified()]

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
    """Whether an object of that name and stored size is there, and made young. Raises ``OSError``."""
    # one of another length was cut off by a power failure, and is written again
    try:
        return storage.size(name.path) == size and storage.touch(name.path)
    except ObjectNotFound:
        return False


async def receive(
    chunks: AsyncIterable[bytes | memoryview], receiver: PackReceiver, threads: Executor, *, batch_size: int = BATCH
) -> UploadStatistics:
    """Store the pack in *chunks* with *receiver* in *threads*; raises :exc:`PayloadError` and what *chunks* raises.

    When a chunk is asked for, no more than :data:`UNFINISHED` batches are in use, the newest ones. When this raises, no
    thread is at work any more, and *chunks* is left where it was.
    """
    line = _Line(receiver, threads)
    batch: list[bytes | memoryview] = []
    size = 0
    try:
        async for chunk in chunks:
            batch.append(chunk)
            size += len(chunk)
            if size >= batch_size:
                await line.put(batch, UNFINISHED)
                batch, size = [], 0
        await line.put(batch, 0)
        return receiver.finish()
    except BaseException:
        await line.stop()
        raise


class _Line:
    """Batches on their way to a thread, which goes on for as long as there are any.

    A thread that had to be called anew for each batch would wait for the event loop in between.
    """

    def __init__(self, receiver: PackReceiver, threads: Executor) -> None:
        self._receiver = receiver
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[list[bytes | memoryview]] = deque()
        self._lock = threading.Lock()  # for the thread's decision that there is nothing left
        self._busy = False
        self._job: asyncio.Future[None] | None = None
        self._unfinished = 0
        self._changed = asyncio.Event()

    async def put(self, batch: list[bytes | memoryview], unfinished: int) -> None:
        """Add a batch, and wait until no more than *unfinished* are; raises what the thread did."""
        self._unfinished += 1
        with self._lock:
            self._waiting.append(batch)
            idle, self._busy = not self._busy, True
        if idle:
            self._job = self._loop.run_in_executor(self._threads, self._work)
            self._job.add_done_callback(lambda _: self._changed.set())
        while self._unfinished > unfinished:
            if self._job is not None and self._job.done():
                self._job.result()
            self._changed.clear()
            await self._changed.wait()

    async def stop(self) -> None:
        """Throw away what is waiting; returns when the thread has let go."""
        with self._lock:
            self._waiting.clear()
        if self._job is not None:
            # never cancelled itself: the thread would go on, and its future would not say so
            await asyncio.wait([self._job])
            self._job.exception()
        await asyncio.shield(self._loop.run_in_executor(self._threads, self._receiver.abort))

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy = False
                    return
                batch = self._waiting.popleft()
            self._receiver.feed(batch)
            self._loop.call_soon_threadsafe(self._finished)

    def _finished(self) -> None:
        self._unfinished -= 1
        self._changed.set()
