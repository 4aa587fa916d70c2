"""Automatic garbage collection: after a commit, if one is due; nobody waits for it.

::

    commit ─▶ (none under way?) ─▶ due?  ─▶ collect, in a thread, between commits
              one look at a time   server.conf, the last collection

The check whether one is due reads two small files, in a thread. Commits that arrive meanwhile share the next check.
"""

from __future__ import annotations

import asyncio
import logging

from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.gateway.committer import Committed
from cvmfs_gw.gateway.errors import GatewayError
from cvmfs_gw.gateway.garbage import Garbage

log = logging.getLogger(__name__)


class AutoGarbage:
    """A listener of commits. To be used from one event loop only."""

    def __init__(self, garbage: Garbage) -> None:
        self._garbage = garbage
        self._running: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    async def committed(self, committed: Committed) -> None:
        """Collect if a collection is due; returns at once."""
        fqrn = committed.fqrn
        if fqrn in self._running:
            self._again.add(fqrn)
            return
        self._running[fqrn] = asyncio.create_task(self._run(fqrn))

    async def idle(self) -> None:
        """Wait until no collection is running."""
        while self._running:
            await asyncio.gather(*self._running.values())

    async def _run(self, fqrn: str) -> None:
        try:
            while True:
                self._again.discard(fqrn)
                await self._collect_if_due(fqrn)
                if fqrn not in self._again:
                    break
        finally:
            del self._running[fqrn]

    async def _collect_if_due(self, fqrn: str) -> None:
        try:
            policy = await asyncio.to_thread(self._garbage.due, fqrn)
            if policy is None:
                return
            report = await self._garbage.collect(fqrn, policy, dry_run=False)
        except (EngineError, GatewayError) as error:
            log.warning("no automatic garbage collection: %s", error)
        except Exception:
            log.exception("automatic garbage collection of %s failed", fqrn)
        else:
            log.info("%s: automatic garbage collection removed %d objects", fqrn, report.condemned_objects)
