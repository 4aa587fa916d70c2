"""Leases: who may change which path of a repository, and until when. :mod:`leasestate` has the life of one.

A lease whose time runs out while an upload or a commit of its own is running stays alive until that has ended. If it
then has to go on (more packs follow, the commit failed or was cut off), it gets :data:`GRACE_MS` more.

Everything is kept in memory and written through to the database before a call returns; it survives a power cut after
:meth:`LeaseBook.sync`. Reading (:meth:`LeaseBook.get`,
:meth:`LeaseBook.active`) touches only memory, so that it never waits for a disk.

Divergence: in the reference, a lease that expires during a commit or upload loses the work, a lease that lived through
a restart or a failed commit cannot be committed, and expired leases are found out at the next request only.
"""

from __future__ import annotations

import base64
import logging
import secrets
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from cvmfs_gw.engine.commit_api import CommitOutcome, UploadStatistics
from cvmfs_gw.gateway.errors import CommitInProgress, InvalidLease, InvalidLeasePath, PathBusy, TooManyLeases
from cvmfs_gw.gateway.leasedb import LeaseDatabase, LeaseRow, RecordedCommit
from cvmfs_gw.gateway.leaseindex import LeaseIndex
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.leasestate import ENDED, TRANSITIONS, Event, State
from cvmfs_gw.gateway.protocol import MAX_TOKEN
from cvmfs_objstore.hashes import ContentHash

log = logging.getLogger(__name__)

TOKEN_BYTES: Final = 32
MAX_LEASES: Final = 100_000
"""Leases that are open at the same time; each takes about a kilobyte of memory."""
GRACE_MS: Final = 600_000
"""How long a lease lives on, at most, after an upload or a failed commit that outlived it, in milliseconds."""
MIN_REMAINING_MS: Final = 1_000
"""What is said to remain of a lease that is past its time and still at work, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as granted. Times are in milliseconds since the epoch."""

    token: str
    path: LeasePath
    key_id: str
    expires_ms: int
    protocol: int = 2
    hostname: str = ""
    granted_ms: int = 0
    request: str = ""
    """What the publisher calls its request, so that it can be asked again; forgotten when the program ends."""


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease, its state, what its packs have brought, and how many are coming in right now."""

    lease: Lease
    state: State
    uploads: UploadStatistics
    running: int

    @property
    def committing(self) -> bool:
        return self.state is State.COMMITTING


@dataclass(frozen=True, slots=True)
class BegunCommit:
    """What a commit starts from. ``repeated``: an earlier attempt with the same hashes was cut off."""

    lease: Lease
    uploads: UploadStatistics
    repeated: bool


class _Entry:
    """A lease and what is going on with it."""

    __slots__ = ("lease", "running", "state", "uploads")

    def __init__(self, lease: Lease, uploads: UploadStatistics, state: State) -> None:
        self.lease = lease
        self.state = state
        self.running = 0  # uploads under way
        self.uploads = uploads

    def alive(self, now: int) -> bool:
        return self.state is State.COMMITTING or self.running > 0 or now < self.lease.expires_ms

    def extended(self, now: int, grace_ms: int) -> int:
        """When the lease expires if something of its own has ended just now."""
        expires = self.lease.expires_ms
        return expires if now < expires else now + grace_ms


def new_token() -> str:
    """32 random bytes in base32 with padding, as the reference's tokens look."""
    return base64.b32encode(secrets.token_bytes(TOKEN_BYTES)).decode()


class LeaseBook:
    """All leases of a gateway. Thread-safe; ``now`` is always in milliseconds since the epoch.

    Two locks: one lets a single change at a time through to the database, the other guards the memory for a few
    instructions. Only a change holds the first, so that whoever reads never waits for the disk.
    """

    def __init__(
        self,
        database: LeaseDatabase,
        *,
        now: int,
        grace_ms: int = GRACE_MS,
        tokens: Callable[[], str] = new_token,
    ) -> None:
        """Take over the leases in *database*. *now* is for those whose commit was cut off."""
        self._database = database
        self._grace_ms = grace_ms
        self._new_token = tokens
        self._changing = threading.Lock()
        self._memory = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._index = LeaseIndex()
        self._load(now)

    @classmethod
    def open(
        cls,
        path: str,
        *,
        now: int,
        grace_ms: int = GRACE_MS,
        key_ids: Collection[str] = (),
        fqrns: Collection[str] = (),
    ) -> LeaseBook:
        """The book in the database at *path*; see :class:`LeaseDatabase`."""
        database = LeaseDatabase(path, key_ids=key_ids, fqrns=fqrns)
        try:
            return cls(database, now=now, grace_ms=grace_ms)
        except BaseException:
            database.close()
            raise

    def sync(self) -> None:
        """Return when every change that was made so far would survive a power cut; raises ``OSError``."""
        self._database.sync()

    def close(self) -> None:
        with self._changing:
            self._database.close()

    # --- reading -----------------------------------------------------------------------------------------------

    def get(self, token: str, now: int | None = None) -> Lease:
        """The lease of *token*, which must be alive if *now* is given; raises :exc:`InvalidLease`."""
        with self._memory:
            return self._alive(token, now).lease

    def active(self, now: int) -> list[Lease]:
        """All leases that are alive."""
        with self._memory:
            return [entry.lease for entry in self._entries.values() if entry.alive(now)]

    def views(self, now: int) -> list[LeaseView]:
        """All leases that are alive, and what is going on with them."""
        with self._memory:
            alive = [entry for entry in self._entries.values() if entry.alive(now)]
            return [LeaseView(entry.lease, entry.state, entry.uploads, entry.running) for entry in alive]

    def state(self, token: str) -> State:
        """Where the lease is in its life; FREE for a token that is unknown."""
        with self._memory:
            entry = self._entries.get(token)
            return State.FREE if entry is None else entry.state

    # --- granting and ending -----------------------------------------------------------------------------------

    def acquire(
        self,
        path: LeasePath,
        key_id: str,
        *,
        now: int,
        lifetime_ms: int,
        protocol: int = 2,
        hostname: str = "",
        request: str = "",
    ) -> Lease:
        """Grant a lease; raises :exc:`PathBusy` if one that is alive overlaps the path, :exc:`TooManyLeases`."""
        with self._changing:
            with self._memory:
                rivals = [self._entries[token] for token in self._index.overlapping(path)]
                busy = [entry.lease.expires_ms - now for entry in rivals if entry.alive(now)]
                if busy:
                    raise PathBusy(max(*busy, MIN_REMAINING_MS))
                if len(self._entries) - len(rivals) >= MAX_LEASES:
                    raise TooManyLeases
                expired = [entry.lease.token for entry in rivals]
                for entry in rivals:
                    self._end(entry, Event.EXPIRE)
            lease = Lease(self._new_token(), path, key_id, now + lifetime_ms, protocol, hostname, now, request)
            self._database.grant(_row(lease), expired)
            with self._memory:
                self._admit(_Entry(lease, UploadStatistics(), TRANSITIONS[State.FREE, Event.GRANT]))
            return lease

    def grant_again(self, path: LeasePath, key_id: str, request: str, *, now: int, lifetime_ms: int) -> Lease | None:
        """A lease in place of the one that the very same *request* was granted, if nothing has been done with it.

        Its token was in a reply that did not arrive. None if there is no such lease.
        """
        with self._changing:
            with self._memory:
                for token in self._index.overlapping(path):
                    entry = self._entries[token]
                    old = entry.lease
                    is_same = (old.path, old.key_id, old.request) == (path, key_id, request)
                    if is_same and entry.state is State.LEASED and not entry.running and entry.alive(now):
                        break
                else:
                    return None
            lease = replace(old, token=self._new_token(), expires_ms=now + lifetime_ms, granted_ms=now)
            self._database.grant(_row(lease), [old.token])
            with self._memory:
                self._end(entry, Event.CANCEL)
                self._admit(_Entry(lease, UploadStatistics(), TRANSITIONS[State.FREE, Event.GRANT]))
            return lease

    def renew(self, token: str, *, now: int, lifetime_ms: int) -> Lease:
        """Let the lease end *lifetime_ms* from now; raises :exc:`InvalidLease`, :exc:`CommitInProgress`."""
        with self._changing:
            with self._memory:
                entry = self._usable(token, now)
                lease = replace(entry.lease, expires_ms=now + lifetime_ms)
            self._database.extend(token, lease.expires_ms)
            with self._memory:
                self._move(entry, Event.RENEW)
                entry.lease = lease
            return lease

    def cancel(self, token: str) -> Lease:
        """End the lease, also one whose time is up; raises :exc:`InvalidLease`, :exc:`CommitInProgress`."""
        with self._changing:
            with self._memory:
                entry = self._usable(token, None)
            self._database.remove([token])
            with self._memory:
                self._end(entry, Event.CANCEL)
            return entry.lease

    def cancel_within(self, path: LeasePath) -> list[Lease]:
        """End every lease at and below *path*; returns them.

        Raises :exc:`CommitInProgress` if some are being committed; the others are cancelled nevertheless.
        """
        with self._changing:
            with self._memory:
                found = [self._entries[token] for token in self._index.within(path)]
            ending = [entry for entry in found if entry.state is State.LEASED]
            self._database.remove([entry.lease.token for entry in ending])
            with self._memory:
                for entry in ending:
                    self._end(entry, Event.CANCEL)
        if len(ending) < len(found):
            raise CommitInProgress(f"{len(ending)} cancelled, {len(found) - len(ending)} being committed")
        return [entry.lease for entry in ending]

    def expire(self, now: int) -> list[Lease]:
        """End every lease whose time is up; returns them."""
        with self._changing:
            with self._memory:
                ending = [entry for entry in self._entries.values() if not entry.alive(now)]
                for entry in ending:
                    self._end(entry, Event.EXPIRE)
            if ending:
                self._database.remove([entry.lease.token for entry in ending])
        return [entry.lease for entry in ending]

    # --- uploads -----------------------------------------------------------------------------------------------

    def begin_upload(self, token: str, now: int) -> Lease:
        """Keep the lease alive while an object pack comes in; raises :exc:`InvalidLease`, :exc:`CommitInProgress`.

        Every call that returns is followed by one of :meth:`end_upload`.
        """
        with self._memory:
            entry = self._usable(token, now)
            entry.running += 1
            return entry.lease

    def end_upload(self, token: str, now: int, brought: UploadStatistics) -> None:
        """The pack is in, or was refused. Raises :exc:`InvalidLease` if the lease was cancelled meanwhile."""
        with self._changing:
            with self._memory:
                entry = self._entries.get(token)
                if entry is None:
                    raise InvalidLease
                total = entry.uploads + brought
                lease = replace(entry.lease, expires_ms=entry.extended(now, self._grace_ms))
            try:
                if total != entry.uploads or lease != entry.lease:
                    self._database.record_upload(token, total, lease.granted_ms, lease.expires_ms)
            finally:
                with self._memory:
                    entry.running -= 1
                    entry.uploads = total
                    entry.lease = lease

    # --- commits -----------------------------------------------------------------------------------------------

    def recorded(self, token: str, old_root: ContentHash, new_root: ContentHash) -> RecordedCommit | None:
        """What is known of a commit with this token and these hashes, now or from before a restart.

        Raises :exc:`InvalidLease` for what cannot be a token.
        """
        if len(token) > MAX_TOKEN or not token.isascii():
            raise InvalidLease
        with self._changing:
            return self._database.commit(token, old_root, new_root)

    def begin_commit(self, token: str, old_root: ContentHash, new_root: ContentHash, now: int) -> BegunCommit:
        """Take the lease for a commit; raises :exc:`InvalidLease`, :exc:`CommitInProgress`."""
        with self._changing:
            with self._memory:
                entry = self._usable(token, now)
            repeated = self._database.commit(token, old_root, new_root) is not None
            self._database.begin_commit(token, entry.lease.key_id, old_root, new_root, now)
            with self._memory:
                self._move(entry, Event.BEGIN_COMMIT)
                return BegunCommit(entry.lease, entry.uploads, repeated)

    def finish_commit(
        self, token: str, old_root: ContentHash, new_root: ContentHash, outcome: CommitOutcome, now: int
    ) -> None:
        """The commit is published: record the outcome and free the path, the latter even if the former fails."""
        with self._changing:
            entry = self._committing(token)
            try:
                self._database.finish_commit(token, old_root, new_root, outcome, now)
            finally:
                with self._memory:
                    self._end(entry, Event.SUCCEED)

    def fail_commit(self, token: str, old_root: ContentHash, new_root: ContentHash, now: int) -> None:
        """The commit came to nothing: the lease can be used again."""
        with self._changing:
            entry = self._committing(token)
            expires = entry.extended(now, self._grace_ms)
            try:
                self._database.fail_commit(token, old_root, new_root, expires)
            finally:
                with self._memory:
                    self._move(entry, Event.FAIL)
                    entry.lease = replace(entry.lease, expires_ms=expires)

    def forget_commits(self, before_ms: int) -> None:
        """Forget the outcomes of commits that began before *before_ms*."""
        with self._changing:
            self._database.forget_commits(before_ms)

    def probe(self) -> None:
        """Raises what the database does if it cannot be written."""
        with self._changing:
            self._database.probe()

    def record_repositories(self, enabled: Mapping[str, bool]) -> None:
        """Keep the reference's table of repositories up to date."""
        with self._changing:
            self._database.set_repositories(enabled)

    # --- inside ------------------------------------------------------------------------------------------------

    def _load(self, now: int) -> None:
        dropped: list[str] = []
        recovered: dict[str, int] = {}
        interrupted = self._database.interrupted()
        for row in self._database.leases():
            # What the reference grants on x//y, x/ or x/.. would break the repository when it is committed.
            try:
                path = LeasePath.parse(row.fqrn + row.path)
            except InvalidLeasePath as error:
                log.warning("dropping a lease on %r of %s: %s", row.path, row.fqrn, error)
                dropped.append(row.token)
                continue
            if self._index.overlapping(path):
                log.warning("dropping a lease on %s: it overlaps another", path)
                dropped.append(row.token)
                continue
            lease = Lease(row.token, path, row.key_id, row.expires_ms, row.protocol, row.hostname, row.granted_ms)
            entry = _Entry(lease, row.uploads, State.LEASED)
            if row.token in interrupted:
                entry.state = TRANSITIONS[State.COMMITTING, Event.RESTART]
                entry.lease = replace(lease, expires_ms=entry.extended(now, self._grace_ms))
                recovered[row.token] = entry.lease.expires_ms
            self._admit(entry)
        if interrupted:
            self._database.recover(recovered, now)
        if dropped:
            self._database.remove(dropped)

    def _admit(self, entry: _Entry) -> None:
        self._entries[entry.lease.token] = entry
        self._index.add(entry.lease.path, entry.lease.token)

    def _move(self, entry: _Entry, event: Event) -> None:
        entry.state = TRANSITIONS[entry.state, event]

    def _end(self, entry: _Entry, event: Event) -> None:
        self._move(entry, event)
        assert entry.state in ENDED
        del self._entries[entry.lease.token]
        self._index.remove(entry.lease.path)

    def _alive(self, token: str, now: int | None) -> _Entry:
        entry = self._entries.get(token)
        if entry is None or (now is not None and not entry.alive(now)):
            raise InvalidLease
        return entry

    def _usable(self, token: str, now: int | None) -> _Entry:
        entry = self._alive(token, now)
        if entry.state is State.COMMITTING:
            raise CommitInProgress
        return entry

    def _committing(self, token: str) -> _Entry:
        with self._memory:
            entry = self._entries[token]
            assert entry.state is State.COMMITTING
            return entry


def _row(lease: Lease) -> LeaseRow:
    return LeaseRow(
        lease.token,
        lease.path.fqrn,
        lease.path.stored,
        lease.key_id,
        lease.expires_ms,
        lease.protocol,
        lease.hostname,
        lease.granted_ms,
        UploadStatistics(),
    )
