"""SIGHUP: reloads keys, repositories, settings and certificate, each independently."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from cvmfs_gw.gateway.errors import ConfigError

log = logging.getLogger(__name__)


class Reloader:
    """Reloads all *parts* (name -> function). A part that raises :exc:`ConfigError` stays as it was."""

    def __init__(self, parts: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        self._parts = parts
        self._running: set[asyncio.Task[None]] = set()  # the loop alone would not keep them

    def begin(self) -> None:
        """For a signal handler: starts the reload and returns."""
        self._running.add(task := asyncio.get_running_loop().create_task(self.run()))
        task.add_done_callback(self._running.discard)

    async def run(self) -> None:
        """Reload every part, even if others fail."""
        for name, reload in self._parts.items():
            try:
                await reload()
                log.info("%s: read again", name)
            except ConfigError as error:
                log.error("%s: as before: %s", name, error)
            except Exception:
                log.exception("%s: cannot be read again", name)
