"""Large object packs, divided among processes.

::

    event loop   socket ─▶ block 1, 2, 3 ...              "block 3 is next"
    storer 1               parse, hash, write every other object of each block
    storer 2               parse, hash, write the rest

Storing a pack of small objects is mostly interpreter work, so with threads (and the GIL), two processors would hardly
be faster than one, and would delay the event loop. The processes share the blocks, so that no byte is copied; each
parses the whole header, so that no coordination is needed. They are started when the first large pack arrives, which is
still stored by threads. If one exits, the packs that it was storing fail, and another process replaces it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import pickle
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Final

from cvmfs_gw.engine.commit_api import UploadedObjects, UploadStatistics
from cvmfs_gw.gateway.blocks import BLOCK, Blocks
from cvmfs_gw.gateway.errors import PayloadError, StoreFailure
from cvmfs_gw.gateway.storer import Abort, Answer, Begin, Block, End, Finished, Order, Refused, Stored
from cvmfs_gw.gateway.uploads import UNFINISHED
from cvmfs_objstore.formats.objectpack import Share
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.storage import Storage

log = logging.getLogger(__name__)

MAX_STORERS: Final = 4
"""The maximum number of processes. More are not faster: the connection and the disk are the bottleneck then."""
_PROGRAM: Final = "from cvmfs_gw.gateway.storer import main; main()"
_LENGTH: Final = 4  # bytes before each message, as multiprocessing.connection has them


class Storers:
    """The processes, and which pack goes where. To be used from one event loop only. Close it."""

    def __init__(self, blocks: Blocks, count: int | None = None) -> None:
        """*count* processes; None: as many as there are processors, up to :data:`MAX_STORERS`."""
        self._blocks = blocks
        self._count = min(os.cpu_count() or 1, MAX_STORERS) if count is None else count
        self._storers: set[_Storer] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._serial = itertools.count()
        self._closed = False

    def __len__(self) -> int:
        return len(self._storers)

    def wake(self) -> None:
        """Begin to start the processes that are missing."""
        if self._blocks.fd < 0 or self._closed:
            return
        while len(self._storers) + len(self._starting) < self._count:
            task = asyncio.get_running_loop().create_task(self._start())
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    def begin(
        self, opener: Callable[[], Storage], digest: str, header_size: int, max_size: int, uploaded: UploadedObjects
    ) -> Upload | None:
        """Take a pack for the storage that *opener* opens, or return None where no process runs.

        The names of its objects are added to *uploaded*, as long as there is room.
        """
        idle = sorted(self._storers, key=lambda storer: len(storer.shares))
        # a pack alone is divided; packs side by side are as well off with a process each
        idle = [storer for storer in idle if not storer.shares] or idle[:1]
        if not idle:
            return None
        upload = Upload(next(self._serial), self._blocks, uploaded)
        for first, storer in enumerate(idle):
            share = Share(first, len(idle))
            upload.shares.append(_Share(storer, upload))
            begin = Begin(upload.number, opener, digest, header_size, max_size, share, uploaded.room)
            storer.begin(upload.shares[-1], begin)
        return upload

    async def started(self) -> None:
        """Wait for the processes that are being started."""
        await asyncio.gather(*self._starting, return_exceptions=True)

    async def close(self) -> None:
        """Let the processes end, and wait for them."""
        self._closed = True
        await self.started()
        storers = list(self._storers)
        for storer in storers:
            storer.close()
        for storer in storers:
            await asyncio.to_thread(storer.process.wait)

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.to_thread(_spawn, theirs.fileno(), self._blocks.fd)
            storer = _Storer(process, self._ended)
            await asyncio.get_running_loop().create_unix_connection(lambda: storer, sock=ours)
        except OSError as error:
            ours.close()
            log.error("no process to store object packs, threads do it: %s", error)
            return
        self._storers.add(storer)

    def _ended(self, storer: _Storer) -> None:
        self._storers.discard(storer)
        if not self._closed:
            storer.process.kill()  # it has ended; should it only have closed the connection, it ends now
            log.error("a process that stores object packs has ended with status %d", storer.process.wait())


class Upload:
    """One pack on its way into the processes."""

    def __init__(self, number: int, blocks: Blocks, uploaded: UploadedObjects) -> None:
        self.number = number
        self.shares: list[_Share] = []
        self.received = 0
        """Bytes of the pack that have come so far."""
        self._blocks = blocks
        self._uploaded = uploaded
        self._copies: deque[tuple[int, memoryview]] = deque()
        self._sent = 0
        self._changed = asyncio.Event()

    @property
    def objects(self) -> int:
        """How many objects are stored, or were there, so far."""
        return sum(share.objects for share in self.shares)

    @property
    def catalogs(self) -> tuple[ContentHash, ...]:
        """The catalogs that the pack brought, whether they were new or not."""
        return tuple(name for share in self.shares for name in share.catalogs)

    async def receive(self, chunks: AsyncIterable[bytes | memoryview]) -> UploadStatistics:
        """Store the pack in *chunks*; raises :exc:`PayloadError` and what *chunks* raises.

        When a chunk is asked for, no more than :data:`UNFINISHED` are in use, the newest ones. When this raises, nobody
        is at work any more, and *chunks* is left where it was.
        """
        try:
            async for chunk in chunks:
                for number, length in self._in_blocks(chunk):
                    self._tell(Block(self.number, number, length))
                    self._sent += 1
                    await self._until(lambda: self._sent - self._read <= UNFINISHED)
                self.received += len(chunk)
            self._tell(End(self.number))
            await self._until(lambda: all(share.over for share in self.shares))
        except BaseException:
            self._tell(Abort(self.number))
            await asyncio.shield(self._over())
            self._give_back(self._sent)
            raise
        self._give_back(self._sent)
        return sum((share.brought for share in self.shares), UploadStatistics())

    def hear(self, answer: Answer) -> None:
        """A share has come further."""
        if isinstance(answer, Stored | Finished):
            self._uploaded.update(answer.uploaded)
        self._changed.set()

    @property
    def _read(self) -> int:
        """How many blocks all have read."""
        return min(share.read for share in self.shares)

    def _tell(self, order: Order) -> None:
        for share in self.shares:
            if not share.over:
                share.storer.tell(order)

    def _in_blocks(self, chunk: bytes | memoryview) -> Iterator[tuple[int, int]]:
        """Which blocks hold *chunk*, and how much of it: itself, or copies."""
        if (number := self._blocks.number(chunk)) is not None:
            yield number, len(chunk)
            return
        view = memoryview(chunk)
        while view:
            self._give_back(self._read)
            block = self._blocks.take()
            length = min(len(view), BLOCK)
            block[:length] = view[:length]
            self._copies.append((self._sent, block))
            view = view[length:]
            number = self._blocks.number(block)
            assert number is not None  # no process runs without shared blocks
            yield number, length

    def _give_back(self, read: int) -> None:
        while self._copies and self._copies[0][0] < read:
            self._blocks.give(self._copies.popleft()[1])

    async def _until(self, enough: Callable[[], bool]) -> None:
        """Wait for *enough*; raises what a share was refused for."""
        while True:
            for share in self.shares:
                if share.error is not None:
                    raise share.error
            if enough():
                return
            self._changed.clear()
            await self._changed.wait()

    async def _over(self) -> None:
        while not all(share.over for share in self.shares):
            self._changed.clear()
            await self._changed.wait()


class _Share:
    """What one process has of an upload."""

    def __init__(self, storer: _Storer, upload: Upload) -> None:
        self.storer = storer
        self.upload = upload
        self.read = 0
        self.objects = 0
        self.over = False
        self.brought = UploadStatistics()
        self.catalogs: tuple[ContentHash, ...] = ()
        self.error: PayloadError | None = None

    def hear(self, answer: Answer) -> None:
        if isinstance(answer, Stored):
            self.read += 1
            self.objects = answer.objects
        else:
            self.over = True
            if isinstance(answer, Finished):
                self.brought, self.catalogs = answer.brought, answer.catalogs
            else:
                self.error = answer.error
        self.upload.hear(answer)


class _Storer(asyncio.Protocol):
    """The connection to one process, and what goes on over it."""

    def __init__(self, process: subprocess.Popen[bytes], ended: Callable[[_Storer], None]) -> None:
        self.process = process
        self.shares: dict[int, _Share] = {}
        self._ended = ended
        self._incoming = bytearray()
        self._transport: asyncio.Transport | None = None

    def begin(self, share: _Share, order: Begin) -> None:
        self.shares[order.upload] = share
        self.tell(order)

    def tell(self, order: Order) -> None:
        message = pickle.dumps(order)
        assert self._transport is not None
        self._transport.write(len(message).to_bytes(_LENGTH) + message)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # --- the connection's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._incoming += data
        at = 0
        while len(self._incoming) >= at + _LENGTH:
            end = at + _LENGTH + int.from_bytes(self._incoming[at : at + _LENGTH])
            if len(self._incoming) < end:
                break
            self._hear(pickle.loads(self._incoming[at + _LENGTH : end]))
            at = end
        del self._incoming[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        for upload in list(self.shares):
            self._hear(Refused(upload, StoreFailure("the process that stored it has ended")))
        self._ended(self)

    def _hear(self, answer: Answer) -> None:
        share = self.shares[answer.upload]
        if not isinstance(answer, Stored):
            del self.shares[answer.upload]
        share.hear(answer)


def _spawn(connection: int, blocks: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-c", _PROGRAM, str(connection), str(blocks)]
    return subprocess.Popen(command, pass_fds=(connection, blocks), stdin=subprocess.DEVNULL)
