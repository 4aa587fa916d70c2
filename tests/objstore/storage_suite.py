"""What every storage driver must do: subclass :class:`StorageSuite` and give it a ``storage`` fixture.

::

    class TestMemory(StorageSuite):
        @pytest.fixture
        def storage(self) -> Storage:
            return MemoryStorage()
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cvmfs_objstore.errors import InvalidPath, ObjectNotFound
from cvmfs_objstore.storage import Storage

OBJECT = "data/ab/cdef0123456789abcdef0123456789abcdef01C"
BAD_PATHS = [
    "", "/", "/etc/passwd", "..", "../x", "data/../../x", "data/..", "./x", "data/./x", "data//x", "data/",
    "nul\0byte", "data/txn", "data/txn/x",
]  # fmt: skip


class StorageSuite:
    """The guarantees of :mod:`cvmfs_objstore.storage`, one test each."""

    put_again = 200
    """How many objects are put again while they are collected."""

    @pytest.fixture
    def storage(self) -> Storage:
        raise NotImplementedError("a subclass gives the empty storage to test")

    def test_write_creates_and_replaces(self, storage: Storage) -> None:
        storage.write(".cvmfspublished", b"one")
        assert storage.read(".cvmfspublished") == b"one"
        storage.write(".cvmfspublished", b"second")
        assert storage.read(".cvmfspublished") == b"second"
        assert storage.size(".cvmfspublished") == 6

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000])
    def test_contents_survive(self, storage: Storage, data: bytes) -> None:
        storage.write(OBJECT, data)
        assert storage.exists(OBJECT)
        assert storage.read(OBJECT) == data
        assert storage.size(OBJECT) == len(data)

    def test_folders_appear_on_demand(self, storage: Storage) -> None:
        for path in ("a/b/c/d", OBJECT, "stats/stats.db"):
            storage.write(path, b"1")
            assert storage.read(path) == b"1"
            assert storage.put(path + "2", b"2")
            with storage.stage() as staged:
                staged.write(b"3")
                staged.publish(path + "_/x")
            assert storage.read(path + "_/x") == b"3"

    def test_open_is_seekable(self, storage: Storage) -> None:
        storage.write(OBJECT, b"0123456789")
        with storage.open(OBJECT) as file:
            assert file.read(3) == b"012"
            assert file.seek(8) == 8
            assert file.read() == b"89"

    def test_an_open_file_keeps_its_content(self, storage: Storage) -> None:
        storage.write(".cvmfspublished", b"old")
        with storage.open(".cvmfspublished") as file:
            storage.write(".cvmfspublished", b"brand new")
            assert file.read() == b"old"

    def test_missing(self, storage: Storage) -> None:
        assert not storage.exists(OBJECT)
        for call in (storage.open, storage.read, storage.size, storage.modified):
            with pytest.raises(ObjectNotFound) as caught:
                call(OBJECT)
            assert caught.value.name == OBJECT
        storage.delete(OBJECT)

    def test_missing_of_many(self, storage: Storage) -> None:
        paths = [f"data/{number % 256:02x}/{number:038x}" for number in range(600)]
        for path in paths[::2]:
            storage.put(path, b"x")
        assert storage.missing(paths) == set(paths[1::2])
        assert storage.missing(paths[::2]) == set()
        assert storage.missing([]) == set()

    def test_a_folder_is_no_file(self, storage: Storage) -> None:
        storage.write(OBJECT, b"x")
        assert not storage.exists("data")
        for call in (storage.open, storage.read, storage.size, storage.modified):
            with pytest.raises(ObjectNotFound):
                call("data/ab")
            with pytest.raises(ObjectNotFound):
                call(OBJECT + "/below")
        assert not storage.exists(OBJECT + "/below")
        storage.delete(OBJECT + "/below")

    def test_put_writes_once(self, storage: Storage) -> None:
        assert storage.put(OBJECT, b"data") is True
        modified = storage.modified(OBJECT)
        assert storage.put(OBJECT, b"DATA") is False
        assert storage.read(OBJECT) == b"data"
        assert storage.modified(OBJECT) == modified

    def test_put_replaces_what_a_power_cut_cut_short(self, storage: Storage) -> None:
        for left in (b"", b"whole"):
            storage.write(OBJECT, left)
            assert storage.put(OBJECT, b"whole object") is True
            assert storage.read(OBJECT) == b"whole object"

    def test_put_of_nothing(self, storage: Storage) -> None:
        assert storage.put(OBJECT, b"") is True
        assert storage.put(OBJECT, b"") is False
        assert storage.read(OBJECT) == b""

    def test_staged_is_unseen_until_published(self, storage: Storage) -> None:
        with storage.stage() as staged:
            assert staged.write(b"abc") == 3
            assert staged.write(memoryview(b"def")) == 3
            assert staged.write(bytearray(b"")) == 0
            assert list(storage.list()) == []
            staged.publish(OBJECT)
            assert storage.read(OBJECT) == b"abcdef"
        assert list(storage.list()) == [OBJECT]

    def test_staged_replaces(self, storage: Storage) -> None:
        storage.write(OBJECT, b"old")
        with storage.stage() as staged:
            staged.write(b"new one")
            staged.publish(OBJECT)
        assert storage.read(OBJECT) == b"new one"

    def test_staged_discards(self, storage: Storage) -> None:
        with storage.stage() as staged:
            staged.write(b"abc")
        staged.discard()
        with pytest.raises(ValueError, match="closed"):
            staged.write(b"more")
        with pytest.raises(ValueError, match="closed"):
            staged.publish(OBJECT)
        published = storage.stage()
        published.publish(OBJECT)
        published.discard()
        assert list(storage.list()) == [OBJECT]
        assert storage.read(OBJECT) == b""
        assert storage.clean() == 0

    def test_staged_survives_a_bad_path(self, storage: Storage) -> None:
        with storage.stage() as staged:
            staged.write(b"abc")
            with pytest.raises(InvalidPath):
                staged.publish("../outside")
            staged.publish(OBJECT)
        assert storage.read(OBJECT) == b"abc"

    def test_delete(self, storage: Storage) -> None:
        storage.write(OBJECT, b"x")
        storage.delete(OBJECT)
        assert not storage.exists(OBJECT)
        assert list(storage.list("data")) == []

    def test_list(self, storage: Storage) -> None:
        paths = {".cvmfspublished", "data/ab/cd", "data/ab/ceC", "data/ff/00", "stats/stats.db", "database"}
        for path in paths:
            storage.write(path, b"x")
        staged = storage.stage()
        assert set(storage.list()) == paths
        assert set(storage.list("data")) == {"data/ab/cd", "data/ab/ceC", "data/ff/00"}
        assert set(storage.list("data/ab")) == {"data/ab/cd", "data/ab/ceC"}
        assert list(storage.list("nothing/here")) == []
        staged.discard()

    def test_list_while_deleting(self, storage: Storage) -> None:
        for n in range(20):
            storage.write(f"data/{n:02x}/{n}", b"x")
        for path in storage.list("data"):
            storage.delete(path)
        assert list(storage.list()) == []

    def test_modified_does_not_go_back(self, storage: Storage) -> None:
        storage.write(".cvmfspublished", b"1")
        first = storage.modified(".cvmfspublished")
        storage.write(".cvmfspublished", b"2")
        assert 1e9 < first <= storage.modified(".cvmfspublished")

    @pytest.mark.parametrize("path", BAD_PATHS)
    def test_bad_paths(self, storage: Storage, path: str) -> None:
        for call in (storage.open, storage.read, storage.exists, storage.size, storage.modified, storage.delete):
            with pytest.raises(InvalidPath):
                call(path)
        for write in (storage.write, storage.put):
            with pytest.raises(InvalidPath):
                write(path, b"x")
        if path:
            with pytest.raises(InvalidPath):
                list(storage.list(path))
        assert list(storage.list()) == []

    def test_names_of_any_bytes(self, storage: Storage) -> None:
        path = "dir/" + b"\xff\xfe name \xc3\xa9 ..x".decode("utf-8", "surrogateescape")
        storage.write(path, b"x")
        assert list(storage.list()) == [path]
        assert storage.read(path) == b"x"

    def test_sync_and_clean(self, storage: Storage) -> None:
        storage.write(OBJECT, b"x")
        storage.sync()
        assert storage.clean() == 0
        assert storage.read(OBJECT) == b"x"

    def test_threads_put_the_same_and_others(self, storage: Storage) -> None:
        barrier = threading.Barrier(8)

        def work(worker: int) -> int:
            barrier.wait()
            count = sum(storage.put(f"data/{n % 4:02x}/same{n}", b"%d" % n * 50) for n in range(40))
            storage.write(".cvmfspublished", b"%d" % worker * 1000)
            count += storage.put(f"data/ee/{worker}", b"own")
            return count

        with ThreadPoolExecutor(8) as pool:
            counts = list(pool.map(work, range(8)))
        assert 48 <= sum(counts) <= 8 * 41
        for n in range(40):
            assert storage.read(f"data/{n % 4:02x}/same{n}") == b"%d" % n * 50
        manifest = storage.read(".cvmfspublished")
        assert len(manifest) == 1000
        assert len(set(manifest)) == 1
        assert len(list(storage.list())) == 49

    def test_copies_are_independent(self, storage: Storage) -> None:
        storage.write(".cvmfsreflog", b"one")
        storage.copy(".cvmfsreflog", ".cvmfsreflog.previous")
        storage.write(".cvmfsreflog", b"two")
        assert storage.read(".cvmfsreflog.previous") == b"one"
        storage.copy(".cvmfsreflog", ".cvmfsreflog.previous")
        storage.copy(".cvmfsreflog", ".cvmfsreflog.previous")
        assert storage.read(".cvmfsreflog.previous") == b"two"
        assert sorted(storage.list()) == [".cvmfsreflog", ".cvmfsreflog.previous"]
        with pytest.raises(ObjectNotFound):
            storage.copy(".cvmfspublished", ".cvmfsreflog")

    def test_readers_see_whole_files(self, storage: Storage) -> None:
        storage.write(".cvmfspublished", b"0" * 5000)
        stop = threading.Event()
        torn: list[bytes] = []

        def read() -> None:
            while not stop.is_set():
                content = storage.read(".cvmfspublished")
                if len(content) != 5000 or len(set(content)) != 1:
                    torn.append(content)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for n in range(100):
                storage.write(".cvmfspublished", b"%d" % (n % 10) * 5000)
        finally:
            stop.set()
            reader.join()
        assert torn == []

    def test_now_is_in_the_time_of_files(self, storage: Storage) -> None:
        before = storage.now()
        storage.put(OBJECT, b"1234")
        assert before <= storage.modified(OBJECT) <= storage.now()

    def test_collect_takes_what_is_old(self, storage: Storage) -> None:
        folder, name = OBJECT.rsplit("/", 1)
        storage.put(OBJECT, b"1234")
        written = storage.modified(OBJECT)
        assert storage.collect(folder, [name], written) == [None]
        assert storage.collect(folder, [name], written + 1, pretend=True) == [4]
        assert storage.read(OBJECT) == b"1234"
        assert storage.collect(folder, iter([name, name + "x"]), written + 1) == [4, None]
        assert not storage.exists(OBJECT)
        assert storage.collect(folder, [name], written + 1) == [None]
        assert list(storage.list()) == []

    def test_collect_without_sizes(self, storage: Storage) -> None:
        """In a folder where something became young, and in one where nothing did."""
        old, new = OBJECT, OBJECT + "x"
        folder, name = old.rsplit("/", 1)
        for path in (old, new):
            self.make_old(storage, path, b"1234")
        storage.put(new, b"1234")
        limit = storage.modified(new)
        names = [name, name + "x", name + "y"]
        assert storage.collect(folder, names, limit, pretend=True, sizes=False) == [4, None, None]
        done = storage.collect(folder, names, limit, sizes=False)
        assert [size is not None for size in done] == [True, False, False]
        assert (storage.exists(old), storage.exists(new)) == (False, True)
        self.make_old(storage, new, b"1234")
        done = storage.collect(folder, names, limit, sizes=False)
        assert [size is not None for size in done] == [False, True, False]
        assert not storage.exists(new)

    def test_collect_where_there_is_nothing(self, storage: Storage) -> None:
        for sizes in (True, False):
            assert list(storage.collect("data/none", ["a", "b"], 1e12, sizes=sizes)) == [None, None]
            assert list(storage.collect("data", ["txn", "..", "."], 1e12, sizes=sizes)) == [None, None, None]

    def test_names(self, storage: Storage) -> None:
        folder, name = OBJECT.rsplit("/", 1)
        assert list(storage.names("data/none")) == []
        storage.put(OBJECT, b"1234")
        storage.put(OBJECT + "x", b"1234")
        assert sorted(storage.names(folder)) == [name, name + "x"]

    def test_touch(self, storage: Storage) -> None:
        assert not storage.touch(OBJECT)
        storage.put(OBJECT, b"1234")
        before = storage.modified(OBJECT)
        assert storage.touch(OBJECT)
        assert storage.modified(OBJECT) >= before

    @pytest.mark.parametrize("path", BAD_PATHS)
    def test_collect_and_touch_take_no_bad_path(self, storage: Storage, path: str) -> None:
        with pytest.raises(InvalidPath):
            storage.collect(path, ["name"], 1e12)
        with pytest.raises(InvalidPath):
            storage.names(path)
        with pytest.raises(InvalidPath):
            storage.touch(path)

    def test_collect_takes_no_bad_name(self, storage: Storage) -> None:
        storage.put(OBJECT, b"1234")
        for name in (f"../{OBJECT.removeprefix('data/')}", "a/b", "nul\0"):
            with pytest.raises(InvalidPath):
                storage.collect("data/ab", [name], 1e12)
        assert storage.exists(OBJECT)

    @pytest.mark.parametrize("sizes", [True, False])
    @pytest.mark.parametrize("again", [b"content", b"longer content"])
    def test_collecting_what_is_put_again(self, storage: Storage, sizes: bool, again: bytes) -> None:
        """Whatever a collector does meanwhile: an object that was put after its time limit is there."""
        limit = time.time() - 3600
        stop = threading.Event()
        folder = ["data/00"]

        def collect() -> None:
            while not stop.is_set():
                storage.collect(folder[0], ["object"], limit, sizes=sizes)

        paths = [f"data/{number:02x}/object" for number in range(self.put_again)]
        with ThreadPoolExecutor(2) as pool:
            collectors = [pool.submit(collect) for _ in range(2)]
            try:
                for path in paths:
                    folder[0] = path.rpartition("/")[0]
                    self.make_old(storage, path, b"content")
                    storage.put(path, again)
                    assert storage.exists(path)
            finally:
                stop.set()
            for collector in collectors:
                collector.result()
        assert all(storage.read(path) == again for path in paths)

    def make_old(self, storage: Storage, path: str, data: bytes) -> None:
        """Store a file, and make it and its folder so old that a collector would take it, where the driver can."""
        storage.put(path, data)
