"""How many requests are being answered, and those that only wait for their sender to say who it is.

Whoever has not been authorised yet costs a connection and nothing else, and anybody can open thousands of them. So such
requests do not count as being answered, and when there are too many the one that has waited longest is given up: who
means to send something does so at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

MAX_STRANGERS: Final = 1024
"""Requests that wait for a sender who is not known yet."""
PATIENCE_S: Final = 60.0
"""For how long each of them does, in seconds."""


class Running:
    """The requests of an application. To be used from one event loop only."""

    def __init__(self) -> None:
        self.count = 0
        """How many are being answered."""
        self._strangers: dict[asyncio.Timeout, None] = {}  # the one that has waited longest comes first

    @asynccontextmanager
    async def waiting(self, seconds: float) -> AsyncIterator[None]:
        """While this request waits for its sender, up to that many seconds; raises :exc:`TimeoutError`."""
        async with asyncio.timeout(seconds) as limit:
            self._strangers[limit] = None
            self.count -= 1
            if len(self._strangers) > MAX_STRANGERS:
                longest = next(iter(self._strangers))
                del self._strangers[longest]
                longest.reschedule(asyncio.get_running_loop().time())
            try:
                yield
            finally:
                self.count += 1
                self._strangers.pop(limit, None)


RUNNING: Final = web.AppKey("running", Running)
