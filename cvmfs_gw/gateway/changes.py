"""The one thread that changes leases: changes are made in order, and durable before anybody hears of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cvmfs_gw.gateway.durability import GroupCommit

T = TypeVar("T")


class Changes:
    """Calls functions in the thread that changes leases. To be used from one event loop only.

    *flush* makes durable what was changed until then; it is called in a thread, once for many changes.
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self._thread = ThreadPoolExecutor(1, "gw-leases")
        self._durability = GroupCommit(flush)

    async def __call__(self, function: Callable[..., T], *arguments: object) -> T:
        """Call *function*; returns when the change is durable."""
        result = await self.lazily(function, *arguments)
        await self._durability.durable()
        return result

    async def lazily(self, function: Callable[..., T], *arguments: object) -> T:
        """The same for a change that a power cut may undo, and that nothing but a power cut undoes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def close(self) -> None:
        """Wait for changes that are under way, and end the threads."""
        self._thread.shutdown()
        self._durability.close()
