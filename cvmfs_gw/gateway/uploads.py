"""Receives object packs in threads: from the network through the hash into the store, in bounded memory.

::

    event loop      chunks of a body ──▶ batch of about BATCH bytes ──┐ (reading goes on)
    upload thread                        parse, hash, write  ◀────────┘

A few batches are in memory for each upload: one being read, one waiting and one being stored. A sender that is faster
than the disk is slowed down by TCP flow control. Whole batches are passed to the thread, never single objects, as a
thread switch costs more than a small object.

Large packs go to processes instead, see :mod:`cvmfs_gw.gateway.storers`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, Sequence
from concurrent.futures import Executor
from typing import Final

from cvmfs_gw.engine.commit_api import UploadStatistics
from cvmfs_gw.gateway.blocks import BLOCK
from cvmfs_gw.gateway.packs import PackReceiver
from cvmfs_objstore.hashes import ContentHash

BATCH: Final = BLOCK
"""About how much of a body is handed to a thread at once, in bytes."""
UNFINISHED: Final = 2
"""Batches that are given away to be stored, the one that is being worked on among them, while reading goes on."""


class ThreadUpload:
    """One pack on its way into a thread."""

    def __init__(self, receiver: PackReceiver, threads: Executor) -> None:
        self._receiver = receiver
        self._threads = threads

    @property
    def objects(self) -> int:
        """How many objects are stored, or were there, so far."""
        return self._receiver.objects

    @property
    def received(self) -> int:
        """Bytes of the pack that were taken in so far."""
        return self._receiver.received

    @property
    def catalogs(self) -> Sequence[ContentHash]:
        """The catalogs that the pack brought, whether they were new or not."""
        return self._receiver.catalogs

    async def receive(self, chunks: AsyncIterable[bytes | memoryview]) -> UploadStatistics:
        """See :func:`receive`."""
        return await receive(chunks, self._receiver, self._threads)


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
