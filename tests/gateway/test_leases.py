from __future__ import annotations

import base64
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from cvmfs_gw.engine.commit_api import CommitOutcome, UploadStatistics
from cvmfs_gw.gateway import leases
from cvmfs_gw.gateway.errors import CommitInProgress, InvalidLease, PathBusy, TooManyLeases
from cvmfs_gw.gateway.leasedb import LeaseDatabase
from cvmfs_gw.gateway.leasepath import LeasePath
from cvmfs_gw.gateway.leases import GRACE_MS, Lease, LeaseBook, new_token
from cvmfs_gw.gateway.leasestate import ENDED, TRANSITIONS, Event, State
from cvmfs_gw.paths import SystemPaths
from tests.gateway.support import FQRN, NEW, OLD, catalog
from tests.gateway.test_leasedb import REFERENCE_SCHEMA, make, query

OUTCOME = CommitOutcome(5, catalog("root"))
NOTHING = UploadStatistics()


@pytest.fixture
def path(paths: SystemPaths) -> str:
    return os.path.join(paths.work_dir, "gw.db")


@pytest.fixture
def book(path: str) -> Iterator[LeaseBook]:
    with closing(LeaseBook.open(path, now=0)) as book:
        yield book


def at(text: str) -> LeasePath:
    return LeasePath.parse(f"{FQRN}/{text}")


def take(book: LeaseBook, text: str, now: int = 0, lifetime: int = 1_000) -> Lease:
    return book.acquire(at(text), "key1", now=now, lifetime_ms=lifetime, protocol=3, hostname="h")


def reopened(book: LeaseBook, path: str, now: int = 0) -> LeaseBook:
    book.close()
    return LeaseBook.open(path, now=now)


def test_tokens() -> None:
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(len(base64.b32decode(token)) == 32 for token in tokens)


def test_the_table_of_states() -> None:
    reachable = {State.FREE} | set(TRANSITIONS.values())
    assert reachable == set(State)
    assert not {state for state, _ in TRANSITIONS} & ENDED
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_grant_and_busy(book: LeaseBook) -> None:
    lease = take(book, "a/b")
    assert (lease.expires_ms, lease.granted_ms, lease.protocol, lease.hostname) == (1_000, 0, 3, "h")
    for text in ("a", "a/b", "a/b/c", ""):
        with pytest.raises(PathBusy) as caught:
            take(book, text, now=400)
        assert caught.value.remaining_ms == 1_000  # never less than a second is promised
    take(book, "a/bb")
    take(book, "c", lifetime=5_000)
    with pytest.raises(PathBusy) as caught:
        take(book, "", now=400)
    assert caught.value.remaining_ms == 4_600
    assert book.get(lease.token, 999) == lease
    with pytest.raises(InvalidLease):
        book.get(lease.token, 1_000)
    assert {str(found.path) for found in book.active(1_000)} == {f"{FQRN}/c"}


def test_expired_leases_are_replaced(book: LeaseBook, path: str) -> None:
    old = [take(book, "a/b"), take(book, "a/c")]
    new = take(book, "a", now=1_000)
    assert book.active(1_000) == [new]
    assert query(path, "select Token from Lease") == [(new.token,)]
    assert [book.state(lease.token) for lease in old] == [State.FREE, State.FREE]


def test_no_more_than_fit(book: LeaseBook, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "MAX_LEASES", 2)
    take(book, "a")
    take(book, "b", lifetime=5_000)
    with pytest.raises(TooManyLeases):
        take(book, "c", now=2_000)
    assert take(book, "a/b", now=2_000)  # in place of one that has expired
    book.expire(6_000)
    assert take(book, "c", now=6_000)


def test_renew(book: LeaseBook, path: str) -> None:
    lease = take(book, "a")
    assert book.renew(lease.token, now=900, lifetime_ms=1_000).expires_ms == 1_900
    assert query(path, "select Expiration from Lease") == [(1_900,)]
    with pytest.raises(InvalidLease):
        book.renew(lease.token, now=1_900, lifetime_ms=1_000)
    with pytest.raises(InvalidLease):
        book.renew("unknown", now=0, lifetime_ms=1_000)


def test_cancel(book: LeaseBook, path: str) -> None:
    lease = take(book, "a")
    assert book.cancel(lease.token) == lease
    assert query(path, "select count(*) from Lease") == [(0,)]
    with pytest.raises(InvalidLease):
        book.cancel(lease.token)
    take(book, "a")


def test_cancel_within(book: LeaseBook) -> None:
    leases = {text: take(book, text) for text in ("a/x", "a/y", "ab", "c")}
    assert sorted(lease.path.path for lease in book.cancel_within(at("a"))) == ["/a/x", "/a/y"]
    book.begin_commit(leases["c"].token, OLD, NEW, 0)
    with pytest.raises(CommitInProgress):
        book.cancel_within(at(""))
    assert book.active(0) == [leases["c"]]


def test_expire(book: LeaseBook, path: str) -> None:
    take(book, "a")
    later = take(book, "b", lifetime=2_000)
    assert [lease.path.path for lease in book.expire(1_000)] == ["/a"]
    assert query(path, "select Token from Lease") == [(later.token,)]
    assert book.expire(1_000) == []


def test_a_commit_that_succeeds(book: LeaseBook, path: str) -> None:
    lease = take(book, "a")
    begun = book.begin_commit(lease.token, OLD, NEW, 500)
    assert (begun.lease, begun.uploads, begun.repeated) == (lease, NOTHING, False)
    assert book.state(lease.token) is State.COMMITTING
    for attempt in (
        lambda: book.renew(lease.token, now=500, lifetime_ms=1),
        lambda: book.cancel(lease.token),
        lambda: book.begin_commit(lease.token, OLD, NEW, 500),
        lambda: book.begin_upload(lease.token, 500),
    ):
        with pytest.raises(CommitInProgress):
            attempt()
    book.finish_commit(lease.token, OLD, NEW, OUTCOME, 5_000)
    with pytest.raises(InvalidLease):
        book.get(lease.token)
    take(book, "a", now=600)
    for again in (book, LeaseBook.open(path, now=0)):
        recorded = again.recorded(lease.token, OLD, NEW)
        assert recorded is not None
        assert (recorded.outcome, recorded.key_id) == (OUTCOME, "key1")
        assert again.recorded(lease.token, NEW, OLD) is None
    again.close()


def test_a_commit_outlives_its_lease(book: LeaseBook) -> None:
    lease = take(book, "a")
    book.begin_commit(lease.token, OLD, NEW, 999)
    assert book.expire(50_000) == []
    assert book.active(50_000) == [lease]
    with pytest.raises(PathBusy) as caught:
        take(book, "a", now=50_000)
    assert caught.value.remaining_ms == 1_000
    book.fail_commit(lease.token, OLD, NEW, 50_000)
    assert book.get(lease.token).expires_ms == 50_000 + GRACE_MS
    assert not book.begin_commit(lease.token, OLD, NEW, 50_001).repeated


def test_a_failed_commit_in_time_changes_no_time(book: LeaseBook) -> None:
    lease = take(book, "a")
    book.begin_commit(lease.token, OLD, NEW, 500)
    book.fail_commit(lease.token, OLD, NEW, 600)
    assert book.get(lease.token, 600) == lease


def test_uploads(book: LeaseBook, path: str) -> None:
    lease = take(book, "a")
    brought = UploadStatistics(1, 2, 3, 4, 5)
    for _ in range(2):
        book.begin_upload(lease.token, 500)
        book.end_upload(lease.token, 600, brought)
    assert book.get(lease.token, 600) == lease
    book = reopened(book, path)
    assert book.begin_commit(lease.token, OLD, NEW, 600).uploads == UploadStatistics(2, 4, 6, 8, 10)
    book.close()


def test_an_upload_outlives_its_lease(book: LeaseBook) -> None:
    lease = take(book, "a")
    book.begin_upload(lease.token, 500)
    book.begin_upload(lease.token, 500)
    book.end_upload(lease.token, 999, NOTHING)
    assert book.expire(5_000) == []
    with pytest.raises(PathBusy):
        take(book, "a", now=5_000)
    book.begin_commit(lease.token, OLD, NEW, 5_000)
    book.fail_commit(lease.token, OLD, NEW, 5_000)
    book.end_upload(lease.token, 6_000, NOTHING)
    assert book.get(lease.token).expires_ms == 5_000 + GRACE_MS
    with pytest.raises(InvalidLease):
        book.begin_upload(lease.token, 6_000 + GRACE_MS)


def test_an_upload_whose_lease_is_cancelled(book: LeaseBook) -> None:
    lease = take(book, "a")
    book.begin_upload(lease.token, 500)
    book.cancel(lease.token)
    with pytest.raises(InvalidLease):
        book.end_upload(lease.token, 600, NOTHING)


def test_restart(book: LeaseBook, path: str) -> None:
    kept, begun = take(book, "a"), take(book, "b")
    book.begin_commit(begun.token, OLD, NEW, 10)
    book = reopened(book, path, now=20_000)
    assert book.state(begun.token) is State.LEASED
    assert book.get(begun.token).expires_ms == 20_000 + GRACE_MS
    assert book.get(kept.token) == kept
    assert book.active(20_000) == [book.get(begun.token)]
    book = reopened(book, path, now=20_001)  # a second restart has nothing to make good
    assert book.get(begun.token).expires_ms == 20_000 + GRACE_MS
    assert book.begin_commit(begun.token, OLD, NEW, 20_001).repeated
    book.close()
    book = LeaseBook.open(path, now=20_001)
    book = reopened(book, path, now=20_000 + GRACE_MS)
    assert book.active(20_000 + GRACE_MS) == []
    book.close()


def test_leases_of_the_reference(path: str) -> None:
    make(path, REFERENCE_SCHEMA)
    for number, (stored, expires) in enumerate(
        [("/a", 9), ("//b", 9), ("/c//d", 9), ("/e/", 9), ("/f/../g", 9), ("/", 3)]
    ):
        make(path, f"insert into Lease values ('T{number}', '{FQRN}', '{stored}', '007', {expires}, 3, null)")
    with closing(LeaseBook.open(path, now=5, key_ids=["007"])) as book:
        found = {lease.token: (lease.path.path, lease.key_id, lease.granted_ms) for lease in book.active(5)}
        assert found == {"T0": ("/a", "007", 0), "T1": ("/b", "007", 0)}
        book.begin_upload("T1", 5)
        book.end_upload("T1", 5, UploadStatistics(1))
        assert book.begin_commit("T1", OLD, NEW, 5).uploads == UploadStatistics(1)
    assert query(path, "select Token from Lease order by Token") == [("T0",), ("T1",)]


def test_reading_does_not_wait_for_the_disk(book: LeaseBook, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, writing = threading.Event(), threading.Event()
    grant = LeaseDatabase.grant

    def wait(database: LeaseDatabase, *arguments: object) -> None:
        writing.set()
        assert slow.wait(20)
        grant(database, *arguments)  # type: ignore[arg-type]

    lease = take(book, "a")
    monkeypatch.setattr(LeaseDatabase, "grant", wait)
    thread = threading.Thread(target=take, args=(book, "b"))
    thread.start()
    assert writing.wait(20)
    assert book.active(0) == [lease]
    assert book.get(lease.token, 0) == lease
    book.begin_upload(lease.token, 0)
    slow.set()
    thread.join()
    assert len(book.active(0)) == 2


def test_a_database_that_fails(book: LeaseBook, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    lease = take(book, "a")
    with monkeypatch.context() as patch:
        for name in ("grant", "extend", "remove", "begin_commit"):
            patch.setattr(LeaseDatabase, name, full)
        for attempt in (
            lambda: take(book, "b"),
            lambda: book.renew(lease.token, now=0, lifetime_ms=1),
            lambda: book.cancel(lease.token),
            lambda: book.begin_commit(lease.token, OLD, NEW, 0),
        ):
            with pytest.raises(sqlite3.OperationalError):
                attempt()
    assert book.active(0) == [lease]
    assert book.state(lease.token) is State.LEASED
    take(book, "b")


def test_parallel_grants(book: LeaseBook) -> None:
    granted: list[Lease] = []

    def attempt() -> None:
        for number in range(20):
            with suppress(PathBusy):
                granted.append(take(book, f"a/{number}"))

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lease.path.path for lease in granted) == sorted(f"/a/{number}" for number in range(20))
