"""The gateway's service: what the REST API calls, and the one bridge between the event loop and threads.

Everything that may wait for a disk runs in threads: changes of leases in one of their own, in order; object packs in
a few; commits in one for each repository that is being committed to. Reading leases and repositories touches memory
only, so that neither waits for anybody.

A request's work is not tied to its connection: a commit goes on when the publisher has gone away, and asking for the
same commit again joins it or gets its recorded outcome.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from cvmfs_gw.engine.commit_api import CommitEngine, CommitOutcome, UploadStatistics
from cvmfs_gw.gateway.access import Access
from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.gateway.committer import CommitBody, Committed, Committer, Listener
from cvmfs_gw.gateway.config import Config
from cvmfs_gw.gateway.durability import GroupCommit
from cvmfs_gw.gateway.errors import (
    CertificateNotFound,
    ConfigError,
    GatewayError,
    IncompatibleVersion,
    InvalidLease,
    KeyEndpointDisabled,
    KeyNotAllowed,
    PublicKeyNotFound,
    RepositoryBusy,
    RepositoryDisabled,
    RepositoryNotFound,
    StoreFailure,
    UnknownRepository,
)
from cvmfs_gw.gateway.garbage import Garbage
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.leases import GRACE_MS, Lease, LeaseBook, LeaseView
from cvmfs_gw.gateway.metrics import Metrics
from cvmfs_gw.gateway.protocol import MAX_HOSTNAME, MAX_PAYLOAD, MAX_TOKEN, MIN_PROTOCOL, negotiate
from cvmfs_gw.gateway.uploads import PackReceiver, receive
from cvmfs_gw.gateway.waiting import WaitingLine
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.objects import ObjectStore

log = logging.getLogger(__name__)

WATCH_S: Final = 5.0
"""How often it is looked whether ``repo.json`` or a key file has changed, in seconds."""
HOUSEKEEPING_S: Final = 60.0
"""How often expired leases are cleared away, in seconds."""
OUTCOMES_KEPT_MS: Final = 30 * 86_400_000
"""How long the outcome of a commit is remembered, in milliseconds."""
RECENT_COMMITS: Final = 20
"""How many commits are remembered for people to see."""
MAX_UPLOADS: Final = 32
"""Object packs that are stored at the same time; more wait, and their senders with them."""
MAX_KEY_FILE: Final = 1 << 20
"""Longest key file that the key endpoint hands out, in bytes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Head:
    """A repository's present head: revision and root catalog."""

    revision: int
    root_hash: ContentHash
    published_s: int = 0
    """When it was published, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class GrantedLease:
    """What a publisher gets for its request. ``head`` is None where the service does not know it."""

    token: str
    protocol: int
    head: Head | None


@dataclass(frozen=True, slots=True)
class RecentCommit:
    """A commit that this process has published, and when, in milliseconds since the epoch."""

    fqrn: str
    path: str
    revision: int
    tag: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class RepositoryView:
    """A repository as ``GET /repos`` shows it: key id -> path, and whether leases are granted."""

    keys: dict[str, str]
    enabled: bool


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class GatewayService:
    """The gateway, without HTTP. All methods belong to one event loop.

    *stores* gives the object store of a repository, by preference the same each time; it is called in threads, and
    may raise :exc:`EngineError`, ``OSError`` or ``ValueError``. *head* tells a repository's present head for lease
    replies; without it they do not say.
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
        self._paths = paths
        self._leases = leases
        self._stores = stores
        self._head = head
        self._max_payload = max_payload
        self._clock = clock
        self._enabled = dict.fromkeys(access.config.repositories, True)
        self._leases.record_repositories(self._enabled)
        self._changes = ThreadPoolExecutor(1, "gw-leases")
        self._prepare, self._check_lease = engine.prepare, engine.check_lease
        self._durability = GroupCommit(leases.sync if config.fsync else lambda: None)
        self._uploads = ThreadPoolExecutor(max(4, os.cpu_count() or 1), "gw-upload")
        self.metrics = Metrics()
        self._committer = Committer(engine, leases, self._change, self._check_owner, clock, self.metrics)
        self.on_committed: list[Listener] = self._committer.on_committed
        """Called after each commit, one after the other; what they raise is logged."""
        self.on_committed.append(self._committed)
        self.waiting = WaitingLine()
        self.recent: deque[RecentCommit] = deque(maxlen=RECENT_COMMITS)
        """The latest commits of this process, the oldest first."""
        self.garbage = Garbage(engine, lambda: self._leases.active(self._clock()), config.max_lease_ms)
        self._receivers: dict[str, list[PackReceiver]] = {}
        self._slots = asyncio.Semaphore(MAX_UPLOADS)
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
        await self._committer.finish()
        await asyncio.to_thread(self._shutdown)

    async def reload_if_changed(self) -> bool:
        """Reload if a file has changed; raises as :meth:`reload` does, once for each change."""
        if not await asyncio.to_thread(self.access.changed):
            return False
        await self.reload()
        return True

    async def reload(self) -> None:
        """Read ``repo.json`` and the key files again; raises :exc:`ConfigError` and changes nothing if it cannot.

        Repositories that stay keep being enabled or disabled, new ones are enabled.
        """
        await asyncio.to_thread(self.access.reload)
        self._enabled = {name: self._enabled.get(name, True) for name in self.access.config.repositories}
        await self._change(self._leases.record_repositories, dict(self._enabled))

    # --- repositories ------------------------------------------------------------------------------------------

    def repositories(self) -> dict[str, RepositoryView]:
        return {name: self.repository(name) for name in self.access.config.repositories}

    def repository(self, fqrn: str) -> RepositoryView:
        """Raises :exc:`UnknownRepository`."""
        keys = self.access.config.repositories.get(fqrn)
        if keys is None:
            raise UnknownRepository
        return RepositoryView(dict(keys), self._enabled.get(fqrn, True))

    async def enable(self, fqrn: str, enable: bool, *, wait: bool = False) -> None:
        """Let leases be granted, or no longer; leases that are open may be used on.

        While a commit is running, disabling with *wait* takes effect at once and returns when the commit has ended;
        without, it raises :exc:`RepositoryBusy` and changes nothing. Raises :exc:`UnknownRepository`.

        Source: the state does not outlive the process. Divergence: the reference always says ok, whatever happened.
        """
        self.repository(fqrn)
        if not enable and not wait and self._committer.busy(fqrn):
            raise RepositoryBusy
        self._enabled[fqrn] = enable
        await self._change(self._leases.record_repositories, dict(self._enabled))
        if not enable and wait:
            await self._committer.idle(fqrn)

    async def public_keys(self, fqrn: str) -> tuple[bytes, bytes]:
        """The repository's public master key and its certificate; raises :exc:`KeyEndpointError`."""
        if not self.config.enable_key_endpoint:
            raise KeyEndpointDisabled
        self.repository(fqrn)
        public = await asyncio.to_thread(_read_key, self._paths.key_file(fqrn, "pub"), PublicKeyNotFound)
        certificate = await asyncio.to_thread(_read_key, self._paths.key_file(fqrn, "crt"), CertificateNotFound)
        return public, certificate

    # --- leases ------------------------------------------------------------------------------------------------

    async def new_lease(
        self,
        path: str,
        key: Key,
        *,
        protocol: int,
        hostname: str,
        wait_s: float = 0.0,
        gone: Callable[[], bool] = lambda: False,
    ) -> GrantedLease:
        """Grant a lease on ``<fqrn>/<path>`` to a client that speaks up to *protocol*.

        If the path is busy, wait up to *wait_s* seconds, or until the client is *gone*; see :mod:`waiting`.
        Raises :exc:`GatewayError`, and :exc:`EngineError` for a path where nothing could ever be published.
        """
        if protocol < MIN_PROTOCOL:
            raise IncompatibleVersion(f"incompatible request version: {protocol}, min version: {MIN_PROTOCOL}")
        lease_path = LeasePath.parse(path)
        if lease_path.fqrn not in self.access.config.repositories:
            raise RepositoryNotFound(lease_path.fqrn)
        if not self._enabled.get(lease_path.fqrn, True):
            raise RepositoryDisabled
        self.access.config.check(key.id, lease_path)
        if lease_path.path.count("/") > 1:  # what lies right below the root has no ancestor to look at
            await asyncio.to_thread(self._check_lease, lease_path.fqrn, lease_path.path)

        def acquire() -> Awaitable[Lease]:
            if not self._enabled.get(lease_path.fqrn, True):
                raise RepositoryDisabled  # while it was waited for
            return self._change(
                lambda: self._leases.acquire(
                    lease_path,
                    key.id,
                    now=self._clock(),
                    lifetime_ms=self.config.max_lease_ms,
                    protocol=negotiate(protocol),
                    hostname=hostname[:MAX_HOSTNAME],
                )
            )

        try:
            lease = await self.waiting.acquire(lease_path, acquire, wait_s, gone)
        except GatewayError as error:
            self.metrics.add("lease_requests_total", outcome=error.status if error.status != "error" else "refused")
            raise
        self.metrics.add("lease_requests_total", outcome="ok")
        if wait_s and gone():
            await self._change_lazily(self._leases.cancel, lease.token)
            self.waiting.wake()
            raise ConnectionResetError("the publisher has gone away")
        return GrantedLease(lease.token, lease.protocol, await self._head_of(lease_path.fqrn))

    def leases(self) -> list[Lease]:
        """Every lease that is alive."""
        return self._leases.active(self._clock())

    def lease_views(self) -> list[LeaseView]:
        """Every lease that is alive, with its state, and with what the packs that are coming in have brought so far."""
        return [
            replace(view, uploads=view.uploads + self._incoming(view.lease.token))
            for view in self._leases.views(self._clock())
        ]

    def now_ms(self) -> int:
        """The time by this service's clock, in milliseconds since the epoch."""
        return self._clock()

    def lease(self, token: str) -> Lease:
        """Raises :exc:`InvalidLease`."""
        return self._leases.get(_checked(token), self._clock())

    async def renew(self, token: str, key: Key, *, lifetime_s: int | None = None) -> Lease:
        """Let the lease live for *lifetime_s* seconds from now, but no longer than a new one; raises."""
        self._check_owner(self.lease(token), key)
        limit = self.config.max_lease_ms
        lifetime_ms = limit if lifetime_s is None else min(lifetime_s * 1000, limit)
        return await self._change(lambda: self._leases.renew(token, now=self._clock(), lifetime_ms=lifetime_ms))

    async def cancel(self, token: str, key: Key) -> None:
        """Raises :exc:`InvalidLease`, :exc:`KeyNotAllowed`, :exc:`CommitInProgress`."""
        # a lease whose time is up can be dropped, too: that is what a late publisher does
        self._check_owner(self._leases.get(_checked(token)), key)
        # after a power cut the lease may be back, until its time is up
        await self._change_lazily(self._leases.cancel, token)
        self.waiting.wake()

    async def cancel_by_path(self, path: str) -> list[Lease]:
        """Cancel every lease at and below ``<fqrn>/<path>``; raises :exc:`GatewayError`."""
        lease_path = LeasePath.parse(path)
        try:
            cancelled = await self._change(self._leases.cancel_within, lease_path)
        finally:
            self.waiting.wake()
        if not cancelled and lease_path.fqrn not in self.access.config.repositories:
            raise UnknownRepository
        return cancelled

    # --- payloads ----------------------------------------------------------------------------------------------

    async def payload(
        self, token: str, key: Key, *, digest: str, header_size: int, chunks: AsyncIterable[bytes | memoryview]
    ) -> UploadStatistics:
        """Store the objects of a pack; raises :exc:`GatewayError`.

        *chunks* is the pack alone. It is left where it was when this raises, for the caller to read to its end.
        """
        lease = self.lease(token)
        self._check_owner(lease, key)
        self._leases.begin_upload(token, self._clock())
        brought = UploadStatistics()
        receiver: PackReceiver | None = None
        started, outcome = time.monotonic(), "failed"
        slot = AsyncExitStack()
        try:
            loop = asyncio.get_running_loop()
            await slot.enter_async_context(self._slots)
            store = await loop.run_in_executor(self._uploads, self._open_store, lease.path.fqrn)
            receiver = PackReceiver(store, digest, header_size, max_size=self._max_payload)
            self._receivers.setdefault(token, []).append(receiver)
            brought = await receive(chunks, receiver, self._uploads)
            outcome = "ok"
            if receiver.catalogs:
                # The reply does not wait for it, and nobody asks what came of it.
                loop.run_in_executor(self._uploads, self._prepare, lease.path.fqrn, tuple(receiver.catalogs))
        finally:
            await slot.aclose()
            if receiver is not None:
                self._forget_receiver(token, receiver)
            self.metrics.add("payloads_total", outcome=outcome)
            self.metrics.add("payload_seconds_total", time.monotonic() - started)
            self.metrics.add("payload_objects_total", brought.objects_added, kind="added")
            self.metrics.add("payload_objects_total", brought.objects_duplicated, kind="present")
            # shielded, so that a connection that breaks does not leave the lease pinned for ever
            await asyncio.shield(self._change_lazily(lambda: self._leases.end_upload(token, self._clock(), brought)))
        return brought

    # --- commits -----------------------------------------------------------------------------------------------

    async def commit(self, token: str, body: CommitBody, key: Key) -> CommitOutcome:
        """Publish what the lease's packs brought; raises :exc:`GatewayError` and :exc:`EngineError`.

        The same token and hashes get the same answer, however often they are asked and also after a restart.
        """
        return await self._committer.commit(_checked(token), body, key)

    # --- housekeeping ------------------------------------------------------------------------------------------

    async def housekeep(self) -> None:
        """Clear away expired leases and old outcomes."""
        now = self._clock()
        for lease in await self._change(self._leases.expire, now):
            log.info("the lease on %s has expired", lease.path)
        self.waiting.wake()
        await self._change(self._leases.forget_commits, now - OUTCOMES_KEPT_MS)

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

    # --- inside ------------------------------------------------------------------------------------------------

    async def _change(self, function: Callable[..., T], *arguments: object) -> T:
        """Call *function* in the thread that changes leases; returns when the change is durable."""
        result = await self._change_lazily(function, *arguments)
        await self._durability.durable()
        return result

    async def _change_lazily(self, function: Callable[..., T], *arguments: object) -> T:
        """The same for a change that a power cut may undo, and that nothing but a power cut undoes."""
        return await asyncio.get_running_loop().run_in_executor(self._changes, function, *arguments)

    # --- for those who watch ------------------------------------------------------------------------------------

    def head(self, fqrn: str) -> Head | None:
        """The repository's present head, None if it cannot be read. Looks at the disk."""
        return None if self._head is None else self._head(fqrn)

    def store(self, fqrn: str) -> ObjectStore:
        """The repository's object store; raises :exc:`GatewayError` and :exc:`EngineError`. Looks at the disk."""
        return self._open_store(fqrn)

    @property
    def payloads_running(self) -> int:
        return sum(len(receivers) for receivers in self._receivers.values())

    @property
    def commits_running(self) -> int:
        """Commits that are at work or wait for their turn."""
        return self._committer.running

    def received_bytes(self) -> int:
        """Bytes of object packs that came in since the process started."""
        running = sum(receiver.received for receivers in self._receivers.values() for receiver in receivers)
        return int(self.metrics.total("payload_bytes_total")) + running

    async def probe(self) -> None:
        """Return if leases could be changed now; raises what the lease database does."""
        await self._change(self._leases.probe)

    def _incoming(self, token: str) -> UploadStatistics:
        receivers = self._receivers.get(token, ())
        return UploadStatistics(
            objects_added=sum(receiver.objects for receiver in receivers),
            bytes_added=sum(receiver.received for receiver in receivers),
        )

    def _forget_receiver(self, token: str, receiver: PackReceiver) -> None:
        self.metrics.add("payload_bytes_total", receiver.received)
        receivers = self._receivers[token]
        receivers.remove(receiver)
        if not receivers:
            del self._receivers[token]

    async def _committed(self, committed: Committed) -> None:
        outcome = committed.outcome
        self.recent.append(
            RecentCommit(committed.fqrn, committed.lease_path, outcome.final_revision, outcome.tag_name, self._clock())
        )
        self.waiting.wake()

    async def _head_of(self, fqrn: str) -> Head | None:
        if self._head is None:
            return None
        try:
            return await asyncio.to_thread(self._head, fqrn)
        except Exception:
            # the lease is granted, and publishers do without
            log.exception("cannot read the head of %s", fqrn)
            return None

    def _open_store(self, fqrn: str) -> ObjectStore:
        try:
            return self._stores(fqrn)
        except (OSError, ValueError) as error:
            log.exception("cannot open the storage of %s", fqrn)
            raise StoreFailure(f"the storage of {fqrn} is not available") from error

    def _check_owner(self, lease: Lease, key: Key) -> None:
        """A lease is its key's alone, as long as that key may still have it, and every administrator's.

        Divergence: in the reference any key may commit, fill or cancel any lease whose token it knows.
        """
        if key.admin:
            return
        if key.id != lease.key_id:
            raise KeyNotAllowed
        self.access.config.check(key.id, lease.path)

    def _shutdown(self) -> None:
        self.garbage.close()
        self._committer.close()
        self._uploads.shutdown()
        self._changes.shutdown()
        self._durability.close()
        self._leases.close()


def _checked(token: str) -> str:
    """The token, if it could be one."""
    if len(token) > MAX_TOKEN or not token.isascii():
        raise InvalidLease
    return token


def _read_key(path: str, missing: type[GatewayError]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_KEY_FILE)
    except OSError as error:
        raise missing from error
