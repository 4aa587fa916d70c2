"""The gateway's service: what the REST API calls, and the only bridge between the event loop and threads.

::

    GatewayService ─┬─ repositories   access to them, and whether leases are granted
                    ├─ leases         granted, waited for, renewed, cancelled
                    ├─ payloads       object packs on their way into the store
                    ├─ commits        in order for each repository, with recorded outcomes
                    ├─ care           tags, rollback, signing, checks
                    └─ garbage        collections, on request and automatic

Everything that may block on a disk runs in threads: changes of leases in one thread, in order; object packs in a few,
and large ones in processes; commits in one for each repository that is being committed to. Leases and repositories are
read from memory, so that reading them never blocks.

A request's work is not tied to its connection: a commit continues if the publisher disconnects, and a repeated request
joins it or gets its recorded outcome.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cvmfs_gw.engine.commit_api import CommitEngine
from cvmfs_gw.gateway.access import Access
from cvmfs_gw.gateway.autogc import AutoGarbage
from cvmfs_gw.gateway.care import Care
from cvmfs_gw.gateway.changes import Changes
from cvmfs_gw.gateway.committer import Committed, Committer
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.errors import ConfigError
from cvmfs_gw.gateway.garbage import Garbage
from cvmfs_gw.gateway.grants import Grants
from cvmfs_gw.gateway.heads import Head
from cvmfs_gw.gateway.leases import GRACE_MS, LeaseBook, LeaseView
from cvmfs_gw.gateway.members import UnknownMember
from cvmfs_gw.gateway.metrics import Metrics
from cvmfs_gw.gateway.payloads import Payloads
from cvmfs_gw.gateway.protocol import MAX_PAYLOAD
from cvmfs_gw.gateway.repositories import Repositories
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.objects import ObjectStore

log = logging.getLogger(__name__)

WATCH_S: Final = 5.0
"""The interval at which ``repo.json`` and key files are checked for changes, in seconds."""
HOUSEKEEPING_S: Final = 60.0
"""The interval at which expired leases are removed, in seconds."""
OUTCOMES_KEPT_MS: Final = 30 * 86_400_000
"""How long the outcome of a commit is remembered, in milliseconds."""


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _warn(*unknown: UnknownMember) -> None:
    for member in unknown:
        log.warning("%s", member)


class GatewayService:
    """The gateway, without HTTP. All methods belong to one event loop.

    *stores* and *head* are those of :class:`~cvmfs_gw.gateway.repositories.Repositories`. *max_payload* is in bytes.
    """

    def __init__(
        self,
        *,
        config: Config,
        paths: SystemPaths,
        access: Access,
        leases: LeaseBook,
        engine: CommitEngine,
        stores: Callable[[str], ObjectStore],
        head: Callable[[str], Head | None] | None = None,
        max_payload: int = MAX_PAYLOAD,
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.config = config
        self.access = access
        self.metrics = Metrics()
        self.now_ms = clock
        """The time by this service's clock, in milliseconds since the epoch."""
        self._book = leases
        self._changes = Changes(leases.sync if config.fsync else lambda: None)
        self.commits = Committer(
            engine,
            leases,
            self._changes,
            access,
            clock,
            self.metrics,
            uploaded=lambda token: self.payloads.uploaded(token),
            moved=lambda fqrn: self.repositories.heads.moved(fqrn),
        )
        self.commits.on_committed.append(self._committed)
        self.repositories = Repositories(
            access=access,
            config=config,
            paths=paths,
            book=leases,
            changes=self._changes,
            commits=self.commits,
            stores=stores,
            heads=head,
        )
        self.leases = Grants(
            access=access,
            repositories=self.repositories,
            book=leases,
            changes=self._changes,
            check_lease=engine.check_lease,
            lifetime_ms=config.max_lease_ms,
            metrics=self.metrics,
            clock=clock,
        )
        self.payloads = Payloads(
            access=access,
            book=leases,
            changes=self._changes,
            store=self.repositories.store,
            prepare=engine.prepare,
            metrics=self.metrics,
            clock=clock,
            max_size=max_payload,
        )
        self.garbage = Garbage(engine, self.leases.all, config.max_lease_ms)
        self.care = Care(engine, self.repositories, self.commits)
        self.auto_garbage = AutoGarbage(self.garbage)
        self.commits.on_committed.append(self.auto_garbage.committed)
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def open(
        cls,
        config: Config,
        paths: SystemPaths,
        *,
        engine: CommitEngine,
        stores: Callable[[str], ObjectStore],
        head: Callable[[str], Head | None] | None = None,
        clock: Callable[[], int] = wall_clock_ms,
    ) -> GatewayService:
        """Read the access configuration and open the lease database that *config* names.

        Raises :exc:`~cvmfs_gw.gateway.errors.ConfigError`.
        """
        access = Access.load(config.access_config_file, paths)
        _warn(*config.unknown, *access.config.unknown)
        leases = LeaseBook.open(
            config.lease_database,
            now=clock(),
            grace_ms=min(GRACE_MS, config.max_lease_ms),
            key_ids=access.config.keys,
            fqrns=access.config.repositories,
        )
        return cls(
            config=config,
            paths=paths,
            access=access,
            leases=leases,
            engine=engine,
            stores=stores,
            head=head,
            clock=clock,
        )

    async def start(self) -> None:
        """Begin to clear away expired leases, and to look whether the keys have changed, from time to time."""
        self._tasks = [asyncio.create_task(self._keep_house()), asyncio.create_task(self._watch_keys())]

    async def close(self) -> None:
        """Let commits that were begun come to their end, and close the lease database."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.commits.finish()
        self.garbage.stop()
        await self.auto_garbage.idle()
        await self.payloads.close()
        await asyncio.to_thread(self._shutdown)

    async def reload_if_changed(self) -> bool:
        """Reload if a file has changed; raises as :meth:`reload` does, once for each change."""
        if not await asyncio.to_thread(self.access.changed):
            return False
        await self.reload()
        return True

    async def reload(self) -> None:
        """Reload ``repo.json`` and the key files; raises :exc:`ConfigError`, changing nothing, if they are unusable."""
        await asyncio.to_thread(self.access.reload)
        _warn(*self.access.config.unknown)
        await self.repositories.configured()

    async def housekeep(self) -> None:
        """Clear away expired leases and old outcomes."""
        await self.leases.expire()
        await self._changes(self._book.forget_commits, self.now_ms() - OUTCOMES_KEPT_MS)

    def lease_views(self) -> list[LeaseView]:
        """Every lease that is alive, with its state, and with what the packs that are coming in have brought so far."""
        return [
            replace(view, uploads=view.uploads + self.payloads.incoming(view.lease.token))
            for view in self._book.views(self.now_ms())
        ]

    async def probe(self) -> None:
        """Return if leases could be changed now; raises what the lease database does."""
        await self._changes.look(self._book.probe)

    async def _committed(self, committed: Committed) -> None:
        self.leases.waiting.wake()

    async def _watch_keys(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                if await self.reload_if_changed():
                    log.info("keys and repositories have changed and were read again")
            except ConfigError as error:
                log.error("keys and repositories stay as they were: %s", error)
            except Exception:
                log.exception("cannot look at the keys")

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            try:
                await self.housekeep()
            except Exception:
                log.exception("housekeeping failed")

    def _shutdown(self) -> None:
        self.garbage.close()
        self.care.close()
        self.commits.close()
        self._changes.close()
        self._book.close()
