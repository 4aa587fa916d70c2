"""What a collection keeps, what it removes, and that it may be cut off anywhere and meet any publisher."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_gw.care import sweep
from cvmfs_gw.care.gc import Collection, Policy, collect
from cvmfs_gw.care.sweep import Hand, Removed
from cvmfs_gw.engine.commit_api import CommitRequest
from cvmfs_gw.engine.errors import ConfigurationError, Conflict, MergeError, MissingObject
from cvmfs_gw.engine.locking import collecting, exclusive
from cvmfs_gw.engine.repository import MANIFEST_PATH
from cvmfs_objstore.formats.reflog import REFLOG_PATH, Reflog
from cvmfs_objstore.hashes import ContentHash, Suffix
from tests.care.collecting import HOUR, Past, content_of
from tests.engine.repositories import FQRN, everything, new_repository
from tests.engine.test_faults import KILLED, _die, at_call
from tests.engine.trees import NOW

LAST = Policy(revisions=0)


@pytest.fixture
def past(tmp_path: Path, keys: str) -> Past:
    """Revisions 2 to 6: file /f with the number of each, and a nested catalog at /n with chunks; day long ago."""
    made = Past(str(tmp_path / "root"), keys)
    made.commit({"/n": b"/", "/n/big": b"one\ntwo", "/f": b"2"}, nest=("/n",))
    made.commit({"/f": b"3", "/n/big": b"one\nthree"}, "tagged")
    for number in (4, 5, 6):
        made.commit({"/f": b"%d" % number})
    made.commit({"/n/big": b"one\nfour", "/f": b"7"})
    made.now += 24 * HOUR
    return made


def files(past: Past) -> set[int]:
    """Which contents of /f are in the storage."""
    return {number for number in range(2, 8) if past.has(b"%d" % number)}


def test_keeps_head_tags_and_undo(past: Past) -> None:
    before = past.objects()
    report = past.collect(LAST)
    # 3 is tagged, 7 the head, 6 what an undo goes back to
    assert files(past) == {3, 6, 7}
    assert past.has(b"one", Suffix.CHUNK)
    assert past.has(b"three", Suffix.CHUNK)
    assert not past.has(b"two", Suffix.CHUNK)
    past.check()
    gone = before - past.objects()
    assert report.condemned_objects == len(gone)
    assert report.condemned_catalogs == sum(name.suffix is Suffix.CATALOG for name in gone)
    assert report.kept_revisions == 3
    assert content_of(past.repository(), "/n/big") == b"onefour"
    assert past.collect(LAST).condemned_objects == 0


@pytest.mark.parametrize(
    ("revisions", "kept"), [(1, {3, 6, 7}), (2, {3, 5, 6, 7}), (4, {3, 4, 5, 6, 7}), (99, set(range(2, 8)))]
)
def test_keeps_last_revisions(past: Past, revisions: int, kept: set[int]) -> None:
    past.collect(Policy(revisions=revisions))
    assert files(past) == kept
    past.check()


def test_keeps_since(past: Past) -> None:
    """The revision that was the head at that time stays, too."""
    head = past.now - 24 * HOUR
    past.collect(Policy(since=head - HOUR - 1))
    assert files(past) == {3, 5, 6, 7}
    past.check()


def test_names_are_bytes(past: Past) -> None:
    """A nested catalog below a name that is no text."""
    past.commit({"/\udcff": b"/", "/\udcff/file": b"kept"}, nest=("/\udcff",))
    past.collect(LAST)
    past.check()
    assert past.has(b"kept")


def test_default_policy(past: Past) -> None:
    assert past.collect(Policy.default(past.now)).condemned_revisions > 0, "publishers' own roots"
    assert files(past) == set(range(2, 8))
    past.now += 4 * 24 * HOUR
    past.collect(Policy.default(past.now))
    assert files(past) == {3, 6, 7}


def test_what_nobody_ever_named_goes(past: Past) -> None:
    """A publisher uploaded, and never committed."""
    past.upload({"/f": b"never"})
    past.age()
    past.now += 2 * HOUR
    assert past.has(b"never")
    past.collect(LAST)
    assert not past.has(b"never")
    past.check()


def test_open_lease_protects(past: Past) -> None:
    began = past.now
    past.now += HOUR
    past.upload({"/f": b"uploaded"})
    past.age()
    past.now += 3 * HOUR
    past.collect(LAST, oldest_lease=began)
    assert past.has(b"uploaded")
    past.collect(LAST, oldest_lease=past.now)
    assert not past.has(b"uploaded")


def test_a_storage_whose_clock_is_behind(past: Past) -> None:
    """What a publisher has just written there bears a time long before its lease."""
    past.now = int(time.time()) + 24 * HOUR
    past.upload({"/f": b"uploaded"})
    past.collect(LAST, oldest_lease=past.now - 60)
    assert past.has(b"uploaded")


def test_base_of_an_open_lease_stays(past: Past) -> None:
    """The head has moved on, and nothing but a publisher with an open lease needs its predecessors."""
    base = past.commit({"/f": b"base"})
    began = past.now + 10
    request = past.upload({"/g": b"mine"}, base=base)
    past.age()
    for number in range(3):
        past.commit({"/f": b"later %d" % number})
    past.collect(LAST, oldest_lease=began)
    assert past.has(b"base")
    past.engine.commit(request)
    past.check()
    assert content_of(past.repository(), "/f") == b"later 2"
    assert content_of(past.repository(), "/g") == b"mine"


def test_dry_run(past: Past) -> None:
    repository = past.repository()
    before = everything(repository)
    told: list[ContentHash] = []
    wanted = past.collect(LAST, dry_run=True, on_delete=told.append)
    assert everything(repository) == before
    assert len(told) == wanted.condemned_objects > 0
    size = sum(repository.objects.size(name) for name in told)
    assert wanted.condemned_bytes == size, "a dry run says how much it would be"
    done: list[ContentHash] = []
    report = past.collect(LAST, on_delete=done.append)
    # reflog and manifest are written anew, which makes no garbage
    assert sorted(told) == sorted(done)
    assert (report.condemned_bytes, report.kept_catalogs) == (None, wanted.kept_catalogs)
    assert list(report.seconds) == ["mark", "forget", "sweep"]
    assert (f", {size} bytes" in wanted.describe(), "bytes" in report.describe()) == (True, False)


def test_statistics(past: Past) -> None:
    wanted = past.collect(LAST, dry_run=True)
    with open(past.paths.server_conf(FQRN), "a", encoding="ascii") as file:
        file.write("CVMFS_EXTENDED_GC_STATS=true\n")
    report = past.collect(LAST)
    assert report.condemned_bytes == wanted.condemned_bytes
    with closing(sqlite3.connect(past.repository().statistics_path)) as database:
        rows = database.execute("SELECT * FROM gc_statistics").fetchall()
    assert len(rows) == 1
    assert rows[0][3:] == (
        report.kept_catalogs, report.condemned_catalogs, report.condemned_objects, report.condemned_bytes, 0, 1,
    )  # fmt: skip


def test_must_be_allowed(tmp_path: Path, keys: str) -> None:
    repository = new_repository(str(tmp_path), keys)
    with pytest.raises(ConfigurationError, match="not enabled"):
        collect(repository, LAST)


def test_one_at_a_time(past: Past) -> None:
    with collecting(past.paths, FQRN) as got:
        assert got
        with collecting(past.paths, FQRN) as again:
            assert not again
        with pytest.raises(Conflict):
            past.collect(LAST)
        past.collect(LAST, dry_run=True)
    past.collect(LAST)


def test_respects_cvmfs_server(past: Past) -> None:
    mark = os.path.join(past.paths.repository_spool(FQRN), "in_transaction.lock")
    with open(mark, "w", encoding="ascii"):
        pass
    with pytest.raises(Conflict, match="transaction"):
        past.collect(LAST)
    os.unlink(mark)
    past.collect(LAST)


def test_missing_catalog_of_a_tag(past: Past) -> None:
    """What a kept tree needs is not known: nothing is removed."""
    repository = past.repository()
    with repository.catalogs.load(repository.head().root_hash) as root:
        nested = root.nested()["/n"].hash
    repository.objects.delete(nested)
    before = past.objects()
    with pytest.raises(MissingObject):
        past.collect(LAST)
    assert past.objects() == before


def test_damaged_catalog(past: Past) -> None:
    repository = past.repository()
    repository.storage.write(repository.head().root_hash.path, b"no catalog")
    before = past.objects()
    with pytest.raises(MergeError):
        past.collect(LAST)
    assert past.objects() == before


def test_reflog_and_manifest(past: Past) -> None:
    repository = past.repository()
    head = repository.head()
    past.collect(LAST)
    after = repository.head()
    assert (after.root_hash, after.revision, after.history) == (head.root_hash, head.revision, head.history)
    data = repository.storage.read(REFLOG_PATH)
    assert after.reflog_hash == ContentHash.of(data)
    with Reflog.load(data) as reflog:
        refs = {ref for ref, _ in reflog.refs()}
    assert {ref for ref in refs if ref.suffix is Suffix.CATALOG} <= past.objects()
    assert all(repository.objects.has(ref) for ref in refs)


class Meddling(Collection):
    """A collection in which something happens before each step that takes the lock."""

    def __init__(self, past: Past, meddle: object, helpers: int = 0) -> None:
        self.told: list[ContentHash] = []
        super().__init__(past.repository(), LAST, past.now, past.now, False, self.told.append, helpers=helpers)
        self._meddle = meddle

    def forget(self) -> None:
        self._meddle("forget")  # type: ignore[operator]
        super().forget()

    def _sweep_batch(self, busy: Sequence[Hand]) -> list[Hand]:
        self._meddle("sweep")  # type: ignore[operator]
        return super()._sweep_batch(busy)


@pytest.mark.parametrize("helpers", [0, 2])
@pytest.mark.parametrize("when", ["forget", "sweep"])
def test_publisher_brings_back_what_is_condemned(past: Past, when: str, helpers: int) -> None:
    """Content of a condemned revision is uploaded and committed while the collection is under way."""
    done: list[str] = []

    def meddle(step: str) -> None:
        if step == when and not done:
            done.append(step)
            request = past.upload({"/back": b"4", "/chunks": b"two\nanother"})
            past.engine.commit(request)

    with closing(Meddling(past, meddle, helpers)) as collection:
        collection.run()
    assert done
    past.check()
    assert content_of(past.repository(), "/back") == b"4"
    assert content_of(past.repository(), "/chunks") == b"twoanother"


@pytest.mark.parametrize("when", ["forget", "sweep"])
def test_upload_before_and_commit_after(past: Past, when: str) -> None:
    """The objects come in while the collection runs, the commit only when it has ended."""
    requests: list[CommitRequest] = []

    def meddle(step: str) -> None:
        if step == when and not requests:
            requests.append(past.upload({"/back": b"4", "/chunks": b"two\nanother"}))

    with closing(Meddling(past, meddle)) as collection:
        collection.run()
    past.engine.commit(requests[0])
    past.check()
    assert content_of(past.repository(), "/back") == b"4"


@pytest.mark.parametrize("worthwhile", [sweep.WORTHWHILE, 0])
def test_publishers_all_the_time(past: Past, worthwhile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers bring the same few contents again and again, collectors (and their helpers) go round and round."""
    monkeypatch.setattr(sweep, "WORTHWHILE", worthwhile)
    past.now = NOW + 100 * HOUR
    stop = threading.Event()
    reports = []

    def go_round() -> None:
        while not stop.is_set():
            # everything of the past is garbage at once; what is put now is young by the machine's clock
            reports.append(past.collect(LAST, oldest_lease=past.now))

    collector = threading.Thread(target=go_round)
    collector.start()
    try:
        for number in range(40):
            past.engine.commit(past.upload({"/f": b"%d" % (number % 7), f"/d{number % 3}": b"x%d" % (number % 5)}))
            if number % 4 == 0:
                past.age()
    finally:
        stop.set()
        collector.join()
    assert sum(report.condemned_objects for report in reports) > 20
    past.check()
    assert content_of(past.repository(), "/f") == b"4"


def test_killed_while_helpers_are_at_work(past: Past) -> None:
    """They bring the batch to its end, and go; the next collection does what is left."""

    def die() -> Removed:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    class Killed(Collection):
        def _sweep_batch(self, busy: Sequence[Hand]) -> list[Hand]:
            busy[0].removed = die  # type: ignore[method-assign]
            return super()._sweep_batch(busy)

    before = past.objects()
    child = os.fork()
    if not child:
        try:
            Killed(past.repository(), LAST, past.now, past.now, False, None, helpers=2).run()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with exclusive(past.paths, FQRN):  # which they have copies of
        assert past.objects() < before
    past.engine.recover(FQRN)
    past.check()
    past.collect(LAST)
    assert files(past) == {3, 6, 7}
    past.check()


def test_killed_at_every_call(tmp_path_factory: pytest.TempPathFactory, keys: str) -> None:
    """Killed before any one system call, then run again: whole all the time, and clean in the end."""

    def world() -> Past:
        made = Past(str(tmp_path_factory.mktemp("gc")), keys)
        made.commit({"/f": b"1"})
        made.commit({"/f": b"2", "/n": b"/"}, nest=("/n",))
        made.commit({"/f": b"3"})
        made.commit({"/f": b"4"})
        made.now += 24 * HOUR
        return made

    whole = world()
    with at_call(-1, _die) as calls:
        whole.collect(LAST)
    wanted = whole.objects()
    assert {"rename", "unlink"} <= set(calls)
    for number in range(len(calls)):
        past = world()
        child = os.fork()
        if not child:
            try:
                with at_call(number, _die):
                    past.collect(LAST)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED, calls[number]
        past.engine.recover(FQRN)
        past.check()
        past.collect(LAST)
        past.check()
        assert {name for name in past.objects() if name.suffix is not Suffix.HISTORY} == {
            name for name in wanted if name.suffix is not Suffix.HISTORY
        }
        txn = os.path.join(past.paths.repository_storage(FQRN), "data", "txn")
        assert os.listdir(txn) == []
        assert past.repository().storage.exists(MANIFEST_PATH)
