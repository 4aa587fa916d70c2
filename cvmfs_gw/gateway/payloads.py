"""Payloads: object packs on their way into the store, for the lease that they belong to."""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, Protocol

from cvmfs_gw.engine.commit_api import UploadedObjects, UploadStatistics
from cvmfs_gw.gateway.access import Access
from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.gateway.blocks import Blocks
from cvmfs_gw.gateway.changes import Changes
from cvmfs_gw.gateway.leases import LeaseBook
from cvmfs_gw.gateway.metrics import Metrics
from cvmfs_gw.gateway.packs import PackReceiver, keep
from cvmfs_gw.gateway.protocol import MAX_PAYLOAD
from cvmfs_gw.gateway.storers import Storers
from cvmfs_gw.gateway.uploads import ThreadUpload
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.objects import ObjectStore
from cvmfs_objstore.storage import Storage

REMEMBERED: Final = 200_000
"""Objects of recent packs whose names are kept in memory, some 100 bytes each."""
DIVIDED: Final = 2 << 20
"""From how many bytes on a pack is divided among processes."""
MAX_UPLOADS: Final = 32
"""Object packs that are stored at the same time; more wait, and their senders with them."""
MAX_OF_KEY: Final = 24
"""Those of one key: whoever sends many of them slowly leaves room for others."""


class Incoming(Protocol):
    """A pack that is coming in."""

    @property
    def objects(self) -> int:
        """How many of its objects are stored, or were there, so far."""

    @property
    def received(self) -> int:
        """Bytes of it that were taken in so far."""

    @property
    def catalogs(self) -> Sequence[ContentHash]:
        """The catalogs that it brought, whether they were new or not."""

    async def receive(self, chunks: AsyncIterable[bytes | memoryview], /) -> UploadStatistics:
        """Store it; raises :exc:`PayloadError` and what *chunks* raises."""


class RecentUploads:
    """What the packs of recent leases have brought. Bounded: leases that sent nothing for longest are forgotten."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._of: OrderedDict[str, UploadedObjects] = OrderedDict()

    def begin(self, token: str) -> UploadedObjects:
        """What a lease has brought, for more to be added."""
        uploaded = self._of.setdefault(token, UploadedObjects(self._most))
        self._of.move_to_end(token)
        while len(self._of) > 1 and len(self._of) + sum(map(len, self._of.values())) > self._most:
            self._of.popitem(last=False)
        return uploaded

    def get(self, token: str) -> UploadedObjects:
        """What a lease has brought, as far as that is remembered."""
        return self._of.get(token) or UploadedObjects()


class Payloads:
    """Takes in object packs. To be used from one event loop only.

    *store* gives the object store of a repository; *prepare* is told of catalogs that came, and not waited for. Both
    are called in threads. *clock* tells milliseconds since the epoch; *max_size* is in bytes.
    """

    def __init__(
        self,
        *,
        access: Access,
        book: LeaseBook,
        changes: Changes,
        store: Callable[[str], ObjectStore],
        prepare: Callable[[str, tuple[ContentHash, ...]], None],
        metrics: Metrics,
        clock: Callable[[], int],
        max_size: int = MAX_PAYLOAD,
    ) -> None:
        self._access = access
        self._book = book
        self._changes = changes
        self._store = store
        self._prepare = prepare
        self._metrics = metrics
        self._clock = clock
        self._max_size = max_size
        cores = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(max(4, cores), "gw-upload")
        self.blocks = Blocks()
        """Memory to read large bodies into."""
        self._storers = Storers(self.blocks)
        self._receivers: dict[str, list[Incoming]] = {}
        self._slots = asyncio.Semaphore(MAX_UPLOADS)
        self._of_key: defaultdict[str, asyncio.Semaphore] = defaultdict(partial(asyncio.Semaphore, MAX_OF_KEY))
        self._uploaded = RecentUploads()

    async def receive(
        self,
        token: str,
        key: Key,
        *,
        digest: str,
        header_size: int,
        chunks: AsyncIterable[bytes | memoryview],
        size: int = 0,
    ) -> UploadStatistics:
        """Store the objects of a pack; raises :exc:`GatewayError`.

        *chunks* is the pack alone, of about *size* bytes if that is known: :attr:`blocks` as far as possible. It is
        left where it was when this raises, for the caller to read to its end.
        """
        lease = self._book.get(token, self._clock())
        self._access.check_owner(key, lease.key_id, lease.path)
        self._book.begin_upload(token, self._clock())
        brought = UploadStatistics()
        receiver: Incoming | None = None
        started, outcome = time.monotonic(), "failed"
        slot = AsyncExitStack()
        try:
            loop = asyncio.get_running_loop()
            await slot.enter_async_context(self._of_key[key.id])
            await slot.enter_async_context(self._slots)
            store = await loop.run_in_executor(self._threads, self._store, lease.path.fqrn)
            uploaded = self._uploaded.begin(token)
            receiver = self._divided(store.storage, digest, header_size, uploaded) if size >= DIVIDED else None
            if receiver is None:
                receiver = ThreadUpload(
                    PackReceiver(store, digest, header_size, max_size=self._max_size, note=uploaded.add), self._threads
                )
            self._receivers.setdefault(token, []).append(receiver)
            brought = await receiver.receive(chunks)
            outcome = "ok"
            if receiver.catalogs:
                # The reply does not wait for it, and nobody asks what came of it.
                loop.run_in_executor(self._threads, self._prepare, lease.path.fqrn, tuple(receiver.catalogs))
        finally:
            await slot.aclose()
            if receiver is not None:
                self._forget(token, receiver)
            self._metrics.add("payloads_total", outcome=outcome)
            self._metrics.observe("payload_seconds", time.monotonic() - started)
            self._metrics.add("payload_objects_total", brought.objects_added, kind="added")
            self._metrics.add("payload_objects_total", brought.objects_duplicated, kind="present")
            # shielded, so that a connection that breaks does not leave the lease pinned for ever
            await asyncio.shield(self._changes(lambda: self._book.end_upload(token, self._clock(), brought)))
        return brought

    async def missing(self, token: str, key: Key, objects: Mapping[ContentHash, int]) -> list[ContentHash]:
        """Those of *objects*, by stored size in bytes, that the lease's repository does not have.

        The others are made young, so that no collector takes them before the commit. Raises :exc:`GatewayError`.
        """
        lease = self._book.get(token, self._clock())
        self._access.check_owner(key, lease.key_id, lease.path)

        def look() -> list[ContentHash]:
            storage = self._store(lease.path.fqrn).storage
            return [name for name, size in objects.items() if not keep(storage, name, size)]

        return await asyncio.get_running_loop().run_in_executor(self._threads, look)

    @property
    def running(self) -> int:
        """Object packs that are coming in."""
        return sum(len(receivers) for receivers in self._receivers.values())

    @property
    def processes(self) -> int:
        """How many processes store large packs; none before the first has come."""
        return len(self._storers)

    def uploaded(self, token: str) -> UploadedObjects:
        """What the packs of a lease have brought, as far as that is remembered."""
        return self._uploaded.get(token)

    def incoming(self, token: str) -> UploadStatistics:
        """What the packs of a lease that are coming in have brought so far."""
        receivers = self._receivers.get(token, ())
        return UploadStatistics(
            objects_added=sum(receiver.objects for receiver in receivers),
            bytes_added=sum(receiver.received for receiver in receivers),
        )

    def received_bytes(self) -> int:
        """Bytes of object packs that came in since the process started."""
        running = sum(receiver.received for receivers in self._receivers.values() for receiver in receivers)
        return int(self._metrics.total("payload_bytes_total")) + running

    async def close(self) -> None:
        """Wait for what is being stored, and end threads and processes."""
        await self._storers.close()
        await asyncio.to_thread(self._threads.shutdown)
        self.blocks.close()

    def _divided(self, storage: Storage, digest: str, header_size: int, uploaded: UploadedObjects) -> Incoming | None:
        if storage.opener is None:
            return None
        self._storers.wake()
        return self._storers.begin(storage.opener, digest, header_size, self._max_size, uploaded)

    def _forget(self, token: str, receiver: Incoming) -> None:
        self._metrics.add("payload_bytes_total", receiver.received)
        receivers = self._receivers[token]
        receivers.remove(receiver)
        if not receivers:
            del self._receivers[token]
