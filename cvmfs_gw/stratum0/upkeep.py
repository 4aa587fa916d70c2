"""What a server does by itself: remove what has lived its time, keep whitelists good.

Garbage is collected after it as after every commit, if ``server.conf`` wants that (``CVMFS_AUTO_GC``).

When the next entry is due is known from uploads as they come, and found by looking through the head from time to time,
as publishers bring and take entries, too. A look costs little where nothing has changed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from cvmfs_gw.care.resign import WhitelistState
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.gateway.errors import GatewayError
from cvmfs_gw.stratum0.admission import Admission
from cvmfs_gw.stratum0.clock import SteadyClock
from cvmfs_gw.stratum0.expiry import ExpiryIndex
from cvmfs_gw.stratum0.partial import PartialUploads
from cvmfs_gw.stratum0.whitelist import look_after
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.manifest import Manifest

log = logging.getLogger(__name__)

LOOK_S: Final = 60.0
"""How often the heads are looked through, and the clock is saved, in seconds."""
BLOCKED_S: Final = 10.0
"""How long to leave alone what is due and could not be removed: a publisher works there, or the disk is full."""
AGAIN_S: Final = 1.0
"""The same if others were removed, so that a stream of ends does not become one of commits."""
PARTIAL_S: Final = 3600.0
"""How often incomplete uploads are looked at, in seconds."""
WHITELIST_S: Final = 3600.0
"""How often whitelists are looked at, in seconds."""


class Kept(Protocol):
    """The service of uploads, :class:`cvmfs_gw.stratum0.service.UploadService`, as far as upkeep needs it."""

    @property
    def clock(self) -> SteadyClock: ...
    @property
    def admission(self) -> Admission: ...
    def repository(self, fqrn: str) -> Repository: ...
    def index(self, fqrn: str) -> ExpiryIndex: ...
    def partial(self, fqrn: str) -> PartialUploads: ...
    async def head(self, fqrn: str) -> Manifest: ...
    async def expire(self, fqrn: str) -> int: ...


class Upkeep:
    """Runs in the event loop of *service*."""

    def __init__(self, service: Kept) -> None:
        self._service = service
        self._next: dict[str, float] = {}
        self._looked: dict[str, float] = {}
        self._awake = asyncio.Event()
        self.whitelists: dict[str, WhitelistState] = {}
        """The whitelists as they were found last."""

    def start(self) -> list[asyncio.Task[None]]:
        """The tasks, which run until they are cancelled."""
        never = asyncio.Event()
        return [
            asyncio.create_task(_for_ever(self._keep_times, self._awake)),
            asyncio.create_task(_for_ever(self._keep_whitelists, never)),
            asyncio.create_task(_for_ever(self._drop_partial, never)),
        ]

    def due(self, fqrn: str, moment: float) -> None:
        """Something is due then, in seconds since the epoch."""
        if moment < self._next.get(fqrn, math.inf):
            self._next[fqrn] = moment
            self._awake.set()

    def wake(self) -> None:
        """Look at everything now."""
        self._looked.clear()
        self._awake.set()

    # --- times to live -------------------------------------------------------------------------------------------

    async def _keep_times(self) -> float:
        """Remove what is due; returns for how long there is nothing to do."""
        self._awake.clear()
        service = self._service
        try:
            await asyncio.to_thread(service.clock.save)
        except OSError as error:  # only the next start will know less of the time
            log.error("cannot save the time that times to live are measured with: %s", error)
        enabled = service.admission.enabled()
        for fqrn in enabled:
            stale = time.monotonic() - self._looked.get(fqrn, -math.inf) >= LOOK_S
            if not stale and self._next.get(fqrn, math.inf) > service.clock():
                continue
            try:
                await self.look(fqrn)
            except (GatewayError, EngineError, ObjectStoreError, OSError) as error:
                log.error("%s: cannot remove what has lived its time: %s", fqrn, error)
                self._next[fqrn] = service.clock() + BLOCKED_S
        first = min((self._next.get(fqrn, math.inf) for fqrn in enabled), default=math.inf)
        return min(max(first - service.clock(), 0.0), LOOK_S)

    async def look(self, fqrn: str) -> None:
        """Remove what is due in one repository, and find out when the next is."""
        service = self._service
        self._looked[fqrn] = time.monotonic()
        first = await self._first(fqrn)
        if first <= service.clock():
            removed = await service.expire(fqrn)
            if removed:
                log.info("%s: %d entries have lived their time", fqrn, removed)
            first = await self._first(fqrn)
            if first <= service.clock():
                # what is due is in the way of a publisher, or has become due meanwhile
                first = service.clock() + (AGAIN_S if removed else BLOCKED_S)
        self._next[fqrn] = first

    async def _first(self, fqrn: str) -> float:
        service = self._service
        root = (await service.head(fqrn)).root_hash
        return await asyncio.to_thread(lambda: service.index(fqrn).first(root))

    async def _drop_partial(self) -> float:
        """Remove uploads that nobody goes on with."""
        for fqrn in self._service.admission.repositories():
            await self._service.partial(fqrn).clean()
        return PARTIAL_S

    # --- whitelists ----------------------------------------------------------------------------------------------

    async def _keep_whitelists(self) -> float:
        service = self._service
        for fqrn in service.admission.repositories():
            try:
                repository = await asyncio.to_thread(service.repository, fqrn)
            except EngineError as error:
                log.error("%s: %s", fqrn, error)
                continue
            found = await asyncio.to_thread(look_after, repository, time.time())
            if found is not None:
                self.whitelists[fqrn] = found
        return WHITELIST_S


async def _for_ever(work: Callable[[], Awaitable[float]], awake: asyncio.Event) -> None:
    """Do *work*, which tells for how many seconds there is nothing to do then, unless *awake* is set."""
    while True:
        try:
            pause = await work()
        except Exception:
            log.exception("upkeep failed")
            pause = LOOK_S
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await awake.wait()
