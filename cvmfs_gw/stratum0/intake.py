"""Receives a request's body: from the network into objects, in bounded memory and without locks.

::

    event loop   blocks of the body ──▶ pipe, two blocks ──┐ (reading goes on)
    thread                              read ◀─────────────┘ checksum, chunks, compress, hash, write

A small body is received completely before a thread is used, so that any number of them may arrive slowly.

A sender that is faster than the disk is slowed down by TCP flow control. Nothing refers to the objects before the
commit; those of an interrupted upload are garbage, which the next collection removes.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable
from concurrent.futures import Executor
from typing import Final, Protocol, TypeVar

from cvmfs_gw.stratum0.errors import ChecksumMismatch, TooLarge

BLOCKS: Final = 2
"""The maximum number of blocks of a body that are in the pipe or being read."""
_PIECE: Final = 1 << 20

T = TypeVar("T")


class Body(Protocol):
    """A body as a file that can be read once, from its beginning to its end, by one thread."""

    def read(self, size: int = -1, /) -> bytes:
        """At most *size* of the next bytes; none only at the end. Raises :exc:`UploadError`."""

    def finish(self) -> None:
        """Read what is left and throw it away; raises as :meth:`read` does."""


def check_digest(data: bytes, wanted: str) -> None:
    """Raise :exc:`ChecksumMismatch` if *data* does not have that SHA-256, in hex; ``""`` is any."""
    if wanted:
        _compare(hashlib.sha256(data).hexdigest(), wanted)


def _compare(found: str, wanted: str) -> None:
    if not hmac.compare_digest(found, wanted):
        raise ChecksumMismatch("the body that arrived has another SHA-256")


class SmallBody:
    """A body that has arrived completely."""

    def __init__(self, data: bytes, checksum: str = "") -> None:
        """Raises :exc:`ChecksumMismatch`."""
        check_digest(data, checksum)
        self.read = io.BytesIO(data).read

    def finish(self) -> None:
        """Nothing has to be waited for."""


class BrokenOff(Exception):
    """The body was cut off; the sending side knows why."""


class BodyPipe:
    """A :class:`Body` that is still arriving."""

    def __init__(self, limit: int, checksum: str = "") -> None:
        """*limit* in bytes; *checksum* is the SHA-256 that the body must have, in hex, ``""`` for any."""
        self._limit, self._wanted = limit, checksum
        self._hasher = hashlib.sha256() if checksum else None
        self._changed = threading.Condition()
        self._blocks: deque[memoryview] = deque()
        self._rest = memoryview(b"")
        self._ended = self._broken = False
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(BLOCKS)
        self.size = 0
        """The number of bytes read so far."""

    # --- the reader's side ---------------------------------------------------------------------------------------

    def read(self, size: int = -1, /) -> bytes:
        """At most *size* of the next bytes; none only at the end of the body.

        Raises :exc:`TooLarge`, at the end :exc:`ChecksumMismatch`, and :exc:`BrokenOff`.
        """
        if not self._rest and not self._next():
            return b""
        data = bytes(self._rest[:size] if size >= 0 else self._rest)
        self._rest = self._rest[len(data) :]
        if not self._rest:
            self._loop.call_soon_threadsafe(self._room.release)
        self.size += len(data)
        if self.size > self._limit:
            raise TooLarge(f"more than {self._limit} bytes")
        if self._hasher is not None:
            self._hasher.update(data)
        return data

    def finish(self) -> None:
        """Read what is left and throw it away; raises as :meth:`read` does."""
        while self.read(_PIECE):
            pass

    def _next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._blocks or self._ended)
            if self._broken:
                raise BrokenOff
            if self._blocks:
                self._rest = self._blocks.popleft()
                return True
        if self._hasher is not None:
            _compare(self._hasher.hexdigest(), self._wanted)
        return False

    # --- the sender's side ---------------------------------------------------------------------------------------

    async def put(self, block: bytes | memoryview) -> None:
        """Pass a block on, waiting for room. It must not be changed until two more blocks were accepted."""
        if block:
            await self._room.acquire()
            with self._changed:
                self._blocks.append(memoryview(block))
                self._changed.notify()

    def end(self, *, broken: bool = False) -> None:
        """Mark the end of the body; *broken*: it was cut off."""
        with self._changed:
            self._ended, self._broken = True, broken
            self._changed.notify()

    def give_up(self) -> None:
        """Mark the end of the reader, so that nobody waits for it."""
        self._room.release()


async def take_small(chunks: AsyncIterable[bytes | memoryview], limit: int) -> bytes:
    """The whole body in *chunks*; raises :exc:`TooLarge` if there are more than *limit* bytes, and what they raise."""
    data = bytearray()
    async for block in chunks:
        data += block
        if len(data) > limit:
            raise TooLarge(f"more than {limit} bytes")
    return bytes(data)


async def take_in(
    chunks: AsyncIterable[bytes | memoryview], pipe: BodyPipe, reader: Callable[[Body], T], threads: Executor
) -> T:
    """Run *reader*, which reads the body in *chunks* from *pipe* to its end, in one of *threads*; returns its result.

    Raises what the reader or *chunks* raises; then no thread is running any more, and *chunks* is not exhausted.
    """
    job = asyncio.get_running_loop().run_in_executor(threads, reader, pipe)
    job.add_done_callback(lambda _: pipe.give_up())
    try:
        async for block in chunks:
            await pipe.put(block)
            if job.done():
                break  # it has failed, as it reads to the end
        pipe.end()
        return await asyncio.shield(job)
    except BaseException:
        pipe.end(broken=True)
        # the thread may still be using the blocks
        await asyncio.wait([job])
        if not job.cancelled():
            job.exception()
        raise
