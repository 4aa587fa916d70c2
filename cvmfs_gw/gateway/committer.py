"""Commits, from the request to the recorded outcome.

::

    outcome recorded?  ──yes──▶ the same answer again
    commit running?    ──yes──▶ join it, if the hashes are the same
    lease usable?      ──no───▶ invalid lease
    begin (recorded) ─▶ the repository's turn ─▶ engine ─┬─▶ done: outcome recorded, lease ended, listeners called
                                                         └─▶ failed: the lease is as it was

A commit is not tied to the connection of its request: it continues if the publisher disconnects.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cvmfs_gw.engine.commit_api import CommitEngine, CommitOutcome, CommitRequest, UploadedObjects
from cvmfs_gw.engine.errors import EngineError
from cvmfs_gw.gateway.access import Access
from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.gateway.changes import Changes
from cvmfs_gw.gateway.commits import CommitQueue
from cvmfs_gw.gateway.errors import CommitFailed, CommitInProgress, KeyNotAllowed
from cvmfs_gw.gateway.leases import BegunCommit, LeaseBook
from cvmfs_gw.gateway.metrics import Metrics
from cvmfs_objstore.hashes import ContentHash

log = logging.getLogger(__name__)

RECENT_COMMITS: Final = 20
"""The number of recent commits kept for display."""


@dataclass(frozen=True, slots=True)
class CommitBody:
    """A publisher's commit request; see :class:`CommitRequest` for the meaning."""

    old_root: ContentHash
    new_root: ContentHash
    tag_name: str = ""
    tag_description: str = ""
    tag_channel: int = 0
    auto_tag_threshold: int = 0
    delete_tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit that was just published, for listeners."""

    fqrn: str
    lease_path: str
    outcome: CommitOutcome


Listener = Callable[[Committed], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RecentCommit:
    """A commit that this process has published, and when, in milliseconds since the epoch."""

    fqrn: str
    path: str
    revision: int
    tag: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class _Running:
    """A running commit, its request, and the owner of its lease."""

    body: CommitBody
    key_id: str
    task: asyncio.Task[CommitOutcome]


class Committer:
    """Runs commits. To be used from one event loop only.

    *clock* tells milliseconds since the epoch, *uploaded* what the packs of a lease have brought. *moved* is told that
    a repository has a new head, before anybody can be granted the path.
    """

    def __init__(
        self,
        engine: CommitEngine,
        leases: LeaseBook,
        changes: Changes,
        access: Access,
        clock: Callable[[], int],
        metrics: Metrics | None = None,
        uploaded: Callable[[str], UploadedObjects] = lambda token: UploadedObjects(),
        moved: Callable[[str], None] = lambda fqrn: None,
    ) -> None:
        self._uploaded = uploaded
        self._moved = moved
        self._metrics = metrics or Metrics()
        self.on_committed: list[Listener] = []
        """Called after each commit, one after the other; exceptions are logged."""
        self.recent: deque[RecentCommit] = deque(maxlen=RECENT_COMMITS)
        """The recent commits of this process, oldest first."""
        self._engine = engine
        self._leases = leases
        self._changes = changes
        self._access = access
        self._clock = clock
        self._queue = CommitQueue()
        self._running: dict[str, _Running] = {}
        self._announcing: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """The number of commits running or waiting."""
        return len(self._running)

    def busy(self, fqrn: str) -> bool:
        """Whether a commit to the repository is running or waiting."""
        return self._queue.busy(fqrn)

    async def idle(self, fqrn: str) -> None:
        """Wait until every commit to the repository that is running or waiting now has ended."""
        await self._queue.idle(fqrn)

    async def finish(self) -> None:
        """Wait until all commits that have begun are finished."""
        await asyncio.gather(*(running.task for running in self._running.values()), return_exceptions=True)
        await asyncio.gather(*self._announcing, return_exceptions=True)

    def close(self) -> None:
        """End the threads."""
        self._queue.close()

    async def commit(self, token: str, body: CommitBody, key: Key) -> CommitOutcome:
        """Publish what was uploaded under a lease; raises :exc:`GatewayError` and :exc:`EngineError`.

        The same token and hashes always get the same answer, also after a restart.
        """
        running = self._running.get(token)
        if running is None:
            recorded = await self._changes.look(self._leases.recorded, token, body.old_root, body.new_root)
            if recorded is not None and recorded.outcome is not None:
                _check_same_key(recorded.key_id, key)
                return recorded.outcome
            running = self._running.get(token)  # somebody may have been quicker
        if running is None:
            lease = self._leases.get(token, self._clock())
            self._access.check_owner(key, lease.key_id, lease.path)
            task = asyncio.create_task(self._run(token, body))
            running = self._running[token] = _Running(body, lease.key_id, task)
            task.add_done_callback(lambda task: self._ended(token, task))
        elif (running.body.old_root, running.body.new_root) != (body.old_root, body.new_root):
            raise CommitInProgress
        else:
            _check_same_key(running.key_id, key)
        return await asyncio.shield(running.task)

    async def _run(self, token: str, body: CommitBody) -> CommitOutcome:
        old, new = body.old_root, body.new_root
        begun = await self._changes(self._leases.begin_commit, token, old, new, self._clock())
        path = begun.lease.path
        request = _request(begun, body, self._uploaded(token))
        try:
            outcome = await self._queue.run(path.fqrn, self._timed(request))
        except EngineError as error:
            self._metrics.add("commits_total", repository=path.fqrn, outcome=error.reason)
            log.warning("commit to %s refused: %s: %s", path, error.reason, error)
            await self._changes(self._leases.fail_commit, token, old, new, self._clock())
            raise
        except Exception as error:
            self._metrics.add("commits_total", repository=path.fqrn, outcome="failed")
            log.exception("commit to %s failed", path)
            await self._changes(self._leases.fail_commit, token, old, new, self._clock())
            raise CommitFailed from error
        self._moved(path.fqrn)
        try:
            await self._changes(self._leases.finish_commit, token, old, new, outcome, self._clock())
        except Exception:
            # It is published, and the publisher must hear so. Only asking again will not find it.
            log.exception("cannot record the commit to %s, revision %d", path, outcome.final_revision)
        self._metrics.add("commits_total", repository=path.fqrn, outcome="ok")
        log.info("committed to %s: revision %d", path, outcome.final_revision)
        self.announce(Committed(path.fqrn, path.path, outcome))
        return outcome

    def announce(self, committed: Committed) -> None:
        """Call the listeners for a commit, also for one that this server has made itself."""
        fqrn, path, outcome = committed.fqrn, committed.lease_path, committed.outcome
        self._moved(fqrn)
        self.recent.append(RecentCommit(fqrn, path, outcome.final_revision, outcome.tag_name, self._clock()))
        announcing = asyncio.create_task(self._announce(committed))
        self._announcing.add(announcing)
        announcing.add_done_callback(self._announcing.discard)

    def _timed(self, request: CommitRequest) -> Callable[[], CommitOutcome]:
        """The commit, for a thread; measures from now on how long it waits for its turn and how long it takes."""
        asked = time.monotonic()

        def commit() -> CommitOutcome:
            begun = time.monotonic()
            self._metrics.observe("commit_seconds", begun - asked, phase="queue")
            try:
                outcome = self._engine.commit(request)
            finally:
                self._metrics.observe("commit_seconds", time.monotonic() - begun, phase="engine")
            for phase, seconds in outcome.phases.items():
                self._metrics.observe("commit_seconds", seconds, phase=phase)
            return outcome

        return commit

    def _ended(self, token: str, task: asyncio.Task[CommitOutcome]) -> None:
        del self._running[token]
        # looked at here, as the publisher may be gone
        if not task.cancelled():
            task.exception()

    async def _announce(self, committed: Committed) -> None:
        for listener in self.on_committed:
            try:
                await listener(committed)
            except Exception:
                log.exception("cannot announce revision %d", committed.outcome.final_revision)


def _check_same_key(key_id: str, key: Key) -> None:
    if key.id != key_id and not key.admin:
        raise KeyNotAllowed


def _request(begun: BegunCommit, body: CommitBody, uploaded: UploadedObjects) -> CommitRequest:
    lease = begun.lease
    return CommitRequest(
        fqrn=lease.path.fqrn,
        lease_path=lease.path.path,
        old_root=body.old_root,
        new_root=body.new_root,
        tag_name=body.tag_name,
        tag_description=body.tag_description,
        tag_channel=body.tag_channel,
        auto_tag_threshold=body.auto_tag_threshold,
        delete_tags=body.delete_tags,
        create_ancestors=lease.protocol >= 4,
        started_ms=lease.granted_ms,
        repeated=begun.repeated,
        uploads=begun.uploads,
        uploaded=uploaded,
    )
