"""Leases as publishers see them: asked for, waited for, renewed, cancelled, by their own key or an administrator's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cvmfs_gw.gateway.access import Access
from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.gateway.changes import Changes
from cvmfs_gw.gateway.errors import (
    GatewayError,
    IncompatibleVersion,
    InvalidBody,
    InvalidLease,
    RepositoryDisabled,
    RepositoryNotFound,
    UnknownRepository,
)
from cvmfs_gw.gateway.heads import Head
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.leases import Lease, LeaseBook
from cvmfs_gw.gateway.metrics import Metrics
from cvmfs_gw.gateway.protocol import MAX_HOSTNAME, MAX_REQUEST, MIN_PROTOCOL, negotiate
from cvmfs_gw.gateway.repositories import Repositories
from cvmfs_gw.gateway.waiting import WaitingLine

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrantedLease:
    """What a publisher gets for its request. ``head`` is None where the service does not know it."""

    token: str
    protocol: int
    head: Head | None


class Grants:
    """Grants leases and ends them. To be used from one event loop only.

    *check_lease* raises for a path where nothing could ever be published; it is called in threads. *clock* tells
    milliseconds since the epoch; a lease lives *lifetime_ms* milliseconds.
    """

    def __init__(
        self,
        *,
        access: Access,
        repositories: Repositories,
        book: LeaseBook,
        changes: Changes,
        check_lease: Callable[[str, str], None],
        lifetime_ms: int,
        metrics: Metrics,
        clock: Callable[[], int],
    ) -> None:
        self._access = access
        self._repositories = repositories
        self._book = book
        self._changes = changes
        self._check_lease = check_lease
        self._lifetime_ms = lifetime_ms
        self._metrics = metrics
        self._clock = clock
        self.waiting = WaitingLine()

    def all(self) -> list[Lease]:
        """Every lease that is alive."""
        return self._book.active(self._clock())

    def get(self, token: str) -> Lease:
        """Raises :exc:`InvalidLease`."""
        return self._book.get(token, self._clock())

    async def acquire(
        self,
        path: str,
        key: Key,
        *,
        protocol: int,
        hostname: str,
        request: str = "",
        wait_s: float = 0.0,
        gone: Callable[[], bool] = lambda: False,
    ) -> GrantedLease:
        """Grant a lease on ``<fqrn>/<path>`` to a client that speaks up to *protocol*.

        If the path is busy, wait up to *wait_s* seconds, or until the client is *gone*; see :mod:`waiting`. A *request*
        that has a name and was granted already is granted again: its first reply was lost, and with it the token.
        Raises :exc:`GatewayError`, and :exc:`EngineError` for a path where nothing could ever be published.
        """
        if protocol < MIN_PROTOCOL:
            raise IncompatibleVersion(f"incompatible request version: {protocol}, min version: {MIN_PROTOCOL}")
        lease_path = LeasePath.parse(path)
        fqrn = lease_path.fqrn
        if fqrn not in self._access.config.repositories:
            raise RepositoryNotFound(fqrn)
        if not self._repositories.enabled(fqrn):
            raise RepositoryDisabled
        self._access.config.check(key.id, lease_path)
        if lease_path.path.count("/") > 1:  # what lies right below the root has no ancestor to look at
            await asyncio.to_thread(self._check_lease, fqrn, lease_path.path)

        def acquire() -> Awaitable[Lease]:
            if not self._repositories.enabled(fqrn):
                raise RepositoryDisabled  # while it was waited for
            return self._changes(
                lambda: self._book.acquire(
                    lease_path,
                    key.id,
                    now=self._clock(),
                    lifetime_ms=self._lifetime_ms,
                    protocol=negotiate(protocol),
                    hostname=hostname[:MAX_HOSTNAME],
                    request=request,
                )
            )

        try:
            lease = await self._grant_again(lease_path, key, request)
            if lease is None:
                lease = await self.waiting.acquire(lease_path, acquire, wait_s, gone)
        except GatewayError as error:
            self._metrics.add("lease_requests_total", outcome=error.status if error.status != "error" else "refused")
            raise
        self._metrics.add("lease_requests_total", outcome="ok")
        if wait_s and gone():
            with contextlib.suppress(InvalidLease):  # asked again on another connection, and granted to that
                await self._changes(self._book.cancel, lease.token)
            self.waiting.wake()
            raise ConnectionResetError("the publisher has gone away")
        # publishers do without the head
        return GrantedLease(lease.token, lease.protocol, await self._repositories.heads.get(fqrn))

    async def _grant_again(self, path: LeasePath, key: Key, request: str) -> Lease | None:
        if not request:
            return None
        if len(request) > MAX_REQUEST:
            raise InvalidBody(f"the name of a request has more than {MAX_REQUEST} characters")
        return await self._changes(
            lambda: self._book.grant_again(path, key.id, request, now=self._clock(), lifetime_ms=self._lifetime_ms)
        )

    async def renew(self, token: str, key: Key, *, lifetime_s: int | None = None) -> Lease:
        """Let the lease live for *lifetime_s* seconds from now, but no longer than a new one; raises."""
        lease = self.get(token)
        self._access.check_owner(key, lease.key_id, lease.path)
        limit = self._lifetime_ms
        lifetime_ms = limit if lifetime_s is None else min(lifetime_s * 1000, limit)
        return await self._changes(lambda: self._book.renew(token, now=self._clock(), lifetime_ms=lifetime_ms))

    async def cancel(self, token: str, key: Key) -> None:
        """Raises :exc:`InvalidLease`, :exc:`KeyNotAllowed`, :exc:`CommitInProgress`."""
        # a lease whose time is up can be dropped, too: that is what a late publisher does
        lease = self._book.get(token)
        self._access.check_owner(key, lease.key_id, lease.path)
        await self._changes(self._book.cancel, token)
        self.waiting.wake()

    async def cancel_by_path(self, path: str) -> list[Lease]:
        """Cancel every lease at and below ``<fqrn>/<path>``; raises :exc:`GatewayError`."""
        lease_path = LeasePath.parse(path)
        try:
            cancelled = await self._changes(self._book.cancel_within, lease_path)
        finally:
            self.waiting.wake()
        if not cancelled and lease_path.fqrn not in self._access.config.repositories:
            raise UnknownRepository
        return cancelled

    async def expire(self) -> None:
        """Clear away the leases whose time is up."""
        for lease in await self._changes(self._book.expire, self._clock()):
            log.info("the lease on %s has expired", lease.path)
        self.waiting.wake()
