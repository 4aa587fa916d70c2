"""The one thread that changes leases: in order, and durable before anybody hears of it.

::

    changes   a  b   c  d  e        f
    rounds    [ a   ][ b c d e ][ f ]      each makes its changes one after the other, and one flush for all of them

Whoever comes during a round waits for the next, so that a slow disk makes rounds larger and nobody's wait longer than
two flushes.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Changes:
    """Calls functions in a thread of its own. To be used from one event loop only.

    *flush* makes durable what was changed until then; it is called in the thread. What it raises is told to everybody
    whose change it was for.
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._thread = ThreadPoolExecutor(1, "gw-leases")
        self._lock = threading.Lock()  # for the thread's decision that there is nothing left
        self._waiting: deque[_Change] = deque()
        self._busy = False

    async def __call__(self, function: Callable[..., T], *arguments: object) -> T:
        """What *function* returns or raises; a change is durable by then."""
        return await self._put(partial(function, *arguments), True)

    async def look(self, function: Callable[..., T], *arguments: object) -> T:
        """The same for a function that changes nothing."""
        return await self._put(partial(function, *arguments), False)

    async def _put(self, function: Callable[[], T], durable: bool) -> T:
        loop = asyncio.get_running_loop()
        change = _Change(function, durable, loop.create_future())
        with self._lock:
            self._waiting.append(change)
            idle, self._busy = not self._busy, True
        if idle:
            self._thread.submit(self._work, loop)
        result: T = await change.told
        return result

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._lock:
                changes = list(self._waiting)
                self._waiting.clear()
                if not changes:
                    self._busy = False
                    return
            for change in changes:
                change.make()
            if any(change.durable for change in changes):
                try:
                    self._flush()
                except Exception as error:
                    for change in changes:
                        change.error = change.error or (error if change.durable else None)
            loop.call_soon_threadsafe(_tell, changes)

    def close(self) -> None:
        """Wait for changes that are under way, and end the thread."""
        self._thread.shutdown()


class _Change:
    """A function, whether it must be durable, what came of it, and who waits for that."""

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
