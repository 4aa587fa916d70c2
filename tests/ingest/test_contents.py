"""Contents become objects: the right ones, whoever does the work and in whatever order."""

from __future__ import annotations

import io
import itertools
import os
import random
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_gw.ingest import contents as module
from cvmfs_gw.ingest.contents import ContentOptions, Contents, StoredContent
from cvmfs_gw.ingest.items import Content, LocalFile
from cvmfs_objstore.chunking import Chunker
from cvmfs_objstore.chunksizes import ChunkSizes
from cvmfs_objstore.compression import Compression
from cvmfs_objstore.formats.entry import storage_algorithm, storage_flags
from cvmfs_objstore.hashes import Algorithm, ContentHash, Suffix
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.memory import MemoryStorage
from cvmfs_objstore.objects import ObjectStore

SIZES = ChunkSizes(500, 800, 1000)
NOISE = random.Random(1).randbytes(20_000)
MANY = [NOISE[at : at + size] for at, size in itertools.product(range(5), (0, 1, 100, 499, 500, 501, 1000, 1001, 7000))]


def names_of(stored: StoredContent) -> list[ContentHash]:
    algorithm = storage_algorithm(stored.flags)
    if stored.hash is not None:
        assert stored.chunks == ()
        return [ContentHash(stored.hash, algorithm)]
    assert len(stored.chunks) > 1
    return [ContentHash(chunk.hash, algorithm, Suffix.CHUNK) for chunk in stored.chunks]


def read_back(storage: MemoryStorage | LocalStorage, stored: StoredContent, compression: Compression) -> bytes:
    """The content, from verified objects."""
    objects = ObjectStore(storage)
    parts = [objects.get_plain(name, compression=compression) for name in names_of(stored)]
    assert [chunk.size for chunk in stored.chunks] == [len(part) for part in parts][: len(stored.chunks)]
    assert [chunk.offset for chunk in stored.chunks] == [0, *itertools.accumulate(map(len, parts))][
        : len(stored.chunks)
    ]
    data = b"".join(parts)
    assert stored.size == len(data)
    return data


def forms(data: bytes, folder: Path) -> list[Content]:
    """The same content in every form that it can have."""
    path = folder / str(len(list(folder.iterdir())))
    path.write_bytes(data)
    return [data, LocalFile(str(path)), io.BytesIO(data)]


OPTIONS = [
    ContentOptions(algorithm, compression, chunks, fast)
    for algorithm, compression, chunks, fast in itertools.product(
        (Algorithm.SHA1, Algorithm.SHAKE128), Compression, (SIZES, None), (False, True)
    )
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_everything_comes_back(options: ContentOptions, threads: int, tmp_path: Path) -> None:
    storage = MemoryStorage()
    with Contents(storage, options, threads=threads) as contents:
        added = [(data, contents.add(form, len(data))) for data in MANY for form in forms(data, tmp_path)]
        contents.finish()
    for data, stored in added:
        assert read_back(storage, stored, options.compression) == data
        assert stored.flags == storage_flags(options.algorithm, options.compression)
        assert bool(stored.chunks) is bool(options.chunks and len(data) > 500 and cuts(data))
    # No object but those that are named.
    assert set(ObjectStore(storage).list()) == {name for _, stored in added for name in names_of(stored)}


def cuts(data: bytes) -> list[int]:
    return [cut for cut in Chunker(SIZES).feed(data) if cut < len(data)]


def test_stock_names() -> None:
    """Other tools give the same names: of zlib's stream at level 6, however large the file."""
    data = os.urandom(3000) * 1500
    storage = MemoryStorage()
    with Contents(storage, ContentOptions(chunks=None)) as contents:
        one, other = contents.add(data[:3000], 3000), contents.add(io.BytesIO(data * 2), len(data) * 2)
        contents.finish()
    assert one.hash == ContentHash.of(zlib.compress(data[:3000], 6)).digest
    assert other.hash == ContentHash.of(zlib.compress(data * 2, 6)).digest


def test_chunks_too_long_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are stored as they are read, under the same names."""
    found = []
    for buffered in (module.BUFFERED, 999):
        monkeypatch.setattr(module, "BUFFERED", buffered)
        storage = MemoryStorage()
        with Contents(storage, ContentOptions(chunks=SIZES)) as contents:
            added = [contents.add(data, len(data)) for data in MANY]
            contents.finish()
        found.append([names_of(stored) for stored in added])
        assert [read_back(storage, stored, Compression.ZLIB) for stored in added] == MANY
    assert found[0] == found[1]


def test_known_objects_are_not_stored() -> None:
    storage = MemoryStorage()
    with Contents(storage, ContentOptions(chunks=SIZES)) as contents:
        first = [contents.add(data, len(data)) for data in (b"small", NOISE)]
        contents.finish()
        known = frozenset(name.path for stored in first for name in names_of(stored))
    other = MemoryStorage()
    with Contents(other, ContentOptions(chunks=SIZES)) as contents:
        again = [contents.add(data, len(data), known) for data in (b"small", NOISE)]
        more = contents.add(NOISE + b"more", len(NOISE) + 4, known)
        contents.finish()
    assert [names_of(stored) for stored in again] == [names_of(stored) for stored in first]
    assert {name.path for name in ObjectStore(other).list()} == {name.path for name in names_of(more)} - known


@pytest.mark.parametrize("size", [100, 5000])
def test_files_that_change_meanwhile(tmp_path: Path, size: int) -> None:
    """Of one that grew what it was; of one that shrank what is left."""
    path = tmp_path / "f"
    storage = MemoryStorage()
    with Contents(storage, ContentOptions(chunks=SIZES)) as contents:
        for there in (NOISE, NOISE[: size // 2], b""):
            path.write_bytes(there)
            stored = contents.add(LocalFile(str(path)), size)
            contents.finish()
            assert read_back(storage, stored, Compression.ZLIB) == there[:size]


def test_missing_file(tmp_path: Path) -> None:
    with Contents(MemoryStorage()) as contents:
        contents.add(LocalFile(str(tmp_path / "missing")), 5)
        with pytest.raises(FileNotFoundError):
            contents.finish()
        with pytest.raises(FileNotFoundError):
            contents.finish()


def test_symbolic_link_in_place_of_a_file(tmp_path: Path) -> None:
    """What was looked at was a file; nothing else is followed."""
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "l").symlink_to("f")
    with Contents(MemoryStorage()) as contents:
        contents.add(LocalFile(str(tmp_path / "l")), 1)
        with pytest.raises(OSError, match="symbolic links"):
            contents.finish()


@pytest.mark.parametrize("chunks", [SIZES, None])
@pytest.mark.parametrize("size", [10, 9 << 20])
def test_a_storage_that_refuses(size: int, chunks: ChunkSizes | None) -> None:
    class Full(MemoryStorage):
        def put(self, path: str, data: bytes | bytearray | memoryview) -> bool:
            raise OSError(28, "no space")

        def write(self, path: str, data: bytes) -> None:
            raise OSError(28, "no space")

    def work(contents: Contents) -> None:
        for _ in range(1000):
            contents.add(bytes(size), size)
        contents.finish()

    options = ContentOptions(compression=Compression.NONE, chunks=chunks)
    with Contents(Full(), options) as contents, pytest.raises(OSError, match="no space"):
        work(contents)


def test_a_stream_that_fails(tmp_path: Path) -> None:
    """Nothing is left staged."""

    class Broken:
        def read(self, size: int) -> bytes:
            raise OSError(5, "broken")

    with LocalStorage_at(tmp_path) as storage, Contents(storage, ContentOptions(chunks=None)) as contents:
        with pytest.raises(OSError, match="broken"):
            contents.add(Broken(), 9 << 20)
        assert list((tmp_path / "data/txn").iterdir()) == []


class LocalStorage_at:
    def __init__(self, folder: Path) -> None:
        self._storage = LocalStorage.create(str(folder), durable=False)

    def __enter__(self) -> LocalStorage:
        return self._storage

    def __exit__(self, *_: object) -> None:
        self._storage.close()


def test_memory_is_bounded() -> None:
    """What waits for a slow storage is never more than it may be, beside the piece that is handed over."""
    waiting = threading.Lock()
    seen: list[int] = []
    held = 0

    class Slow(MemoryStorage):
        def put(self, path: str, data: bytes | bytearray | memoryview) -> bool:
            nonlocal held
            with waiting:
                seen.append(held)
                held -= len(data)
            return True

    options = ContentOptions(compression=Compression.NONE, chunks=ChunkSizes(100_000, 150_000, 200_000))
    with Contents(Slow(), options, threads=2, in_flight=1_000_000) as contents:
        for number in range(400):
            size = 50_000 if number % 2 else 300_000
            with waiting:
                held += size
            contents.add(bytes(size), size)
        contents.finish()
    assert held == 0
    # Beside what may wait: one batch of small files, and what was counted before it was handed over.
    assert max(seen) <= 1_000_000 + module._BATCH_BYTES + 2 * 300_000


@given(st.lists(st.integers(0, 3000), max_size=30), st.integers(1, 4), st.sampled_from([None, SIZES]))
@settings(max_examples=40, deadline=None)
def test_any_order_gives_the_same(sizes: list[int], threads: int, chunks: ChunkSizes | None) -> None:
    def names(order: list[int]) -> dict[int, list[ContentHash]]:
        with Contents(MemoryStorage(), ContentOptions(chunks=chunks), threads=threads) as contents:
            added = {size: contents.add(NOISE[size : 2 * size], size) for size in order}
            contents.finish()
        return {size: names_of(stored) for size, stored in added.items()}

    assert names(sizes) == names(sizes[::-1])


def test_progress() -> None:
    told: list[int] = []
    with Contents(MemoryStorage(), ContentOptions(chunks=SIZES), progress=told.append) as contents:
        for data in MANY:
            contents.add(data, len(data))
        contents.finish()
    assert sum(told) == sum(map(len, MANY))
