"""Sweeping folders, in this process and by helpers: the same comes of it, and nobody gets in between."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_gw.care.digests import DigestSet
from cvmfs_gw.care.sweep import AT_ONCE, FolderSweep, Hand, Helper, Order, OwnHand, hands
from cvmfs_gw.engine.errors import StorageError
from cvmfs_gw.engine.locking import exclusive
from cvmfs_gw.paths import SystemPaths
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.memory import MemoryStorage
from tests.engine.trees import NOW

FOLDER = 0x4E
OLD = NOW - 1000
LONG = 1e6
NAMES = [
    ContentHash(bytes((FOLDER,)) + hashlib.sha1(b"%d" % number).digest()[1:], algorithm, suffix)
    for number, (algorithm, suffix) in enumerate((a, s) for a in Algorithm for s in Suffix)
]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    made = LocalStorage.create(str(tmp_path / "store"), durable=False)
    for name in NAMES:
        made.put(name.path, b"12345")
        os.utime(f"{made.root}/{name.path}", (OLD, OLD))
    return made


@pytest.fixture(params=["here", "helper"])
def hand(request: pytest.FixtureRequest, storage: LocalStorage) -> Iterator[Hand]:
    if request.param == "here":
        yield OwnHand(storage)
        return
    with closing(Helper(storage.root, 0, 2)) as helper:
        yield helper


def packed(*names: ContentHash) -> bytes:
    made = DigestSet()
    for name in names:
        made.add(name)
    return made.packed(FOLDER)


def found(hand: Hand, number: int, kept: bytes) -> int:
    hand.begin(number, kept)
    return hand.condemned()


def left(storage: LocalStorage) -> set[str]:
    return set(storage.names(f"data/{FOLDER:02x}"))


def test_removes_what_is_not_kept(storage: LocalStorage, hand: Hand) -> None:
    kept, young = NAMES[::3], NAMES[1]
    os.utime(f"{storage.root}/{young.path}", (NOW, NOW))
    folder = f"{storage.root}/data/{FOLDER:02x}"
    for foreign in ("notes", "x" * 38, NAMES[0].path[8:] + "Q"):
        Path(folder, foreign).touch()
        os.utime(f"{folder}/{foreign}", (OLD, OLD))
    os.mkdir(f"{folder}/{'0' * 38}")
    before = left(storage)
    assert found(hand, FOLDER, packed(*kept)) == len(NAMES) - len(kept) + 1
    for order in (Order(NOW - 10, LONG, pretend=True, listed=True), Order(NOW - 10, LONG, listed=True)):
        assert left(storage) == before
        found(hand, FOLDER, packed(*kept))
        hand.remove(order, None)
        removed = hand.removed()
        gone = {name for name in NAMES if name not in kept and name != young}
        assert {ContentHash.parse(f"{FOLDER:02x}{name}") for name, _ in removed.listed} == gone
        assert (removed.objects, removed.size, removed.left) == (len(gone), 5 * len(gone), 0)
        catalogs = {name for name in gone if name.suffix is Suffix.CATALOG}
        assert {ContentHash.parse(f"{FOLDER:02x}{name}") for name in removed.catalogs} == catalogs
    assert left(storage) == before - {name.path[8:] for name in gone}


def test_what_is_kept_later_stays(storage: LocalStorage, hand: Hand) -> None:
    assert found(hand, FOLDER, b"") == len(NAMES)
    hand.remove(Order(NOW, LONG, kept=packed(NAMES[5])), None)
    assert hand.removed().objects == len(NAMES) - 1
    assert left(storage) == {NAMES[5].path[8:]}


def test_stops_when_its_time_is_up(storage: LocalStorage) -> None:
    for number in range(2 * AT_ONCE):
        storage.put(f"data/{FOLDER:02x}/{number:038x}", b"x")
    sweep = FolderSweep(storage)
    total = sweep.begin(FOLDER, b"")
    turns = 1
    while sweep.remove(Order(1e12, 0)).left:
        turns += 1
    assert turns == -(-total // AT_ONCE)
    assert left(storage) == set()


def test_trouble_is_told(storage: LocalStorage, hand: Hand) -> None:
    """Of a folder that is a file, and of the next one there is nothing to tell."""
    os.rename(f"{storage.root}/data/03", f"{storage.root}/03")
    os.symlink("03", f"{storage.root}/data/03")  # to itself
    with pytest.raises(OSError, match="symbolic"):
        found(hand, 3, b"")
    assert found(hand, FOLDER, packed(*NAMES)) == 0


def test_helper_that_is_killed(storage: LocalStorage) -> None:
    with closing(Helper(storage.root, 0, 1)) as helper:
        found(helper, FOLDER, b"")
        os.kill(helper._process.pid, signal.SIGKILL)
        helper._process.wait()
        with pytest.raises(StorageError):
            found(helper, FOLDER, b"")


def test_helper_keeps_the_lock(storage: LocalStorage, tmp_path: Path) -> None:
    """Though whoever gave it the lock has let go, nobody else can change the repository before it is done."""
    paths, fqrn = SystemPaths(str(tmp_path / "root")), "lock.example.org"
    os.makedirs(os.path.dirname(paths.server_conf(fqrn)))
    folder = os.open(f"{storage.root}/data/{FOLDER:02x}", os.O_RDONLY)
    with closing(Helper(storage.root, 0, 1)) as helper:
        found(helper, FOLDER, b"")
        fcntl.flock(folder, fcntl.LOCK_SH)  # which makes the helper wait
        with exclusive(paths, fqrn) as lock:
            helper.remove(Order(NOW, LONG), lock)
        spool = os.open(paths.repository_spool(fqrn), os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(spool, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert len(left(storage)) == len(NAMES)
        os.close(folder)
        assert helper.removed().objects == len(NAMES)
        fcntl.flock(spool, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(spool)


def test_hands(storage: LocalStorage) -> None:
    with hands(storage) as crew:
        assert [type(hand) for hand in crew] == [OwnHand], "there is little to do"
    with hands(storage, 3) as crew:
        assert [type(hand) for hand in crew] == [Helper] * 3
    with hands(MemoryStorage(), 3) as crew:
        assert [type(hand) for hand in crew] == [OwnHand]
