"""Leases against a model: a plain list of what was granted, which is asked the same questions."""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from cvmfs_gw.engine.commit_api import CommitOutcome, UploadStatistics
from cvmfs_gw.gateway.errors import CommitInProgress, InvalidLease, PathBusy
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.leases import LeaseBook
from tests.gateway.support import NEW, OLD, catalog

GRACE = 50
LIFETIME = 100

lease_paths = st.builds(
    lambda fqrn, names: LeasePath.parse(f"{fqrn}/{'/'.join(names)}"),
    st.sampled_from(["a.org", "b.org"]),
    st.lists(st.sampled_from(["x", "xy", "X"]), max_size=2),
)


@dataclass
class Model:
    """One lease of the model."""

    token: str
    path: LeasePath
    expires: int
    committing: bool = False
    uploads: int = 0
    objects: int = 0
    done: CommitOutcome | None = None
    ended: bool = False

    def alive(self, now: int) -> bool:
        return not self.ended and (self.committing or self.uploads > 0 or now < self.expires)

    def extend(self, now: int) -> None:
        if now >= self.expires:
            self.expires = now + GRACE


class Leases(RuleBasedStateMachine):
    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1_000_000
        self.revision = 0
        self.model: list[Model] = []
        self.open()

    def open(self) -> None:
        path = os.path.join(self.folder.name, "gw.db")
        self.book = LeaseBook.open(path, now=self.now, grace_ms=GRACE)

    def teardown(self) -> None:
        if hasattr(self, "book"):
            self.book.close()
            self.folder.cleanup()

    def usable(self, lease: Model, *, alive: bool = True) -> type[Exception] | None:
        """What an attempt to use the lease raises."""
        if lease.ended or (alive and not lease.alive(self.now)):
            return InvalidLease
        return CommitInProgress if lease.committing else None

    def refused(self, error: type[Exception] | None) -> AbstractContextManager[object]:
        """Expects *error*, or that all goes well."""
        return nullcontext() if error is None else pytest.raises(error)

    @rule(milliseconds=st.integers(0, 130))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds

    @rule(target=leases, path=lease_paths)
    def acquire(self, path: LeasePath) -> Model:
        rivals = [lease for lease in self.model if not lease.ended and lease.path.overlaps(path)]
        busy = [lease for lease in rivals if lease.alive(self.now)]
        if busy:
            with pytest.raises(PathBusy) as caught:
                self.book.acquire(path, "key", now=self.now, lifetime_ms=LIFETIME)
            assert caught.value.remaining_ms == max(1_000, *(lease.expires - self.now for lease in busy))
            return busy[0]
        granted = self.book.acquire(path, "key", now=self.now, lifetime_ms=LIFETIME)
        for lease in rivals:
            lease.ended = True
        lease = Model(granted.token, path, self.now + LIFETIME)
        assert granted.expires_ms == lease.expires
        self.model.append(lease)
        return lease

    @rule(lease=leases, lifetime=st.integers(1, 200))
    def renew(self, lease: Model, lifetime: int) -> None:
        with self.refused(self.usable(lease)):
            self.book.renew(lease.token, now=self.now, lifetime_ms=lifetime)
            lease.expires = self.now + lifetime

    @rule(lease=leases)
    def cancel(self, lease: Model) -> None:
        with self.refused(self.usable(lease, alive=False)):
            self.book.cancel(lease.token)
            lease.ended = True

    @rule(path=lease_paths)
    def cancel_within(self, path: LeasePath) -> None:
        found = [lease for lease in self.model if not lease.ended and lease.path.within(path)]
        ending = [lease for lease in found if not lease.committing]
        with self.refused(CommitInProgress if len(ending) < len(found) else None):
            cancelled = self.book.cancel_within(path)
            assert {lease.token for lease in cancelled} == {lease.token for lease in found}
        for lease in ending:
            lease.ended = True

    @rule()
    def expire(self) -> None:
        ending = [lease for lease in self.model if not lease.ended and not lease.alive(self.now)]
        assert {lease.token for lease in self.book.expire(self.now)} == {lease.token for lease in ending}
        for lease in ending:
            lease.ended = True

    @rule(lease=leases)
    def begin_upload(self, lease: Model) -> None:
        with self.refused(self.usable(lease)):
            self.book.begin_upload(lease.token, self.now)
            lease.uploads += 1

    @rule(lease=leases, objects=st.integers(0, 3))
    def end_upload(self, lease: Model, objects: int) -> None:
        if not lease.uploads:
            return
        lease.uploads -= 1
        with self.refused(InvalidLease if lease.ended else None):
            self.book.end_upload(lease.token, self.now, UploadStatistics(objects))
            lease.objects += objects
            lease.extend(self.now)

    @rule(lease=leases)
    def begin_commit(self, lease: Model) -> None:
        with self.refused(self.usable(lease)):
            begun = self.book.begin_commit(lease.token, OLD, NEW, self.now)
            assert begun.uploads.objects_added == lease.objects
            lease.committing = True

    @rule(lease=leases, success=st.booleans())
    def end_commit(self, lease: Model, success: bool) -> None:
        if not lease.committing:
            return
        lease.committing = False
        if success:
            self.revision += 1
            lease.done = CommitOutcome(self.revision, catalog(str(self.revision)))
            lease.ended = True
            self.book.finish_commit(lease.token, OLD, NEW, lease.done, self.now)
        else:
            self.book.fail_commit(lease.token, OLD, NEW, self.now)
            lease.extend(self.now)

    @rule()
    def restart(self) -> None:
        self.book.close()
        self.open()
        for lease in self.model:
            if not lease.ended and lease.committing:
                lease.committing = False
                lease.extend(self.now)
            lease.uploads = 0

    @invariant()
    def the_same_leases_are_alive(self) -> None:
        if not hasattr(self, "book"):
            return
        alive = {lease.token: lease.expires for lease in self.model if lease.alive(self.now)}
        assert {lease.token: lease.expires_ms for lease in self.book.active(self.now)} == alive
        paths = [lease.path for lease in self.model if lease.alive(self.now)]
        assert not any(a.overlaps(b) for n, a in enumerate(paths) for b in paths[:n])

    @invariant()
    def outcomes_are_remembered(self) -> None:
        for lease in getattr(self, "model", []):
            recorded = self.book.recorded(lease.token, OLD, NEW)
            assert (recorded and recorded.outcome) == lease.done


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
