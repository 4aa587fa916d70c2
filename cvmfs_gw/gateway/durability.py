"""Group commit: one flush makes the changes of everybody durable who waits for it.

::

    changes   a  b   c  d  e        f
    flushes   [ a   ][ b c d e ][ f ]

Whoever has made a change waits for a flush that began after it. While one is running the next collects, so that a slow
disk makes groups larger and nobody's wait longer than two flushes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class GroupCommit:
    """Calls *flush* in a thread of its own. To be used from one event loop only."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._thread = ThreadPoolExecutor(1, "gw-flush")
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def durable(self) -> None:
        """Return when what has been changed until now is durable; raises what the flush does."""
        if self._next is None:
            self._next = asyncio.create_task(self._run(self._running))
        await asyncio.shield(self._next)

    async def _run(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        # from here on it is too late to join
        self._running, self._next = self._next, None
        await asyncio.get_running_loop().run_in_executor(self._thread, self._flush)

    def close(self) -> None:
        """Wait for a flush that is running, and end the thread."""
        self._thread.shutdown()
