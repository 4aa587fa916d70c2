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
from collections.abc import Callable, Iterable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Changes:
    """Calls functions in a thread of its own. To be used from one event loop only.

    *flush* makes durable what was changed until then; it is called in the thread. What it raises is told to everybody
    whose change it was for.
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        # an executor would wake threads four times for each change, which costs more than the change
        self._queue: SimpleQueue[_Change | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def __call__(self, function: Callable[..., T], *arguments: object) -> T:
        """What *function* returns or raises; a change is durable by then."""
        return await self._put(partial(function, *arguments), True)

    async def look(self, function: Callable[..., T], *arguments: object) -> T:
        """The same for a function that changes nothing."""
        return await self._put(partial(function, *arguments), False)

    async def _put(self, function: Callable[[], T], durable: bool) -> T:
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, args=(loop,), name="gw-leases", daemon=True)
            self._thread.start()
        change = _Change(function, durable, loop.create_future())
        self._queue.put(change)
        result: T = await change.told
        return result

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        ended = False
        while not ended:
            taken = [self._queue.get()]
            taken += [self._queue.get() for _ in range(self._queue.qsize())]
            changes = [change for change in taken if change is not None]
            ended = len(changes) < len(taken)
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
        """Wait for changes that are under way, and end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None


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
