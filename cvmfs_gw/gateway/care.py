"""Maintenance over the API: tags, rollback, signing, checks, and the growth of a repository.

Changes take the repository's lock in turn with commits and are announced like them. A check takes long, so it is a
background job whose progress clients poll.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from cvmfs_gw.care.check import CheckOptions, CheckReport, check_repository
from cvmfs_gw.care.check_objects import Progress
from cvmfs_gw.care.growth import Growth, GrowthPoint
from cvmfs_gw.care.resign import WhitelistState, resign_manifest, resign_whitelist, whitelist_state
from cvmfs_gw.engine.commit_api import CommitOutcome
from cvmfs_gw.engine.errors import Conflict, EngineError, StorageError
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.tags import Rollback, add_tag, find_root, list_tags, move_tag, remove_tags, rollback
from cvmfs_gw.gateway.committer import Committed, Committer
from cvmfs_gw.gateway.errors import NotAvailable, UnknownJob
from cvmfs_gw.gateway.garbage import CareEngine
from cvmfs_gw.gateway.repositories import Repositories
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.history import Tag
from cvmfs_objstore.formats.manifest import Manifest
from cvmfs_objstore.hashes import ContentHash

log = logging.getLogger(__name__)

MAX_JOBS: Final = 20
"""The number of checks that are kept: a new one replaces the oldest finished one."""
_THREADS: Final = 2
T = TypeVar("T")


@dataclass(slots=True)
class CheckJob:
    """A check that is running or has ended: its progress, and its report or error."""

    id: str
    fqrn: str
    options: CheckOptions
    began: float = field(default_factory=time.time)
    ended: float | None = None
    catalogs: int = 0
    folders: int = 0
    objects: int = 0
    report: CheckReport | None = None
    error: str = ""

    @property
    def state(self) -> str:
        return "running" if self.ended is None else "failed" if self.error else "done"


class Care:
    """To be used from one event loop only. Everything raises :exc:`GatewayError` and :exc:`EngineError`."""

    def __init__(self, engine: object, repositories: Repositories, commits: Committer) -> None:
        self._engine = engine if isinstance(engine, CareEngine) else None
        self._repositories, self._commits = repositories, commits
        self._growth = Growth()
        self._pool = ThreadPoolExecutor(_THREADS, "gw-care")
        self._checks = ThreadPoolExecutor(1, "gw-check")
        self._jobs: dict[str, CheckJob] = {}
        self._stop = threading.Event()

    def close(self) -> None:
        """Abort checks, and wait for everything else."""
        self._stop.set()
        self._checks.shutdown(cancel_futures=True)
        self._pool.shutdown()

    # -- tags and revisions

    async def tags(self, fqrn: str) -> list[Tag]:
        """All tags, newest revision first."""
        return await self._do(fqrn, list_tags)

    async def put_tag(self, fqrn: str, name: str, revision: str, description: str, *, move: bool) -> Tag:
        """Tag a revision (``""``: the head) or, with *move*, move an existing tag to it."""

        def work(repository: Repository) -> Tag:
            root = find_root(repository, revision)
            if move:
                return move_tag(repository, name, time.time(), root, description)
            return add_tag(repository, name, description, time.time(), root)

        return await self._do(fqrn, work)

    async def remove_tag(self, fqrn: str, name: str) -> Tag:
        """Remove a tag; returns it."""
        return (await self._do(fqrn, lambda repository: remove_tags(repository, [name], time.time())))[0]

    async def rollback(self, fqrn: str, tag: str) -> Rollback:
        """Roll back to a tag or, if it is ``""``, undo the last publish. Subscribers are notified."""
        done = await self._do(fqrn, lambda repository: rollback(repository, tag, time.time()))
        self._commits.announce(Committed(fqrn, "", CommitOutcome(done.head.revision, done.head.root_hash)))
        return done

    async def growth(self, fqrn: str) -> list[GrowthPoint]:
        """How the repository has grown over its tags."""
        return await self._do(fqrn, self._growth.of)

    # -- signatures

    async def whitelist(self, fqrn: str) -> WhitelistState:
        """The validity of the whitelist."""
        return await self._do(fqrn, whitelist_state)

    async def resign_whitelist(self, fqrn: str) -> WhitelistState:
        """Sign the whitelist again."""

        def work(repository: Repository) -> WhitelistState:
            resign_whitelist(repository, time.time())
            return whitelist_state(repository)

        return await self._do(fqrn, work)

    async def resign_manifest(self, fqrn: str) -> Manifest:
        """Sign the manifest again, with the key as it is now."""
        return await self._do(fqrn, lambda repository: resign_manifest(repository, time.time()))

    # -- checks

    async def begin_check(self, fqrn: str, options: CheckOptions) -> CheckJob:
        """Start a check of a repository, or join a running one with the same options."""
        engine = self._known(fqrn)
        for job in self._jobs.values():
            if (job.fqrn, job.options, job.state) == (fqrn, options, "running"):
                return job
        ended = [known for known, job in self._jobs.items() if job.state != "running"]
        if len(self._jobs) >= MAX_JOBS:
            if not ended:
                raise Conflict("too many checks are waiting")
            del self._jobs[ended[0]]
        job = CheckJob(secrets.token_hex(8), fqrn, options)
        self._jobs[job.id] = job
        asyncio.get_running_loop().run_in_executor(self._checks, self._check, engine, job)
        return job

    def check(self, fqrn: str, job_id: str) -> CheckJob:
        """The state of a check; raises :exc:`UnknownJob`."""
        job = self._jobs.get(job_id)
        if job is None or job.fqrn != fqrn:
            raise UnknownJob(f"no such check: {job_id}")
        return job

    def _check(self, engine: CareEngine, job: CheckJob) -> None:
        def on_catalog(path: str, ref: ContentHash) -> None:
            self._check_stop()
            job.catalogs += 1

        try:
            progress = _JobProgress(job, self._check_stop)
            job.report = check_repository(engine.repository(job.fqrn), job.options, time.time(), progress, on_catalog)
        except (EngineError, ObjectStoreError, OSError) as error:
            job.error = str(error)
        except Exception as error:
            log.exception("check of %s failed", job.fqrn)
            job.error = type(error).__name__
        job.ended = time.time()

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Conflict("the gateway is stopping")

    # -- inside

    def _known(self, fqrn: str) -> CareEngine:
        self._repositories.get(fqrn)
        if self._engine is None:
            raise NotAvailable("this server cannot do that")
        return self._engine

    async def _do(self, fqrn: str, work: Callable[[Repository], T]) -> T:
        engine = self._known(fqrn)

        def run() -> T:
            try:
                return work(engine.repository(fqrn))
            except (ObjectStoreError, OSError) as error:
                raise StorageError(f"{fqrn}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)


class _JobProgress(Progress):
    """Records in a job how many folders of the storage were checked."""

    def __init__(self, job: CheckJob, check_stop: Callable[[], None]) -> None:
        self._job, self._check_stop = job, check_stop
        self._lock = threading.Lock()

    def folder_done(self, objects: int, size: int) -> None:
        self._check_stop()
        with self._lock:
            self._job.folders += 1
            self._job.objects += objects
