"""The driver on a local directory: modes, staging, flushing, leftovers."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfs_objstore import posix
from cvmfs_objstore.errors import ObjectNotFound
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.staging import OWN_PREFIX
from cvmfs_objstore.storage import Storage
from tests.objstore.storage_suite import OBJECT, StorageSuite


class TestLocalStorage(StorageSuite):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return LocalStorage(str(tmp_path), durable=False)

    def make_old(self, storage: Storage, path: str, data: bytes) -> None:
        assert isinstance(storage, LocalStorage)
        target = Path(storage.root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)  # between two looks of a collector
        target.write_bytes(data)
        for made in (target, target.parent):
            os.utime(made, (0, 0))
        os.close(folder)


class TestCreatedLocalStorage(TestLocalStorage):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return LocalStorage.create(str(tmp_path / "new" / "repo"), durable=False)


class TestLocalStorageWithoutUnnamedFiles(TestLocalStorage):
    """On file systems that have none."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        made = LocalStorage(str(tmp_path), durable=False)
        made._unnamed = False
        return made


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(str(tmp_path))


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_missing_root_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LocalStorage(str(tmp_path / "missing"))
    storage = LocalStorage(str(tmp_path), durable=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "data").rmdir()
    tmp_path.rmdir()
    with pytest.raises(FileNotFoundError):
        storage.put(OBJECT, b"x")
    assert not tmp_path.exists()


def test_create_makes_every_folder(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    for _ in range(2):
        LocalStorage.create(str(root)).close()
    assert sorted(p.name for p in (root / "data").iterdir()) == [*(f"{n:02x}" for n in range(256)), "txn"]
    assert (root / "stats").is_dir()


@pytest.mark.usefixtures("strict_umask")
def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    storage = LocalStorage.create(str(tmp_path / "repo"))
    storage.put(OBJECT, b"x")
    storage.write(".cvmfspublished", b"x")
    with storage.stage() as staged:
        staged.publish("data/sub/folder")
    root = tmp_path / "repo"
    assert mode(root / OBJECT) == mode(root / ".cvmfspublished") == mode(root / "data/sub/folder") == 0o644
    assert mode(root) == mode(root / "data/sub") == mode(root / "data/ab") == mode(root / "data/txn") == 0o755


def test_staging_lies_in_txn_and_is_left_empty(storage: LocalStorage, tmp_path: Path) -> None:
    txn = tmp_path / "data/txn"
    with storage.stage() as staged:
        staged.write(b"x")
        assert len(list(txn.iterdir())) == 1
    storage.put(OBJECT, b"x")
    storage.write(".cvmfspublished", b"x")
    assert list(txn.iterdir()) == []


def test_the_time_where_nothing_can_be_written(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", refuse)
    assert storage.now() == pytest.approx(time.time(), abs=60)


def test_failures_leave_nothing_behind(storage: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "data/ab/cd/inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        storage.put("data/ab/cd", b"x")
    with pytest.raises(OSError, match="directory"):
        storage.write("data/ab/cd", b"x")
    staged = storage.stage()
    with pytest.raises(OSError, match="directory"):
        staged.publish("data/ab/cd")
    assert list((tmp_path / "data/txn").iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        storage.put(OBJECT, b"x")
    with pytest.raises(OSError, match="No space"):
        storage.write(OBJECT, b"x")
    with pytest.raises(OSError, match="No space"), storage.stage() as staged:
        staged.write(b"x")
    assert list((tmp_path / "data/txn").iterdir()) == []
    assert not storage.exists(OBJECT)


def test_partial_writes_are_continued(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    storage.put(OBJECT, b"0123456789")
    storage.write(".cvmfspublished", b"abcdefgh")
    assert storage.read(OBJECT) == b"0123456789"
    assert storage.read(".cvmfspublished") == b"abcdefgh"


def test_clean_removes_own_leftovers(storage: LocalStorage, tmp_path: Path) -> None:
    abandoned = storage.stage()
    abandoned.write(b"half")
    later = LocalStorage(str(tmp_path))
    assert later.clean() == 1
    assert list((tmp_path / "data/txn").iterdir()) == []
    with pytest.raises(FileNotFoundError):
        abandoned.publish(OBJECT)


def test_clean_spares_what_another_server_works_on(storage: LocalStorage, tmp_path: Path) -> None:
    """A second one may have been started on the same repository by mistake: the first one's payloads go on."""
    storage.stage().discard()  # makes the folder
    txn = tmp_path / "data/txn"
    alive, gone = os.getppid(), subprocess.Popen(["true"])
    gone.wait()
    names = {pid: f"{OWN_PREFIX}{pid:x}-0badcafe-1" for pid in (alive, gone.pid, 1 << 40)}
    for name in (*names.values(), f"{OWN_PREFIX}-", f"{OWN_PREFIX}x-y"):
        (txn / name).write_bytes(b"half")
    assert storage.clean() == 4
    assert os.listdir(txn) == [names[alive]]
    os.utime(txn / names[alive], (1000, 1000))
    assert storage.clean() == 1


def test_clean_spares_what_others_work_on(storage: LocalStorage, tmp_path: Path) -> None:
    txn = tmp_path / "data/txn"
    (txn / "receiver.old/sub").mkdir(parents=True)
    (txn / "receiver.old/sub/file").write_bytes(b"x")
    (txn / "old").write_bytes(b"x")
    (txn / "new").write_bytes(b"x")
    (txn / "receiver.new").mkdir()
    (txn / "receiver.new/file").write_bytes(b"x")
    (txn / "link").symlink_to(tmp_path)
    for path in ("receiver.old/sub/file", "receiver.old/sub", "receiver.old", "receiver.new", "old", "link"):
        os.utime(txn / path, (1000, 1000), follow_symlinks=False)
    assert storage.clean() == 3
    assert sorted(p.name for p in txn.iterdir()) == ["new", "receiver.new"]
    assert tmp_path.is_dir()


def test_clean_without_a_staging_folder(storage: LocalStorage) -> None:
    assert storage.clean() == 0


def test_flushing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync"))
    monkeypatch.setattr(posix, "sync_file_system", lambda fd: calls.append("syncfs"))
    lazy = LocalStorage(str(tmp_path), durable=False)
    lazy.write("a", b"x")
    lazy.put(OBJECT, b"x")
    lazy.sync()
    assert calls == []
    durable = LocalStorage(str(tmp_path))
    durable.put(OBJECT + "2", b"x")
    durable.stage().publish("staged")
    assert calls == []
    durable.sync()
    assert calls == ["syncfs"]
    durable.write("a", b"y")
    assert calls == ["syncfs", "fsync", "fsync"]  # the file, then its folder


def test_sync_is_real(storage: LocalStorage) -> None:
    storage.write(OBJECT, b"x")
    storage.sync()
    storage.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        storage.sync()
    storage.close()


def test_links_are_followed_for_reading_but_not_into_folders(storage: LocalStorage, tmp_path: Path) -> None:
    storage.put(OBJECT, b"x")
    (tmp_path / ".cvmfsalt-x").symlink_to(OBJECT)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    assert storage.read(".cvmfsalt-x") == b"x"
    assert sorted(storage.list()) == [".cvmfsalt-x", OBJECT]
    with pytest.raises(ObjectNotFound):
        storage.read("dangling")


def test_repr(storage: LocalStorage, tmp_path: Path) -> None:
    assert repr(storage) == f"LocalStorage({str(tmp_path)!r})"


@pytest.mark.parametrize("for_one", [1, 4, 100])
def test_missing_by_looking_into_folders(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, for_one: int
) -> None:
    """Whether all of a folder is listed, or too much is there for that: the answer is the same."""
    monkeypatch.setattr("cvmfs_objstore.local.LISTED", 1)
    monkeypatch.setattr("cvmfs_objstore.local.LISTED_FOR_ONE", for_one)
    paths = [f"data/{number % 256:02x}/{number:038x}" for number in range(1024)]
    for path in paths[:900]:
        storage.put(path, b"x")
    (tmp_path / paths[900]).mkdir(parents=True)  # a folder is no object
    (tmp_path / paths[901]).symlink_to("nowhere")
    (tmp_path / paths[902]).symlink_to(tmp_path / paths[0])
    assert storage.missing(paths) == {*paths[900:]} - {paths[902]} == {p for p in paths if not storage.exists(p)}
    asked = []
    exists = LocalStorage.exists

    def counted(self: LocalStorage, path: str) -> bool:
        asked.append(path)
        return exists(self, path)

    monkeypatch.setattr(LocalStorage, "exists", counted)
    storage.missing(paths[:900])
    assert (len(asked) > 500) is (for_one == 1)


def test_copy_of_a_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux lets nobody make a second name for a file that is not theirs (``fs.protected_hardlinks``)."""

    def protected(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    storage = LocalStorage.create(str(tmp_path / "s"))
    storage.write(".cvmfsreflog", b"one")
    monkeypatch.setattr(os, "link", protected)
    storage.copy(".cvmfsreflog", ".cvmfsreflog.previous")
    assert storage.read(".cvmfsreflog.previous") == b"one"
    assert os.listdir(tmp_path / "s/data/txn") == []


def test_opened_in_another_process(storage: LocalStorage) -> None:
    """It sees the same, and leaves it to the first to make things durable."""
    opener = pickle.loads(pickle.dumps(storage.opener))
    other = opener()
    other.write("x", b"1")
    assert storage.read("x") == b"1"
    assert (storage.durable, other.durable) == (True, False)
