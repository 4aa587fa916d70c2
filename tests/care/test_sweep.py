"""Sweeping folders, in this process and by helpers: the same comes of it, and nobody gets in between."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_gw.care.digests import FOLDERS, DigestSet
from cvmfs_gw.care.sweep import (
    AT_ONCE,
    HELD,
    Folders,
    FolderSweep,
    Hand,
    Helper,
    Kept,
    Order,
    OwnHand,
    _objects,
    hands,
)
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


def packed(*names: ContentHash) -> dict[int, bytes]:
    made = DigestSet()
    for name in names:
        made.add(name)
    return {FOLDER: made.packed(FOLDER)}


def found(hand: Hand, kept: Kept) -> bool:
    hand.begin(kept)
    return hand.condemned()


def age_folder(storage: LocalStorage) -> None:
    os.utime(f"{storage.root}/data/{FOLDER:02x}", (OLD, OLD))


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
    pretend = Order(NOW - 10, LONG, pretend=True, sizes=True, listed=True)
    for order in (pretend, replace(pretend, pretend=False)):
        assert left(storage) == before
        assert found(hand, packed(*kept))
        hand.remove(order, None)
        removed = hand.removed()
        gone = {name for name in NAMES if name not in kept and name != young}
        assert {ContentHash.parse(name) for name in removed.listed} == gone
        assert (removed.objects, removed.size, removed.left) == (len(gone), 5 * len(gone), False)
        catalogs = {name for name in gone if name.suffix is Suffix.CATALOG}
        assert {ContentHash.parse(name) for name in removed.catalogs} == catalogs
    assert left(storage) == before - {name.path[8:] for name in gone}
    assert found(hand, packed(*kept)), "the young one"


def test_removes_without_looking(storage: LocalStorage, hand: Hand) -> None:
    """In a folder where nothing happened of late, nobody asks for the age of each."""
    kept = NAMES[::3]
    folder = f"{storage.root}/data/{FOLDER:02x}"
    os.mkdir(f"{folder}/{'0' * 38}")
    age_folder(storage)
    assert found(hand, packed(*kept))
    hand.remove(Order(NOW - 10, LONG, listed=True), None)
    removed = hand.removed()
    gone = {name for name in NAMES if name not in kept}
    assert {ContentHash.parse(name) for name in removed.listed} == gone
    assert (removed.objects, removed.size, removed.left) == (len(gone), 0, False)
    assert left(storage) == {"0" * 38} | {name.path[8:] for name in kept}


def test_what_is_touched_after_it_was_listed_stays(storage: LocalStorage, hand: Hand) -> None:
    age_folder(storage)
    assert found(hand, {FOLDER: b""})
    assert storage.touch(NAMES[4].path)
    hand.remove(Order(NOW, LONG), None)
    assert hand.removed().objects == len(NAMES) - 1
    assert left(storage) == {NAMES[4].path[8:]}


def test_what_is_kept_later_stays(storage: LocalStorage, hand: Hand) -> None:
    assert found(hand, {FOLDER: b""})
    hand.remove(Order(NOW, LONG, kept=packed(NAMES[5])), None)
    assert hand.removed().objects == len(NAMES) - 1
    assert left(storage) == {NAMES[5].path[8:]}


@pytest.mark.parametrize("sizes", [True, False])
def test_several_folders(storage: LocalStorage, hand: Hand, sizes: bool) -> None:
    other = f"data/{FOLDER + 1:02x}/{'1' * 38}"
    storage.put(other, b"123")
    os.utime(f"{storage.root}/{other}", (OLD, OLD))
    age_folder(storage)
    assert found(hand, packed(NAMES[0]) | {FOLDER + 1: b"", FOLDER + 2: b""})
    hand.remove(Order(NOW, LONG, sizes=sizes, listed=True), None)
    removed = hand.removed()
    assert removed.objects == len(NAMES)
    assert removed.size == (5 * (len(NAMES) - 1) + 3 if sizes else 3), "where something is young, all are looked at"
    assert other[5:].replace("/", "") in removed.listed
    assert left(storage) == {NAMES[0].path[8:]}
    assert not storage.exists(other)


def test_stops_when_its_time_is_up(storage: LocalStorage) -> None:
    for number in range(2 * AT_ONCE):
        storage.put(f"data/{FOLDER:02x}/{number:038x}", b"x")
    sweep = FolderSweep(storage)
    assert sweep.begin({FOLDER: b""})
    total, turns = len(left(storage)), 1
    while sweep.remove(Order(1e12, 0)).left:
        turns += 1
    assert turns == -(-total // AT_ONCE)
    assert left(storage) == set()


def test_trouble_is_told(storage: LocalStorage, hand: Hand) -> None:
    """Of a folder that is a file, and of the next one there is nothing to tell."""
    os.rename(f"{storage.root}/data/03", f"{storage.root}/03")
    os.symlink("03", f"{storage.root}/data/03")  # to itself
    with pytest.raises(OSError, match="symbolic"):
        found(hand, {3: b""})
    assert not found(hand, packed(*NAMES))


def test_helper_that_is_killed(storage: LocalStorage) -> None:
    with closing(Helper(storage.root, 0, 1)) as helper:
        found(helper, {FOLDER: b""})
        os.kill(helper._process.pid, signal.SIGKILL)
        helper._process.wait()
        with pytest.raises(StorageError):
            found(helper, {FOLDER: b""})


def test_helper_keeps_the_lock(storage: LocalStorage, tmp_path: Path) -> None:
    """Though whoever gave it the lock has let go, nobody else can change the repository before it is done."""
    paths, fqrn = SystemPaths(str(tmp_path / "root")), "lock.example.org"
    os.makedirs(os.path.dirname(paths.server_conf(fqrn)))
    folder = os.open(f"{storage.root}/data/{FOLDER:02x}", os.O_RDONLY)
    with closing(Helper(storage.root, 0, 1)) as helper:
        found(helper, {FOLDER: b""})
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
    with hands(storage) as (crew, _):
        assert [type(hand) for hand in crew] == [OwnHand], "there is little to do"
    with hands(storage, 3) as (crew, _):
        assert [type(hand) for hand in crew] == [Helper] * 3
    with hands(MemoryStorage(), 3) as (crew, _):
        assert [type(hand) for hand in crew] == [OwnHand]


@given(st.integers(1, 4), st.integers(0, 2 * HELD), st.randoms())
def test_every_folder_is_given_out_once(crew: int, names: int, random: Random) -> None:
    folders, given_out = Folders(crew, names), []
    waiting = set(range(crew))
    while waiting:
        hand = random.choice(sorted(waiting))
        taken = folders.take(hand)
        assert len(taken) * names <= max(HELD, names)
        given_out += taken
        if not taken:
            waiting.remove(hand)
    assert sorted(given_out) == list(range(FOLDERS))


def test_first_those_that_are_listed_ahead() -> None:
    folders = Folders(2, HELD // 100)
    assert folders.take(1) == list(range(1, 200, 2))
    assert folders.take(1) == list(range(201, 256, 2))
    assert folders.take(1) == list(range(0, 200, 2)), "those of another one, who has not come to them"


NOT_OBJECTS = ["notes", "x" * 38, "A" * 38, "a" * 37, "a" * 39, "a" * 37 + "\udcff", "a" * 38 + "Q"]
OBJECTS = ["0a" * 19, "b" * 38, "c" * 38 + "C", "d" * 38 + "-rmd160", "e" * 38 + "-shake128P"]


@pytest.mark.parametrize("others", [[], NOT_OBJECTS, *([name] for name in NOT_OBJECTS)])
def test_objects_by_their_names(others: list[str]) -> None:
    assert sorted(_objects(OBJECTS + others)) == OBJECTS
