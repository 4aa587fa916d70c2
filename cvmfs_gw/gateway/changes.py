"""The one thread that changes leases: in order, and durable before a change is acknowledged (group commit).

::

    changes   a  b   c  d  e        f
    rounds    [ a   ][ b c d e ][ f ]      each applies its changes in order, then flushes once for all of them

A change that arrives during a round waits for the next one: with a slow disk the rounds get larger, but no change waits
longer than two flushes.

The thread is woken through a socket, once for all changes that the event loop has for it in one turn. The kernel then
runs it on the processor of the event loop, which is about to sleep. An executor or a queue would wake it on another
processor, and filling that one's cache costs as much as the change itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Changes:
    """Calls functions in a thread of its own. To be used from one event loop only.

    *flush* makes the changes so far durable; it is called in the thread. If it raises, every change of the round fails.
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._waiting: deque[_Change] = deque()
        self._bell, self._button = socket.socketpair()
        self._button.setblocking(False)
        self._about_to_ring = False
        self._ended = False
        self._thread: threading.Thread | None = None

    async def __call__(self, function: Callable[..., T], *arguments: object) -> T:
        """Call *function* and return its result once its change is durable."""
        return await self._put(partial(function, *arguments), True)

    async def look(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function that changes nothing."""
        return await self._put(partial(function, *arguments), False)

    async def _put(self, function: Callable[[], T], durable: bool) -> T:
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, args=(loop,), name="gw-leases", daemon=True)
            self._thread.start()
        change = _Change(function, durable, loop.create_future())
        self._waiting.append(change)
        if not self._about_to_ring:
            self._about_to_ring = True
            loop.call_soon(self._ring)
        result: T = await change.told
        return result

    def _ring(self) -> None:
        self._about_to_ring = False
        # closed, when nothing is left; or full while a flush takes long, and then it rings already
        with contextlib.suppress(OSError):
            self._button.send(b"\0")

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._ended or self._waiting:
            self._bell.recv(4096)
            changes = [self._waiting.popleft() for _ in range(len(self._waiting))]
            self._round(changes)
            if changes:
                loop.call_soon_threadsafe(_tell, changes)

    def _round(self, changes: list[_Change]) -> None:
        for change in changes:
            change.make()
        if any(change.durable for change in changes):
            try:
                self._flush()
            except Exception as error:
                for change in changes:
                    change.error = change.error or (error if change.durable else None)

    def close(self) -> None:
        """Wait for pending changes, and end the thread."""
        if self._thread is not None:
            self._ended = True
            self._ring()
            self._thread.join()
            self._thread = None
        self._button.close()
        self._bell.close()


class _Change:
    """A function, whether it must be durable, its result, and the future that waits for it."""

    __slots__ = ("durable", "error", "function", "result", "told")

    def __init__(self, function: Callable[[], object], durable: bool, told: asyncio.Future[Any]) -> None:
        self.function = function
        self.durable = durable
        self.told = told
        self.result: object = None
        self.error: Exception | None = None

    def make(self) -> None:
        try:
            self.result = self.function()
        except Exception as error:
            self.error = error


def _tell(changes: Iterable[_Change]) -> None:
    for change in changes:
        if change.told.done():
            continue  # who waited has been cancelled
        if change.error is not None:
            change.told.set_exception(change.error)
        else:
            change.told.set_result(change.result)
