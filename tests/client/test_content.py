"""Contents of files, stored as the entry says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cvmfs_gw.client import content
from cvmfs_gw.client.content import LocalContent
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.formats.entry import storage_flags
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[ObjectStore]:
    with closing(LocalStorage.create(str(tmp_path / "store"), durable=False)) as storage:
        yield ObjectStore(storage)


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2000, 2001, 5000])
def test_contents(
    objects: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    algorithm: Algorithm,
    compression: Compression,
    size: int,
) -> None:
    monkeypatch.setattr(content, "CHUNKED_FROM", 1000)
    monkeypatch.setattr(content, "CHUNK_SIZE", 400)
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    stored = LocalContent(objects, algorithm, compression).store(str(path), size)
    assert stored.size == size
    assert stored.flags == storage_flags(algorithm, compression)
    if size <= 1000:
        assert stored.chunks == ()
        assert stored.hash is not None
        names = [ContentHash(stored.hash, algorithm)]
    else:
        assert stored.hash is None
        assert [chunk.offset for chunk in stored.chunks] == list(range(0, size, 400))
        assert all(chunk.size == min(400, size - chunk.offset) for chunk in stored.chunks)
        names = [ContentHash(chunk.hash, algorithm, Suffix.CHUNK) for chunk in stored.chunks]
    parts = [objects.get_plain(name, compression=compression) for name in names]
    assert b"".join(parts) == data
    assert set(objects.list()) == set(names)
    assert os.listdir(tmp_path / "store/data/txn") == []


@pytest.mark.parametrize(("looked", "real"), [(10, 5000), (5000, 10), (5000, 0), (2000, 3000)])
def test_file_that_changes_meanwhile(
    objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked: int, real: int
) -> None:
    """What was read counts, not what was seen before: size and content agree."""
    monkeypatch.setattr(content, "CHUNKED_FROM", 1000)
    monkeypatch.setattr(content, "CHUNK_SIZE", 400)
    data = os.urandom(real)
    path = tmp_path / "file"
    path.write_bytes(data)
    stored = LocalContent(objects, Algorithm.SHA1, Compression.ZLIB).store(str(path), looked)
    assert stored.size == real
    if stored.chunks:
        names = [ContentHash(chunk.hash, Algorithm.SHA1, Suffix.CHUNK) for chunk in stored.chunks]
    else:
        assert stored.hash is not None, "neither chunks nor a hash: nobody could read this"
        names = [ContentHash(stored.hash)]
    assert b"".join(map(objects.get_plain, names)) == data


def test_names_are_those_of_other_tools(objects: ObjectStore, tmp_path: Path) -> None:
    """Stock zlib, so that a file that any publisher stored has the same name here."""
    path = tmp_path / "file"
    path.write_bytes(b"two\n")
    stored = LocalContent(objects, Algorithm.SHA1, Compression.ZLIB).store(str(path), 4)
    assert stored.hash is not None
    # As the reference stored this content, see the catalog of tests/objstore/reference_databases.py.
    assert stored.hash.hex() == "460ba134fb83b29229ad241e9de6574e74f57c2b"
