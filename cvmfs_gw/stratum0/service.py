"""The upload API without HTTP: what its routes call, and the bridge between the event loop and threads.

::

    body ──▶ intake ──▶ job ──▶ committer ──▶ notification of subscribers
                         ▲
    upkeep ── expiry ────┘      whitelists

A body is received before its commit is requested, so however long that takes, nobody waits for it. A submitted job is
committed even if its client has disconnected; when the request is repeated, there is nothing left to change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, TypeVar

from cvmfs_gw.care.work import WorkMark
from cvmfs_gw.engine.commit import Engine
from cvmfs_gw.engine.commit_api import CommitOutcome
from cvmfs_gw.engine.errors import EngineError, StorageError
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.gateway.committer import Committed
from cvmfs_gw.gateway.errors import ConfigError, PathBusy
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.leases import MIN_REMAINING_MS
from cvmfs_gw.gateway.service import GatewayService
from cvmfs_gw.stratum0.admission import Admission
from cvmfs_gw.stratum0.clock import SteadyClock
from cvmfs_gw.stratum0.committer import Done, GroupCommitter
from cvmfs_gw.stratum0.conditions import ALWAYS, Condition
from cvmfs_gw.stratum0.content import SMALL, Upload, store_archive, store_file
from cvmfs_gw.stratum0.errors import (
    InvalidRequest,
    NotCommitted,
    PathLeased,
    TooLarge,
    TryAgain,
    UploadError,
)
from cvmfs_gw.stratum0.expiry import ExpiryIndex
from cvmfs_gw.stratum0.intake import Body, BodyPipe, SmallBody, take_in, take_small
from cvmfs_gw.stratum0.jobs import Delete, Expire, Job, PutFile, SetExpiry
from cvmfs_gw.stratum0.partial import PartialUploads
from cvmfs_gw.stratum0.reading import File, Listing, look, open_file
from cvmfs_gw.stratum0.trees import PutTree
from cvmfs_gw.stratum0.upkeep import Upkeep
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.manifest import Manifest

log = logging.getLogger(__name__)

MAX_UPLOADS: Final = 1000
"""The maximum number of bodies received at once; others are refused with 503. Small ones are held in memory."""
MAX_LARGE: Final = 32
"""The maximum number of large ones among these. Each has a thread, and a few chunks in memory."""
SHARE: Final = 0.75
"""The part of either that one token or key may have, so that slow uploads leave room for others."""
MARK_S: Final = 20.0
"""The interval at which collectors of other processes are told of uploads in progress, in seconds. They spare what is
up to two minutes old in any case."""
WATCH_S: Final = 5.0
"""The interval at which ``uploads.json`` is checked for changes, in seconds."""

T = TypeVar("T")


class UploadService:
    """All methods belong to one event loop. *settings_file* is ``uploads.json``."""

    def __init__(self, gateway: GatewayService, engine: Engine, settings_file: str, clock: SteadyClock) -> None:
        """Raises :exc:`ConfigError`."""
        self._gateway, self._engine, self.clock = gateway, engine, clock
        self.admission = Admission(settings_file, gateway.access, gateway.repositories.enabled, clock)
        self._began: dict[int, tuple[str, float]] = {}
        self._large = 0
        self._of_one: Counter[tuple[str, bool]] = Counter()
        self._marks: dict[str, WorkMark] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bodies = ThreadPoolExecutor(MAX_LARGE, "gw-body")
        self._readers = ThreadPoolExecutor(8, "gw-read")
        self._indexes: dict[str, ExpiryIndex] = {}
        self._partial: dict[str, PartialUploads] = {}
        self._committer = GroupCommitter(engine.repository, self._check, self._published, time.time)
        self._tasks: list[asyncio.Task[None]] = []
        gateway.garbage.others = self.oldest_work
        gateway.repositories.commits.append(self._committer)
        self.upkeep = Upkeep(self)

    async def start(self, *, upkeep: bool = True) -> None:
        """Start watching the settings and, with *upkeep*, expiry and the renewal of whitelists."""
        self._loop = asyncio.get_running_loop()
        background = (self._watch_settings(), self._keep_marks())
        self._tasks = [*map(asyncio.create_task, background), *(self.upkeep.start() if upkeep else ())]

    async def close(self) -> None:
        """Commit what was received, and end the threads."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in (self._bodies, self._readers, self._committer):
            await asyncio.to_thread(pool.shutdown if isinstance(pool, ThreadPoolExecutor) else pool.close)
        await asyncio.to_thread(self.mark_work)
        await asyncio.to_thread(self.clock.save)

    async def _keep_marks(self) -> None:
        while True:
            await asyncio.sleep(MARK_S)
            await asyncio.to_thread(self.mark_work)

    def mark_work(self) -> None:
        """Tell collectors of other processes since when uploads to each repository are under way."""
        for fqrn in {name for name, _ in list(self._began.values())}.union(self._marks):
            try:
                if fqrn not in self._marks:
                    self._marks[fqrn] = WorkMark(self.repository(fqrn).paths, fqrn)
                self._marks[fqrn].set(self.oldest_work(fqrn))
            except (EngineError, OSError) as error:
                log.error("%s: a collector may take what uploads have stored: %s", fqrn, error)

    async def reload(self) -> None:
        """Reload the settings; if that raises :exc:`ConfigError`, nothing has changed."""
        await asyncio.to_thread(self.admission.reload)
        self.upkeep.wake()

    async def _watch_settings(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                if await asyncio.to_thread(self.admission.changed):
                    await self.reload()
                    log.info("the settings of uploads have changed and were reloaded")
            except ConfigError as error:
                log.error("the settings of uploads are not reloaded: %s", error)
            except Exception:
                log.exception("cannot check the settings of uploads for changes")

    # --- changing ------------------------------------------------------------------------------------------------

    async def put(self, place: LeasePath, chunks: AsyncIterable[bytes | memoryview], wanted: Upload) -> Done:
        """Store a body and make it the file at *place*, or unpack it there; raises :exc:`UploadError`."""
        fqrn, path = place.fqrn, place.path
        _check_upload(place, wanted)
        end = self.admission.end(fqrn, wanted.ttl_s)
        if wanted.wait_s <= 0:
            self._check_leases(fqrn, path)  # at once, not after a long body
        limits = self.admission.settings.repositories[fqrn]
        if (wanted.length or 0) > limits.max_bytes:
            raise TooLarge(f"more than {limits.max_bytes} bytes")
        small = wanted.length is not None and wanted.length <= SMALL
        with self._working(fqrn, wanted.who, small=small):
            repository = await self._in_thread(self.repository, fqrn)
            others = max(self._large - 1, 0)

            def read(body: Body) -> Job:
                # mtime is taken from the clock of times to live, so that the file's age is right
                if wanted.unpack is not None:
                    gathered = store_archive(body, wanted.unpack, repository, limits, others)
                    return PutTree(path, gathered, int(self.clock()), end, wanted.overwrite)
                content = store_file(body, wanted.length, repository, others)
                return PutFile(path, content, int(self.clock()), end, wanted.mode, wanted.overwrite, wanted.condition)

            if small:
                data = await take_small(chunks, limits.max_bytes)
                self._gateway.metrics.add("upload_bytes_total", len(data))
                job = await self._translated(self._in_thread(lambda: read(SmallBody(data, wanted.checksum))))
            else:
                pipe = BodyPipe(limits.max_bytes, wanted.checksum)
                try:
                    job = await self._translated(take_in(chunks, pipe, read, self._bodies))
                finally:
                    self._gateway.metrics.add("upload_bytes_total", pipe.size)
            return await self.commit(fqrn, job, wait_s=wanted.wait_s)

    def partial(self, fqrn: str) -> PartialUploads:
        """The incomplete uploads to a repository."""
        if fqrn not in self._partial:
            folder = os.path.join(self._engine.paths.repository_spool(fqrn), "partial")
            self._partial[fqrn] = PartialUploads(folder, self._readers)
        return self._partial[fqrn]

    async def begin(
        self, place: LeasePath, chunks: AsyncIterator[bytes | memoryview], wanted: Upload
    ) -> tuple[str, int]:
        """Begin an upload in several requests, with its first part; returns its id, and how many bytes have arrived.

        Raises as :meth:`append` does; there is no such upload then.
        """
        _check_upload(place, wanted)
        partial = self.partial(place.fqrn)
        upload = await self._translated(partial.begin(place.path, replace(wanted, checksum="", length=None)))
        try:
            return upload, await self.append(place.fqrn, upload, 0, chunks, wanted.checksum)
        except BaseException:
            await partial.remove(upload)
            raise

    async def append(
        self, fqrn: str, upload: str, offset: int, chunks: AsyncIterator[bytes | memoryview], checksum: str = ""
    ) -> int:
        """Add a part to an upload; returns how many bytes have arrived. Raises as :meth:`PartialUploads.append`."""
        most = self.admission.settings.repositories[fqrn].max_bytes
        return await self._translated(self.partial(fqrn).append(upload, offset, chunks, most, checksum))

    async def complete(self, place: LeasePath, upload: str, length: int, who: str) -> Done:
        """Put what has arrived, *length* bytes, and end the upload if that succeeds; raises :exc:`UploadError`.

        *who* sends it; see :class:`~cvmfs_gw.stratum0.authorization.Grant`.
        """
        partial = self.partial(place.fqrn)
        wanted = replace(partial.find(upload).wanted, length=length, who=who)
        done = await self.put(place, partial.read(upload, length), wanted)
        await self._translated(partial.remove(upload))
        return done

    async def delete(
        self, place: LeasePath, *, recursive: bool = False, condition: Condition = ALWAYS, wait_s: float = 0.0
    ) -> Done:
        """Remove what is at *place*; raises :exc:`UploadError`."""
        return await self.commit(place.fqrn, Delete(place.path, recursive, condition), wait_s=wait_s)

    async def set_expiry(
        self, place: LeasePath, ttl_s: int | None, *, recursive: bool = False, wait_s: float = 0.0
    ) -> Done:
        """Restart the time to live of what is at *place*; raises :exc:`UploadError`."""
        end = self.admission.end(place.fqrn, ttl_s)
        return await self.commit(place.fqrn, SetExpiry(place.path, end, recursive), wait_s=wait_s)

    async def expire(self, fqrn: str) -> int:
        """Remove all expired entries that no publisher's lease covers; returns their number."""
        removed = 0
        while True:
            job = Expire(self.index(fqrn), self.clock(), lambda path: self._leased(fqrn, path) is not None)
            done = await self.commit(fqrn, job, exclusive=False)
            removed += done.plan.entries
            self._gateway.metrics.add("expired_entries_total", done.plan.entries, repository=fqrn)
            if not (done.plan.entries and job.overflow[-1]):
                return removed

    async def commit(self, fqrn: str, job: Job, *, exclusive: bool = True, wait_s: float = 0.0) -> Done:
        """Commit a job, together with others; raises :exc:`UploadError`.

        Waits up to *wait_s* seconds for conflicting leases, in the same queue as publishers.
        """

        async def attempt() -> Done:
            return await asyncio.wrap_future(self._committer.submit(fqrn, job, exclusive=exclusive))

        async def attempt_in_line() -> Done:
            try:
                return await attempt()
            except PathLeased as error:
                raise PathBusy(error.remaining_ms) from None

        outcome = "failed"
        try:
            if wait_s <= 0:
                done = await attempt()
            else:
                line = self._gateway.leases.waiting
                done = await line.acquire(LeasePath(fqrn, job.path), attempt_in_line, wait_s)
            outcome = "ok" if done.published else "present"
        except PathBusy as error:
            outcome = "path_busy"
            raise PathLeased(error.remaining_ms) from None
        except UploadError as error:
            outcome = error.reason or error.status
            raise
        finally:
            self._gateway.metrics.add("uploads_total", repository=fqrn, outcome=outcome)
        if done.published and done.plan.expires is not None:
            self.upkeep.due(fqrn, done.plan.expires)
        return done

    def notify(self, fqrn: str, head: Manifest) -> None:
        """Notify subscribers of the head."""
        self._gateway.commits.announce(Committed(fqrn, "", CommitOutcome(head.revision, head.root_hash)))

    # --- reading -------------------------------------------------------------------------------------------------

    async def look(self, place: LeasePath, *, recursive: bool, after: str, limit: int) -> Listing:
        """What is at *place*; raises :exc:`UploadError`."""

        def work() -> Listing:
            return look(self.repository(place.fqrn), place.path, recursive=recursive, after=after, limit=limit)

        return await self._translated(self._in_thread(work))

    async def open(self, place: LeasePath) -> File:
        """The file at *place*; raises :exc:`UploadError`."""
        return await self._translated(self._in_thread(lambda: open_file(self.repository(place.fqrn), place.path)))

    async def next_piece(self, pieces: Iterator[bytes]) -> bytes:
        """The next piece of a file, empty at its end; raises :exc:`ObjectStoreError`."""
        return await self._in_thread(next, pieces, b"")

    async def head(self, fqrn: str) -> Manifest:
        """The published manifest; raises :exc:`UploadError`."""
        return await self._translated(self._in_thread(lambda: self.repository(fqrn).head()))

    # --- for upkeep, and those who watch -------------------------------------------------------------------------

    def repository(self, fqrn: str) -> Repository:
        """The repository; raises :exc:`EngineError`. Blocks on disk I/O."""
        return self._engine.repository(fqrn)

    def index(self, fqrn: str) -> ExpiryIndex:
        """The index of a repository's expired entries."""
        if fqrn not in self._indexes:
            self._indexes[fqrn] = ExpiryIndex(self.repository(fqrn).catalogs)
        return self._indexes[fqrn]

    @property
    def running(self) -> int:
        """The number of bodies being received or waiting for their commit."""
        return len(self._began)

    @property
    def waiting(self) -> int:
        """The number of jobs waiting for a commit."""
        return self._committer.waiting

    def oldest_work(self, fqrn: str) -> float | None:
        """The start of the oldest upload to the repository that is not committed yet, in seconds since the epoch."""
        return min((began for name, began in list(self._began.values()) if name == fqrn), default=None)

    # --- inside --------------------------------------------------------------------------------------------------

    @contextmanager
    def _working(self, fqrn: str, who: str, *, small: bool) -> Iterator[None]:
        if len(self._began) >= MAX_UPLOADS or (self._large >= MAX_LARGE and not small):
            raise TryAgain("too many uploads at the same time")
        kind = who, small
        if self._of_one[kind] >= max(SHARE * (MAX_UPLOADS if small else MAX_LARGE), 1):
            raise TryAgain(f"too many uploads at the same time by {who}")
        self._of_one[kind] += 1
        mark = object()
        self._began[id(mark)] = (fqrn, time.time())
        self._large += not small
        try:
            yield
        finally:
            self._large -= not small
            del self._began[id(mark)]
            self._of_one[kind] -= 1
            if not self._of_one[kind]:
                del self._of_one[kind]

    def _leased(self, fqrn: str, path: str) -> int | None:
        """The remaining life of a conflicting lease, in milliseconds; None if there is none. From any thread."""
        place, now = LeasePath(fqrn, path), self._gateway.now_ms()
        rivals = [lease.expires_ms - now for lease in self._gateway.leases.all() if lease.path.overlaps(place)]
        return max(max(rivals), MIN_REMAINING_MS) if rivals else None

    def _check_leases(self, fqrn: str, path: str) -> None:
        if (remaining := self._leased(fqrn, path)) is not None:
            raise PathLeased(remaining)

    def _check(self, fqrn: str, path: str, exclusive: bool) -> None:
        """Check whether a job may be committed now, at the time of its commit; raises :exc:`UploadError`."""
        self.admission.check_enabled(fqrn)
        if exclusive:
            self._check_leases(fqrn, path)

    def _published(self, fqrn: str, head: Manifest, together: int) -> None:
        self._gateway.metrics.add("upload_commits_total", repository=fqrn)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.notify, fqrn, head)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, *arguments)

    async def _translated(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except EngineError as error:
            raise NotCommitted(error) from error
        except (ObjectStoreError, OSError) as error:
            if isinstance(error, ConnectionError):
                raise
            raise NotCommitted(StorageError(str(error))) from error


def _check_upload(place: LeasePath, wanted: Upload) -> None:
    if not place.path and not wanted.unpack:
        raise InvalidRequest("a file needs a path")
    if wanted.unpack and wanted.condition:
        raise InvalidRequest("a condition is possible only for a single file")
