"""The body of a payload: read through the HTTP server or, if it is large, directly from the connection.

::

    HTTP server:  socket ─▶ bytes ─▶ parser ─▶ bytes ─▶ queue ─▶ bytes      three copies, a new buffer for each piece
    directly:     socket ─▶ block                                            none; a few blocks are reused

An HTTP parser only counts the bytes of a body of known length, so that is all there is to do here. At the end, the
connection is returned to the server with a fresh parser. If the body is not read to its end, the connection is closed
after the reply. Over TLS, decrypted bytes are written into the blocks.

At most :data:`BLOCKS` blocks are in memory for each body. While all are in use, the socket is not read, and TCP flow
control slows the publisher down.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, TypeVar

import aiohttp
from aiohttp import web

from cvmfs_gw.api.runner import Connection
from cvmfs_gw.api.running import PATIENCE_S, RUNNING
from cvmfs_gw.gateway.blocks import BLOCK, Blocks
from cvmfs_gw.gateway.errors import BadPack, InvalidBody
from cvmfs_gw.gateway.uploads import UNFINISHED

IDLE_S: Final = 900.0
"""How long a publisher may pause within a payload, in seconds."""
BLOCKS: Final = UNFINISHED + 2
"""Blocks for each body: those in use by a thread, a full one, and one that is being filled."""
STRAIGHT: Final = 2 * BLOCK
"""The number of missing bytes from which a body is read directly from the connection."""
CLOSE: Final = web.RequestKey("close", bool)
"""Set on a request whose connection must be closed after the reply."""

T = TypeVar("T")


_OWN: Final = Blocks(shared=False)


class Body:
    """A request's body, read in order. No wait for the network lasts longer than :data:`IDLE_S`."""

    def __init__(self, request: web.Request, blocks: Blocks = _OWN) -> None:
        """A large body is read into *blocks*; call :meth:`close` if they are shared."""
        self._request = request
        self._blocks = blocks
        self._content = request.content
        self._read = 0
        self._stuck = False
        self._direct: _Direct | None = None

    async def exactly(self, size: int) -> bytes:
        """The next *size* bytes, which say who sends; raises :exc:`InvalidBody` if there are fewer."""
        try:
            async with self._request.app[RUNNING].waiting(min(PATIENCE_S, IDLE_S)):
                data = await self._content.readexactly(size)
        except TimeoutError:
            self._stuck = True
            raise BadPack("the publisher stopped sending") from None
        except asyncio.IncompleteReadError:
            raise InvalidBody("shorter than message-size") from None
        self._read += len(data)
        return data

    async def chunks(self) -> AsyncIterator[bytes | memoryview]:
        """The rest of the body, in pieces.

        When a piece is asked for, no more than :data:`UNFINISHED` pieces may be in use, the newest ones.
        """
        while chunk := await self._next():
            yield chunk
            if self._direct is None:
                self._take_over()

    async def drain(self, limit: int) -> None:
        """Read what is left and throw it away, up to *limit* bytes."""
        with contextlib.suppress(BadPack, OSError, aiohttp.ClientError):
            while not self._stuck and limit > 0:
                chunk = await self._next()
                if not chunk:
                    return
                limit -= len(chunk)

    async def drain_unsigned(self, limit: int) -> None:
        """The same for a body of somebody unknown, and not for long."""
        with contextlib.suppress(TimeoutError):
            async with self._request.app[RUNNING].waiting(min(PATIENCE_S, IDLE_S)):
                await self.drain(limit)

    def close(self) -> None:
        """Return the blocks to the pool. No piece of the body may be used any more."""
        if self._direct is not None:
            self._direct.give_back()

    async def _next(self) -> bytes | memoryview:
        if self._direct is not None:
            return await self._direct.read()
        chunk = await self._patiently(self._content.readany())
        self._read += len(chunk)
        return chunk

    def _take_over(self) -> None:
        """Read directly from the connection from now on, if possible and worthwhile."""
        length, transport, server = self._request.content_length, self._request.transport, self._request.protocol
        if length is None or transport is None or transport.is_closing() or not isinstance(server, Connection):
            return  # a length unknown: chunked
        # all that the server has read is in its queue, as nothing else has run since
        if length - self._content.total_bytes < STRAIGHT or self._content.total_bytes != self._read:
            return
        self._direct = _Direct(self._request, server, transport, length - self._read, self._blocks)

    async def _patiently(self, read: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(IDLE_S):
                return await read
        except TimeoutError:
            self._stuck = True
            raise BadPack("the publisher stopped sending") from None


class _Direct(asyncio.BufferedProtocol):
    """Receives *missing* bytes from the connection, in place of the HTTP server's protocol."""

    def __init__(
        self, request: web.Request, server: Connection, transport: asyncio.Transport, missing: int, blocks: Blocks
    ) -> None:
        self._request = request
        self._server = server
        self._content = request.content
        self._transport = transport
        self._missing = missing
        self._blocks = blocks
        self._made = [blocks.take()]
        self._block = self._made[0]
        self._filled = 0
        self._free: list[memoryview] = []
        self._full: deque[memoryview] = deque()
        self._lent: deque[memoryview] = deque()  # what was handed out, the latest last
        self._waiter: asyncio.Future[None] | None = None
        self._heard = 0.0
        self._lost: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        request[CLOSE] = True
        transport.set_protocol(self)
        server.resume_reading()  # it may have had enough for the moment, and should not think so afterwards

    # --- the connection's side -----------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._block[self._filled : self._filled + self._missing]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._missing -= nbytes
        self._heard = self._loop.time()
        if self._filled < BLOCK and self._missing:
            return
        self._full.append(self._block[: self._filled])
        self._block = self._block[:0]
        self._wake()
        if not self._missing or not self._begin_block():
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """The transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc or ConnectionResetError("the publisher has gone away")
        self._wake()
        self._server.connection_lost(exc)

    def pause_writing(self) -> None:
        self._server.pause_writing()

    def resume_writing(self) -> None:
        self._server.resume_writing()

    # --- the reader's side ---------------------------------------------------------------------------------------

    async def read(self) -> memoryview:
        """The next block, empty at the end.

        Raises :exc:`BadPack` if the publisher stops sending, and :exc:`ConnectionError` if it has disconnected.
        """
        if len(self._lent) > UNFINISHED:
            self._free.append(self._lent.popleft())
            if not self._block and self._missing and self._begin_block():
                self._transport.resume_reading()
        while not self._full:
            if not self._missing:
                self._hand_back()
                return memoryview(b"")
            if self._lost is not None:
                raise ConnectionResetError("the publisher has gone away") from self._lost
            await self._wait()
        block = self._full.popleft()
        self._lent.append(memoryview(block.obj))
        return block

    def give_back(self) -> None:
        """Return the blocks to the pool."""
        if self._missing:
            self._transport.pause_reading()
            self._missing = 0
        for block in self._made:
            self._blocks.give(block)
        self._made = []

    def _hand_back(self) -> None:
        """Return the connection to the server after the end of the body."""
        if self._request[CLOSE] and self._lost is None:
            self._request[CLOSE] = False
            self._server.begin_anew()
            self._transport.set_protocol(self._server)
            self._transport.resume_reading()
        self._content.feed_eof()

    def _begin_block(self) -> bool:
        if self._free:
            self._block = self._free.pop()
        elif len(self._made) < BLOCKS:
            self._block = self._blocks.take()
            self._made.append(self._block)
        else:
            return False
        self._filled = 0
        return True

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        asked = self._loop.time()
        try:
            while not self._waiter.done():
                since = max(self._heard, asked)
                await asyncio.wait([self._waiter], timeout=since + IDLE_S - self._loop.time())
                if not self._waiter.done() and self._loop.time() >= max(self._heard, asked) + IDLE_S:
                    self._content.feed_eof()
                    raise BadPack("the publisher stopped sending")
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
