"""Objects that are stored side by side."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cvmfs_objstore.hashes import Algorithm, ContentHash
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.puts import MOST_BYTES, MOST_OBJECTS, Puts

THREADS = 4


class SlowStorage(MemoryStorage):
    """Each put waits until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ThreadPoolExecutor(THREADS)
        self.through = threading.Semaphore(0)
        self.bad: set[str] = set()

    def close(self) -> None:
        assert self.pool is not None
        self.pool.shutdown()

    def put(self, path: str, data: bytes | bytearray | memoryview) -> bool:
        assert self.through.acquire(timeout=30)
        if path in self.bad:
            raise OSError(5, "no room")
        return super().put(path, data)


def name_of(data: bytes) -> ContentHash:
    return ContentHash.of(data, Algorithm.SHA1)


class Told(list[tuple[ContentHash, int, bool]]):
    def __call__(self, name: ContentHash, size: int, added: bool) -> None:
        self.append((name, size, added))


def test_directly() -> None:
    told, storage = Told(), MemoryStorage()
    puts = Puts(storage, told)
    for _ in range(2):
        puts.put(name_of(b"one"), b"one")
    staged = storage.stage()
    staged.write(b"large")
    puts.publish(name_of(b"large"), 5, staged)
    assert told == [(name_of(b"one"), 3, True), (name_of(b"one"), 3, False), (name_of(b"large"), 5, True)]
    puts.finish()


def test_side_by_side() -> None:
    """Puts return before anything is there, with memory that may be used again, and are told in order."""
    told, storage = Told(), SlowStorage()
    puts = Puts(storage, told)
    memory = bytearray(1)
    for number in range(THREADS):
        memory[:] = b"%d" % number
        puts.put(name_of(bytes(memory)), memoryview(memory))
    staged = storage.stage()
    staged.write(b"large")
    puts.publish(name_of(b"large"), 5, staged)
    assert told == []
    storage.through.release(THREADS)
    puts.finish()
    names = [name_of(b"%d" % number) for number in range(THREADS)]
    assert told == [*((name, 1, True) for name in names), (name_of(b"large"), 5, True)]
    assert storage.read(names[3].path) == b"3"
    storage.close()


def test_what_is_under_way_has_limits() -> None:
    for data, most in ((b"x" * (MOST_BYTES // 2), 2), (b"x", MOST_OBJECTS)):
        storage = SlowStorage()
        puts = Puts(storage, Told())
        for _ in range(most):
            puts.put(name_of(data), data)
        one_more = threading.Thread(target=puts.put, args=(name_of(data), data))
        one_more.start()
        one_more.join(0.05)
        assert one_more.is_alive()
        storage.through.release(most + 1)
        one_more.join()
        puts.finish()
        storage.close()


def test_what_goes_wrong_is_raised_to_who_stored_it() -> None:
    storage = SlowStorage()
    storage.bad.add(name_of(b"bad").path)
    mine, others = Puts(storage, Told()), Puts(storage, Told())
    mine.put(name_of(b"bad"), b"bad")
    others.put(name_of(b"good"), b"good")
    mine.put(name_of(b"good"), b"good")
    storage.through.release(3)
    others.finish()
    with pytest.raises(OSError, match="no room"):
        mine.finish()
    mine.abort()
    mine.finish()
    storage.close()


def test_given_up() -> None:
    told, storage = Told(), SlowStorage()
    puts = Puts(storage, told)
    for number in range(3 * THREADS):
        puts.put(name_of(b"%d" % number), b"%d" % number)
    storage.through.release(3 * THREADS)
    puts.abort()
    assert told == []
    puts.finish()
    storage.close()
