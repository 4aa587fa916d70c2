"""Copies of a repository: whole whatever happens meanwhile, continued where they were broken off, and taken over."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_gw.care.adopt import Adoption, adopt
from cvmfs_gw.care.check import CheckOptions, check_repository
from cvmfs_gw.care.gc import Policy
from cvmfs_gw.care.resign import resign_whitelist
from cvmfs_gw.care.snapshot import CONFIGURATION_PATH, CopyReport, export
from cvmfs_gw.care.targets import FolderTarget, TarTarget
from cvmfs_gw.engine.errors import ConfigurationError, Conflict, MissingObject, SigningError
from cvmfs_gw.engine.repository import MANIFEST_PATH, Repository
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.compression import deflate
from cvmfs_objstore.hashes import ContentHash, Suffix
from tests.care.collecting import IGNORED, Past, content_of
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


def test_publishing_goes_on(past: Past, tmp_path: Path) -> None:
    """Publishers publish and a collector tries, all the time: each copy is a revision that there was, and whole."""
    stop = threading.Event()
    published = {past.repository().head().root_hash}
    collected: list[str] = []

    def publish() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            request = past.upload({"/f": b"%d" % (number % 9), f"/d{number % 5}": b"x%d" % number})
            published.add(past.engine.commit(request).root_hash)
            try:
                past.collect(Policy(revisions=0), oldest_lease=past.now + 10**6)
                collected.append("done")
            except Conflict:
                collected.append("refused")

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        made = 0
        while made < 5:
            try:
                report = copy(past, str(tmp_path / f"copy{made}"))
            except Conflict:
                continue  # a collector was at work
            assert report.missing == []
            made += 1
    finally:
        stop.set()
        publisher.join()
    for number in range(made):
        moved = move(past, str(tmp_path / f"copy{number}"), str(tmp_path / f"other{number}"))
        check(moved, past.now)
        assert moved.head().root_hash in published


def test_collector_waits_for_a_copy(past: Past, tmp_path: Path) -> None:
    tried: list[bool] = []

    class Meddling(FolderTarget):
        def add(self, *arguments: object) -> None:
            if not tried:
                tried.append(True)
                with pytest.raises(Conflict):
                    past.collect(Policy(revisions=0))
            super().add(*arguments)  # type: ignore[arg-type]

    with closing(Meddling(str(tmp_path / "copy"))) as target:
        assert export(past.repository(), target).missing == []
    assert tried
    past.collect(Policy(revisions=0))


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
    with pytest.raises(ConfigurationError, match="reflog"):
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
