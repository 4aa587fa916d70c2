"""Group commit: jobs that arrive while a commit is running are committed together after it.

::

    upload ─┐
    upload ─┼─▶ waiting ──▶ one transaction, one publish ──▶ an answer for each
    upload ─┘      ▲                    │
                   └── meanwhile: more ─┘

A commit takes about as long for one file as for a hundred, so there is no artificial delay, and nobody waits long. If a
job is refused, the others do not fail: planning changes nothing, and if a commit as a whole cannot be published because
of its content, it is split until the job at fault is alone.

Leases are checked when the commit begins. A publisher that acquires one in the milliseconds until it ends loses
nothing: its own commit is merged with the head of that time.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Final

from cvmfs_gw.engine.edit import edit
from cvmfs_gw.engine.errors import EngineError, MergeError
from cvmfs_gw.engine.repository import Repository
from cvmfs_gw.engine.rules import Rules
from cvmfs_gw.engine.statistics import PublishCounts
from cvmfs_gw.engine.transaction import Transaction
from cvmfs_gw.engine.tree import CatalogTree
from cvmfs_gw.stratum0.errors import NotCommitted, TryAgain, UploadError
from cvmfs_gw.stratum0.jobs import Job, Plan
from cvmfs_objstore.errors import ObjectStoreError
from cvmfs_objstore.formats.manifest import Manifest

log = logging.getLogger(__name__)

MAX_TOGETHER: Final = 500
"""The maximum number of jobs in one commit."""
MAX_WAITING: Final = 10_000
"""The maximum number of jobs that wait for a repository's next commit."""
MAX_PARALLEL: Final = 8
"""The maximum number of repositories that are committed to at the same time."""

Check = Callable[[str, bool], None]
"""Raises :exc:`UploadError` if the path may not be changed now. The second argument says whether publishers' leases on
it, or above or below it, exclude the change."""


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of a job: the head that includes it, and its plan."""

    head: Manifest
    plan: Plan
    published: bool
    """Whether it made a new revision; otherwise there was nothing to change."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A waiting job and the future for its answer. *exclusive*: publishers' leases on its path exclude it."""

    job: Job
    answer: Future[Done]
    exclusive: bool = True


class GroupCommitter:
    """Commits jobs in threads, those of one repository together. Thread-safe.

    *repositories* opens a repository by name; *check* (see :data:`Check`) is called for each job with the repository's
    name, right before it is committed; *published* is called with each new head, in the thread that published it.
    """

    def __init__(
        self,
        repositories: Callable[[str], Repository],
        check: Callable[[str, str, bool], None],
        published: Callable[[str, Manifest, int], None],
        clock: Callable[[], float],
    ) -> None:
        self._repositories, self._check, self._published, self._clock = repositories, check, published, clock
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: dict[str, deque[Ticket]] = {}
        self._busy: set[str] = set()
        self._pool = ThreadPoolExecutor(MAX_PARALLEL, "gw-group")

    def submit(self, fqrn: str, job: Job, *, exclusive: bool = True) -> Future[Done]:
        """Commit *job* as soon as possible; the future raises :exc:`UploadError`."""
        ticket = Ticket(job, Future(), exclusive)
        with self._lock:
            line = self._waiting.setdefault(fqrn, deque())
            if len(line) >= MAX_WAITING:
                raise TryAgain("too many uploads wait for their commit")
            line.append(ticket)
            if fqrn not in self._busy:
                self._busy.add(fqrn)
                self._pool.submit(self._work, fqrn)
        return ticket.answer

    @property
    def waiting(self) -> int:
        """The number of waiting jobs, of all repositories."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def busy(self, fqrn: str) -> bool:
        """Whether a commit to the repository is running or waiting."""
        with self._lock:
            return fqrn in self._busy

    async def idle(self, fqrn: str) -> None:
        """Wait until no commit is running or waiting."""

        def wait() -> None:
            with self._idle:
                self._idle.wait_for(lambda: fqrn not in self._busy)

        await asyncio.to_thread(wait)

    def close(self) -> None:
        """Commit all waiting jobs, and end the threads."""
        self._pool.shutdown()

    def _work(self, fqrn: str) -> None:
        while True:
            with self._lock:
                line = self._waiting[fqrn]
                together = [line.popleft() for _ in range(min(len(line), MAX_TOGETHER))]
                if not together:
                    self._busy.discard(fqrn)
                    self._idle.notify_all()
                    return
            # a job whose asker has gone is committed like any other; only its answer is heard by nobody
            together = [ticket for ticket in together if ticket.answer.set_running_or_notify_cancel()]
            try:
                self._commit(fqrn, together)
            except BaseException as error:
                log.exception("%s: a group of uploads failed", fqrn)
                for ticket in together:
                    if not ticket.answer.done():
                        ticket.answer.set_exception(NotCommitted(EngineError(type(error).__name__)))

    def _commit(self, fqrn: str, tickets: Sequence[Ticket]) -> None:
        try:
            repository = self._repositories(fqrn)
            group = _Group(tickets, lambda path, exclusive: self._check(fqrn, path, exclusive))
            head = edit(repository, group.edit, self._clock(), clock=self._clock)
        except _Unplanned as unplanned:
            # the tree is not to be trusted any more; the others are done anew, without the one that broke it
            unplanned.ticket.answer.set_exception(_translated(unplanned.error))
            self._commit(fqrn, [ticket for ticket in tickets if ticket is not unplanned.ticket])
            return
        except EngineError as error:
            if isinstance(error, MergeError) and len(tickets) > 1:
                half = len(tickets) // 2
                self._commit(fqrn, tickets[:half])
                self._commit(fqrn, tickets[half:])
                return
            log.warning("%s: not committed: %s: %s", fqrn, error.reason, error)
            for ticket in tickets:
                ticket.answer.set_exception(_translated(error))
            return
        if group.changed:
            log.info("%s: revision %d published, %d uploads together", fqrn, head.revision, group.changed)
            self._published(fqrn, head, group.changed)
        for ticket in tickets:
            outcome = group.outcomes[id(ticket)]
            if isinstance(outcome, Plan):
                ticket.answer.set_result(Done(head, outcome, bool(outcome.changes)))
            else:
                ticket.answer.set_exception(outcome)


_EVERYBODYS: Final = (OSError, ObjectStoreError, sqlite3.Error)
"""An error of the repository, not of a single job."""


class _Unplanned(Exception):
    """The transaction failed to apply changes that had been planned."""

    def __init__(self, ticket: Ticket, error: EngineError) -> None:
        super().__init__(str(error))
        self.ticket, self.error = ticket, error


class _Group:
    """Jobs of one commit. Use once."""

    def __init__(self, tickets: Sequence[Ticket], check: Check) -> None:
        self._tickets, self._check = tickets, check
        self.outcomes: dict[int, Plan | UploadError] = {}
        self.changed = 0
        """The number of jobs that change something."""

    def edit(self, tree: CatalogTree, rules: Rules) -> PublishCounts | None:
        """See :data:`cvmfs_gw.engine.edit.Editor`."""
        counts = PublishCounts()
        for ticket in self._tickets:
            try:
                self._check(ticket.job.path, ticket.exclusive)
                plan = ticket.job.plan(tree, rules)
            except UploadError as error:
                self.outcomes[id(ticket)] = error
                continue
            except EngineError as error:
                self.outcomes[id(ticket)] = _translated(error)
                continue
            except _EVERYBODYS:
                raise
            except Exception as error:
                raise _unexpected(ticket, error) from error
            self.outcomes[id(ticket)] = plan
            if not plan.changes:
                continue
            transaction = Transaction(tree)
            try:
                transaction.apply(plan.changes)
            except EngineError as error:
                raise _Unplanned(ticket, error) from error
            except _EVERYBODYS:
                raise
            except Exception as error:
                raise _unexpected(ticket, error) from error
            self.changed += 1
            for column in fields(counts):
                setattr(counts, column.name, getattr(counts, column.name) + getattr(transaction.counts, column.name))
        return counts if self.changed else None


def _unexpected(ticket: Ticket, error: Exception) -> _Unplanned:
    """A bug that a job has triggered, which must not fail the others."""
    log.exception("an upload at %s failed", ticket.job.path or "/")
    return _Unplanned(ticket, EngineError(type(error).__name__))


def _translated(error: EngineError) -> UploadError:
    return NotCommitted(error)
