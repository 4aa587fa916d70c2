"""Copies of a repository: whole whatever happens meanwhile, continued where they were broken off, and taken over."""

from __future__ import annotations

import fcntl
import io
import os
import tarfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_gw.care.adopt import Adoption, adopt
from cvmfs_gw.care.check import CheckOptions, check_repository
from cvmfs_gw.care.gc import Collection, Policy
from cvmfs_gw.care.resign import resign_whitelist
from cvmfs_gw.care.snapshot import CONFIGURATION_PATH, CopyReport, export
from cvmfs_gw.care.targets import FolderTarget, TarTarget
from cvmfs_gw.engine.errors import ConfigurationError, Conflict, MissingObject, SigningError
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.hashes import ContentHash, Suffix
from tests.care.collecting import HOUR, IGNORED, Past, content_of
from tests.engine.repositories import FQRN, everything, files


@pytest.fixture
def past(tmp_path: Path, keys: str) -> Past:
    made = Past(str(tmp_path / "root"), keys)
    made.commit({"/n": b"/", "/n/big": b"one\ntwo", "/f": b"2"}, "tagged", nest=("/n",))
    made.commit({"/f": b"3", "/n/big": b"one\nthree"})
    made.commit({"/f": b"4"})
    resign_whitelist(made.repository(), made.now)
    return made


def copy(past: Past, folder: str) -> CopyReport:
    with closing(FolderTarget(folder)) as target:
        return export(past.repository(), target)


def move(past: Past, storage: str, root: str, keys: str | None = None) -> Repository:
    """Take the copy over into another server below *root*."""
    paths = SystemPaths(root)
    source = Adoption(storage, keys or past.paths.keys, "http://localhost/")
    adopt(FQRN, paths, {}, source, past.now)
    return Repository(FQRN, paths, {}, durable=False)


def check(repository: Repository, now: float) -> None:
    report = check_repository(repository, CheckOptions(every_tag=True, integrity=True), now)
    assert [str(fault) for fault in report.faults if fault.kind.code not in IGNORED] == []


def test_there_and_back(past: Past, tmp_path: Path) -> None:
    """Every revision of the reflog comes along; and what is there is copied once."""
    folder = str(tmp_path / "copy")
    report = copy(past, folder)
    assert (report.revision, report.missing) == (4, [])
    assert report.copied == report.objects == len(past.objects())
    assert copy(past, folder).copied == 0
    assert Path(folder, CONFIGURATION_PATH).read_bytes() == Path(past.paths.server_conf(FQRN)).read_bytes()
    assert not [name for name in files(folder) if name.endswith(("key", ".gw"))], "secrets stay where they are"
    moved = move(past, folder, str(tmp_path / "other"))
    check(moved, past.now)
    assert moved.head() == past.repository().head()
    assert content_of(moved, "/n/big") == b"onethree"
    assert set(moved.objects.list()) == past.objects()


def test_what_is_new_is_added(past: Past, tmp_path: Path) -> None:
    folder = str(tmp_path / "copy")
    before = copy(past, folder)
    past.commit({"/f": b"5"})
    after = copy(past, folder)
    assert after.objects == before.objects + after.copied
    assert after.copied < before.copied
    check(move(past, folder, str(tmp_path / "other")), past.now)


def test_publishing_and_collecting_go_on(past: Past, tmp_path: Path) -> None:
    """Publishers publish and a collector collects, all the time: each copy is a revision that there was, and whole."""
    stop = threading.Event()
    published = {past.repository().head().root_hash}
    collected = 0

    def publish() -> None:
        nonlocal collected
        number = 0
        while not stop.is_set():
            number += 1
            request = past.upload({"/f": b"%d" % (number % 9), f"/d{number % 5}": b"x%d" % number})
            published.add(past.engine.commit(request).root_hash)
            past.collect(Policy(revisions=0), oldest_lease=past.now + 10**6)
            collected += 1

    publisher = threading.Thread(target=publish)
    publisher.start()
    made = 5
    try:
        for number in range(made):
            assert copy(past, str(tmp_path / f"copy{number}")).missing == []
    finally:
        stop.set()
        publisher.join()
    assert collected, "nobody waits for copies"
    for number in range(made):
        moved = move(past, str(tmp_path / f"copy{number}"), str(tmp_path / f"other{number}"))
        check(moved, past.now)
        assert moved.head().root_hash in published


class Meddling(FolderTarget):
    """Something happens before the first object is copied."""

    def __init__(self, folder: str, meddle: Callable[[], object]) -> None:
        super().__init__(folder)
        self._meddle: Callable[[], object] | None = meddle

    def add(self, *arguments: object) -> None:
        if self._meddle is not None:
            meddle, self._meddle = self._meddle, None
            meddle()
        super().add(*arguments)  # type: ignore[arg-type]


def test_collector_leaves_what_a_copy_needs(past: Past, tmp_path: Path) -> None:
    """Nothing of a condemned revision goes while it is copied, and all of it afterwards."""
    past.commit({"/f": b"5"})
    past.now += 10 * HOUR

    def collect() -> None:
        assert past.collect(Policy(revisions=0)).condemned_revisions == 0
        assert past.has(b"3")

    with closing(Meddling(str(tmp_path / "copy"), collect)) as target:
        assert export(past.repository(), target).missing == []
    check(move(past, str(tmp_path / "copy"), str(tmp_path / "other")), past.now)
    assert past.collect(Policy(revisions=0)).condemned_revisions > 0
    assert not past.has(b"3")


def test_copy_that_begins_while_garbage_is_marked(past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After everything was marked, before anything goes: the collector looks again."""
    past.commit({"/f": b"5"})
    past.now += 10 * HOUR
    begun = threading.Event()
    go_on = threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(60)

    def make() -> None:
        with closing(Meddling(str(tmp_path / "copy"), wait)) as target:
            assert export(past.repository(), target).missing == []

    copying = threading.Thread(target=make)
    forget = Collection.forget

    def late(self: Collection) -> None:
        copying.start()
        assert begun.wait(60)
        forget(self)

    monkeypatch.setattr(Collection, "forget", late)
    try:
        past.collect(Policy(revisions=0))
        assert past.has(b"3")
    finally:
        go_on.set()
        copying.join()
    check(move(past, str(tmp_path / "copy"), str(tmp_path / "other")), past.now)


def test_former_revision_that_is_not_whole(past: Past, tmp_path: Path) -> None:
    """Neither a copy nor the collector stops at it; what it shares with others is copied, and kept, all the same."""
    repository = past.repository()
    past.commit({"/m": b"/", "/m/x": b"lost"}, nest=("/m",))
    with repository.catalogs.load(repository.head().root_hash) as root:
        lost = root.nested()["/m"].hash
    past.commit({"/m/x": b"found"})
    past.commit({"/m/x": b"and kept"})
    os.unlink(os.path.join(past.paths.repository_storage(FQRN), lost.path))
    report = copy(past, str(tmp_path / "copy"))
    assert [line for line in report.missing if str(lost) in line] == report.missing != []
    past.collect(Policy(revisions=0))
    assert content_of(past.repository(), "/n/big") == b"onethree"


def test_copies_wait_for_the_others_collector(past: Past, tmp_path: Path) -> None:
    """``cvmfs_server gc`` and ``check`` hold their lock alone and know of no copies: they come one after the other."""
    lock = Path(past.paths.repository_spool(FQRN), "is_collecting.lock")
    told: list[str] = []
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="cvmfs_server"):
            copy(past, str(tmp_path / "copy"))

        def end(what: str) -> None:
            told.append(what)
            lock.unlink()
            file.close()

        with closing(FolderTarget(str(tmp_path / "copy"))) as target:
            assert export(past.repository(), target, patience=60, waiting=end).missing == []
    assert len(told) == 1

    def refused() -> None:
        with lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        copy(past, str(tmp_path / "second"))
        with lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with closing(Meddling(str(tmp_path / "third"), refused)) as target:
        export(past.repository(), target)
    assert not lock.exists()


def test_copies_wait_for_a_signature(past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``cvmfs_server`` writes reflog and manifest one after the other."""
    path = Path(past.paths.repository_storage(FQRN), ".cvmfsreflog")
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    with pytest.raises(Conflict, match="reflog"):
        copy(past, str(tmp_path / "copy"))
    monkeypatch.setattr("cvmfs_gw.care.snapshot.time.sleep", lambda _: path.write_bytes(whole))
    with closing(FolderTarget(str(tmp_path / "copy"))) as target:
        assert export(past.repository(), target, patience=60).missing == []


def test_broken_off(past: Past, tmp_path: Path) -> None:
    """No manifest, no repository; the next copy goes on."""
    folder = str(tmp_path / "copy")

    class Full(FolderTarget):
        left = 5

        def add(self, *arguments: object) -> None:
            self.left -= 1
            if not self.left:
                raise OSError(28, "no space left on device")
            super().add(*arguments)  # type: ignore[arg-type]

    with closing(Full(folder)) as target, pytest.raises(Exception, match="no space"):
        export(past.repository(), target)
    assert not os.path.exists(os.path.join(folder, MANIFEST_PATH))
    assert os.listdir(os.path.join(folder, "data/txn")) == []
    report = copy(past, folder)
    assert report.copied == report.objects - 4
    check(move(past, folder, str(tmp_path / "other")), past.now)


def test_damaged_and_missing_objects_are_told(past: Past, tmp_path: Path) -> None:
    repository = past.repository()
    repository.storage.write(chunk(b"one").path, b"damaged")
    repository.objects.delete(chunk(b"three"))
    folder = str(tmp_path / "copy")
    report = copy(past, folder)
    assert sorted(line.split(":")[0].split()[0] for line in report.missing) == sorted(
        str(chunk(data)) for data in (b"one", b"three")
    )
    assert not os.path.exists(os.path.join(folder, chunk(b"one").path))
    with pytest.raises(MissingObject):
        move(past, folder, str(tmp_path / "other"))
    assert not os.path.exists(SystemPaths(str(tmp_path / "other")).repository_storage(FQRN) + "/" + MANIFEST_PATH)


def chunk(data: bytes) -> ContentHash:
    return ContentHash.of(deflate(data), suffix=Suffix.CHUNK)


def test_archive(past: Past, tmp_path: Path) -> None:
    file = io.BytesIO()
    with closing(TarTarget(file, past.now)) as target:
        report = export(past.repository(), target)
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "copy", filter="data")
    assert names[-1] == MANIFEST_PATH, "an archive that was cut off has none"
    assert len(names) == len(set(names)) == report.objects + 5
    check(move(past, str(tmp_path / "copy"), str(tmp_path / "other")), past.now)


def test_import_of_what_is_not_trusted(past: Past, tmp_path: Path, keys: str) -> None:
    folder, other = str(tmp_path / "copy"), str(tmp_path / "other")
    copy(past, folder)
    whole = files(folder)
    for name, change in (
        (MANIFEST_PATH, lambda data: data.replace(b"\nS4\n", b"\nS5\n")),
        (".cvmfswhitelist", lambda data: data.replace(b"N" + FQRN.encode(), b"Nother.example.org")),
        (past.repository().head().certificate.path, lambda data: b"x"),  # type: ignore[union-attr]
    ):
        path = Path(folder, name)
        path.write_bytes(change(whole[str(path)]))
        with pytest.raises(SigningError):
            move(past, folder, other)
        path.write_bytes(whole[str(path)])
    path = Path(folder, ".cvmfsreflog")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(Conflict, match="reflog"):
        move(past, folder, other)
    path.write_bytes(whole[str(path)])
    past.now += 40 * 86_400
    with pytest.raises(SigningError):
        move(past, folder, other)
    past.now -= 40 * 86_400
    assert not os.path.exists(other), "nothing is written before all this is right"
    move(past, folder, other)
    with pytest.raises(ConfigurationError, match="exists already"):
        move(past, folder, other)
    for nowhere in (str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(ConfigurationError):
            move(past, nowhere, str(tmp_path / "third"))


def test_export_changes_nothing(past: Past, tmp_path: Path) -> None:
    before = everything(past.repository())
    copy(past, str(tmp_path / "copy"))
    assert everything(past.repository()) == before
