"""The content-addressed store: names vouch for bytes."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_objstore.compression import Compression, deflate, deflate_fast
from cvmfs_objstore.errors import ObjectCorrupt, ObjectNotFound, ObjectTooLarge
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.objects import ObjectStore

EMPTY = "data/e8/ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"
"""Where every tool stores the empty file: the SHA-1 of an empty zlib stream of level 6."""


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore(MemoryStorage())


def test_layout(store: ObjectStore) -> None:
    name = store.add(b"", Algorithm.SHA1, deflate=deflate)
    assert list(store.storage.list()) == [EMPTY]
    assert store.storage.read(EMPTY) == bytes.fromhex("789c030000000001")
    assert store.get_plain(name) == b""


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("suffix", [Suffix.NONE, Suffix.CATALOG, Suffix.CHUNK])
@pytest.mark.parametrize("encode", [deflate, deflate_fast])
def test_add_and_get(store: ObjectStore, algorithm: Algorithm, suffix: Suffix, encode: object) -> None:
    data = b"some content " * 100
    name = store.add(data, algorithm, suffix, deflate=deflate)
    assert (name.algorithm, name.suffix) == (algorithm, suffix)
    stored = store.get(name)
    assert ContentHash.of(stored, algorithm, suffix) == name
    assert store.size(name) == store.verify(name) == len(stored)
    assert store.get_plain(name, max_size=len(data)) == data
    with store.open(name) as file:
        assert file.read() == stored
    assert store.has(name)
    assert list(store.list()) == [name]
    store.delete(name)
    assert not store.has(name)
    store.delete(name)


@given(st.binary(max_size=3000), st.sampled_from(Compression))
def test_plain_round_trip(data: bytes, compression: Compression) -> None:
    store = ObjectStore(MemoryStorage())
    name = store.add(data, Algorithm.SHA1, deflate=compression.encode)
    assert store.get_plain(name, max_size=len(data), compression=compression) == data
    out = io.BytesIO()
    assert store.get_plain_to(name, out, max_size=len(data), compression=compression) == len(data)
    assert out.getvalue() == data


def test_put_says_whether_it_wrote(store: ObjectStore) -> None:
    name = ContentHash.of(b"abc")
    assert store.put(name, b"abc") is True
    assert store.put(name, b"abc") is False
    assert store.get(name) == b"abc"


def test_missing(store: ObjectStore) -> None:
    name = ContentHash.of(b"abc")
    assert not store.has(name)
    for call in (store.get, store.get_plain, store.open, store.size, store.verify):
        with pytest.raises(ObjectNotFound):
            call(name)
    with pytest.raises(ObjectNotFound):
        store.get_plain_to(name, io.BytesIO(), max_size=1)


def test_corrupt(store: ObjectStore) -> None:
    name = ContentHash.of(deflate(b"right"))
    store.put(name, deflate(b"wrong"))
    for call in (store.get, store.get_plain, store.verify):
        with pytest.raises(ObjectCorrupt, match=str(name)):
            call(name)
    with pytest.raises(ObjectCorrupt):
        store.get_plain_to(name, io.BytesIO(), max_size=100)


def test_right_hash_but_not_zlib(store: ObjectStore) -> None:
    name = ContentHash.of(b"plain")
    store.put(name, b"plain")
    assert store.get(name) == b"plain"
    with pytest.raises(ObjectCorrupt, match=str(name)):
        store.get_plain(name)


def test_limits(store: ObjectStore) -> None:
    name = store.add(bytes(10_000_000), Algorithm.SHA1, deflate=deflate)
    with pytest.raises(ObjectTooLarge, match=str(name)):
        store.get_plain(name, max_size=9_999_999)
    with pytest.raises(ObjectTooLarge):
        store.get(name, max_size=store.size(name) - 1)
    assert len(store.get(name, max_size=store.size(name))) == store.size(name)
    out = io.BytesIO()
    with pytest.raises(ObjectTooLarge):
        store.get_plain_to(name, out, max_size=1000)
    assert len(out.getvalue()) <= 1000


def test_list_skips_what_is_no_object(store: ObjectStore) -> None:
    name = store.add(b"x", Algorithm.RMD160, Suffix.CATALOG, deflate=deflate)
    for path in ("data/ab/README", "data/file", "data/ab/cd/" + "e" * 36, ".cvmfspublished", "data/a/" + "b" * 39):
        store.storage.write(path, b"")
    assert list(store.list()) == [name]


def test_threads_add_the_same_object(tmp_path: Path) -> None:
    store = ObjectStore(LocalStorage(str(tmp_path), durable=False))
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda n: store.add(b"%d" % (n % 5), Algorithm.SHA1, deflate=deflate), range(200)))
    assert len(names) == 5
    assert set(store.list()) == names
    assert sorted(store.get_plain(name) for name in names) == [b"0", b"1", b"2", b"3", b"4"]
