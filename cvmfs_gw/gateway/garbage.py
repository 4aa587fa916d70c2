"""Garbage collection by the gateway: in threads of its own, with leases open, alongside commits and uploads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, runtime_checkable

from cvmfs_gw.care.gc import GcReport, OnDelete, Policy, collect
from cvmfs_gw.care.lastgc import due
from cvmfs_gw.engine.errors import StorageError
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.gateway.errors import NotAvailable
from cvmfs_gw.gateway.leaseage import DAY_MS
from cvmfs_gw.gateway.leases import Lease
from cvmfs_objstore.errors import ObjectStoreError

MAX_PARALLEL: Final = 2
"""The maximum number of repositories that are collected at the same time."""


@runtime_checkable
class CareEngine(Protocol):
    """The interface of an engine that supports maintenance. *clock* gives seconds since the epoch."""

    clock: Callable[[], float]

    def repository(self, fqrn: str) -> Repository: ...


class Garbage:
    """Runs collections. *leases* returns the active leases; none lives longer than *max_lease_ms* unless renewed."""

    def __init__(self, engine: object, leases: Callable[[], Iterable[Lease]], max_lease_ms: int) -> None:
        self._engine = engine if isinstance(engine, CareEngine) else None
        self._leases, self._max_lease_ms = leases, max_lease_ms
        self._pool = ThreadPoolExecutor(MAX_PARALLEL, "gw-gc")
        self._stop = threading.Event()
        self.others: Callable[[str], float | None] = lambda fqrn: None
        """The start of the oldest activity on a repository that needs objects but has no lease, in seconds."""

    async def collect(self, fqrn: str, policy: Policy, *, dry_run: bool, on_delete: OnDelete | None = None) -> GcReport:
        """Collect the garbage of *fqrn*; *on_delete* is called in a thread.

        Raises :exc:`~cvmfs_gw.engine.errors.EngineError`; :exc:`NotAvailable` if the engine cannot do that.
        """
        engine = self._engine
        if engine is None:
            raise NotAvailable("garbage collection is not available")

        def work() -> GcReport:
            try:
                return collect(
                    engine.repository(fqrn),
                    policy,
                    # the leases first, then the head: who commits in between is part of the head
                    oldest_lease=self.oldest_lease(fqrn),
                    dry_run=dry_run,
                    on_delete=on_delete,
                    stop=self._stop.is_set,
                    clock=engine.clock,
                )
            except (ObjectStoreError, OSError) as error:
                raise StorageError(f"{fqrn}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def due(self, fqrn: str) -> Policy | None:
        """The policy of an automatic collection that is due; None if none is. Raises :exc:`EngineError`."""
        if self._engine is None:
            return None
        try:
            since = due(self._engine.repository(fqrn), self._engine.clock())
        except (ObjectStoreError, OSError) as error:
            raise StorageError(f"{fqrn}: {error}") from error
        return None if since is None else Policy(since=since)

    def oldest_lease(self, fqrn: str) -> float | None:
        """The time when the oldest open lease of the repository was granted, or other activity began, in seconds."""
        began = [self._granted_ms(lease) / 1000 for lease in self._leases() if lease.path.fqrn == fqrn]
        if (other := self.others(fqrn)) is not None:
            began.append(other)
        return min(began, default=None)

    def _granted_ms(self, lease: Lease) -> int:
        # one that another program granted does not say when
        return lease.granted_ms or lease.expires_ms - self._max_lease_ms - DAY_MS

    def stop(self) -> None:
        """Abort collections; later ones will collect what is left."""
        self._stop.set()

    def close(self) -> None:
        """Abort collections and wait for them."""
        self.stop()
        self._pool.shutdown()
