"""A queue for busy lease paths, so that publishers need not poll: first come, first served.

A request that may wait joins the queue. It is retried when a lease ends, when the conflicting lease expires, and when
an earlier request has left the queue. No request is served before an earlier one for an overlapping path, whether or
not it may wait: otherwise, those who poll would win again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from cvmfs_gw.gateway.errors import PathBusy
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.leases import MIN_REMAINING_MS

MAX_WAIT_S: Final = 600.0
"""The longest wait that is granted, in seconds: HTTP clients and proxies have time-outs, too."""
LOOK_S: Final = 1.0
"""The interval at which to check whether a waiting client is still connected, in seconds."""

T = TypeVar("T")


class _Waiter:
    __slots__ = ("path", "woken")

    def __init__(self, path: LeasePath) -> None:
        self.path = path
        self.woken = asyncio.Event()


class WaitingLine:
    """The queue of requests that wait for a path. To be used from one event loop only."""

    def __init__(self) -> None:
        self._line: list[_Waiter] = []

    def __len__(self) -> int:
        return len(self._line)

    async def acquire(
        self,
        path: LeasePath,
        acquire: Callable[[], Awaitable[T]],
        wait_s: float,
        gone: Callable[[], bool] = lambda: False,
    ) -> T:
        """Call *acquire* until it no longer raises :exc:`PathBusy`, for up to *wait_s* seconds; returns its result.

        Raises the last :exc:`PathBusy` when the time is up or the client is *gone*.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + min(wait_s, MAX_WAIT_S)
        waiter = _Waiter(path)
        self._line.append(waiter)
        try:
            while True:
                waiter.woken.clear()
                busy = PathBusy(MIN_REMAINING_MS)
                if self._is_first(waiter) and not gone():
                    try:
                        return await acquire()
                    except PathBusy as error:
                        busy = error
                left = until - loop.time()
                if left <= 0 or gone():
                    raise busy
                await _wait(waiter.woken, min(left, LOOK_S, busy.remaining_ms / 1000))
        finally:
            self._line.remove(waiter)
            self.wake()

    def wake(self) -> None:
        """Let waiting requests try again, as a lease has ended."""
        for waiter in self._line:
            waiter.woken.set()

    def _is_first(self, waiter: _Waiter) -> bool:
        for other in self._line:
            if other is waiter:
                return True
            if other.path.overlaps(waiter.path):
                return False
        raise AssertionError("not in line")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
