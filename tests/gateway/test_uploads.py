from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cvmfs_gw.engine.commit_api import UploadStatistics
from cvmfs_gw.gateway.errors import BadPack, PackTooLarge, StoreFailure
from cvmfs_gw.gateway.packs import PackReceiver
from cvmfs_gw.gateway.uploads import receive
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.objects import ObjectStore
from tests.gateway.support import digest_of, pack, staged

SMALL = [random.Random(n).randbytes(n % 700) for n in range(200)]
LARGE = [random.Random(n).randbytes(1_500_000 + n) for n in range(3)]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def receiver(store: ObjectStore, header: bytes, **options: Any) -> PackReceiver:
    return PackReceiver(store, digest_of(header), len(header), **options)


def test_everything_lands_where_it_belongs(store: ObjectStore) -> None:
    header, body = pack([*SMALL, *LARGE])
    taking = receiver(store, header)
    taking.feed([header, body])
    brought = taking.finish()
    expected = {ContentHash.of(data) for data in [*SMALL, *LARGE]}
    assert set(store.list()) == expected
    assert (brought.objects_added, brought.objects_duplicated) == (len(expected), 0)
    assert brought.bytes_added == sum(len(data) for data in {*SMALL, *LARGE})
    assert not staged(store)


def test_what_is_there_is_not_written_again(store: ObjectStore) -> None:
    header, body = pack([SMALL[50], LARGE[0]])
    for _ in range(2):
        taking = receiver(store, header)
        taking.feed([header, body])
        brought = taking.finish()
    assert brought == UploadStatistics(objects_duplicated=2)


def test_a_file_that_a_power_cut_shortened_is_written_again(store: ObjectStore) -> None:
    header, body = pack([SMALL[50], LARGE[0]])
    for name in map(ContentHash.of, [SMALL[50], LARGE[0]]):
        store.storage.write(name.path, b"short")
    taking = receiver(store, header)
    taking.feed([header, body])
    assert taking.finish().objects_added == 2
    for name in store.list():
        store.verify(name)


@pytest.mark.parametrize("step", [1, 1000, 1_000_003])
def test_any_pieces(store: ObjectStore, step: int) -> None:
    objects = SMALL[:20] if step == 1 else [*SMALL, *LARGE]
    header, body = pack(objects, Suffix.CHUNK)
    whole = header + body
    taking = receiver(store, header)
    taking.feed(whole[at : at + step] for at in range(0, len(whole), step))
    taking.finish()
    assert set(store.list()) == {ContentHash.of(data, suffix=Suffix.CHUNK) for data in objects}


def test_a_bad_object_is_not_stored_and_leaves_nothing(store: ObjectStore) -> None:
    header, body = pack([SMALL[100], LARGE[0], SMALL[101]])
    taking = receiver(store, header)
    broken = bytearray(body)
    broken[1_000_000] ^= 1
    with pytest.raises(BadPack):
        taking.feed([header, bytes(broken)])
    taking.abort()
    assert set(store.list()) <= {ContentHash.of(SMALL[100])}
    assert not staged(store)


def test_an_abort_in_the_middle(store: ObjectStore) -> None:
    header, body = pack([LARGE[0]])
    taking = receiver(store, header)
    taking.feed([header, body[:1_200_000]])
    assert staged(store)
    with pytest.raises(BadPack, match="ends early"):
        taking.finish()
    taking.abort()
    taking.abort()
    assert not staged(store)
    assert not list(store.list())


def test_limits(store: ObjectStore) -> None:
    header, body = pack([b"x" * 100])
    with pytest.raises(PackTooLarge):
        receiver(store, header, max_size=99).feed([header, body])
    receiver(store, header, max_size=100).feed([header, body])
    for size in (0, -1, 10_000_001):
        with pytest.raises(BadPack):
            PackReceiver(store, digest_of(header), size)
    for digest in ("", "x", "0" * 41, "0" * 40 + "C"):
        with pytest.raises(BadPack):
            PackReceiver(store, digest, len(header))


def test_storage_trouble(store: ObjectStore, tmp_path: Path) -> None:
    header, body = pack([b"x"])
    taking = receiver(store, header)
    (tmp_path / "repo").rename(tmp_path / "gone")
    with pytest.raises(StoreFailure, match="No such file"):
        taking.feed([header, body])


# --- the pipeline -----------------------------------------------------------------------------------------------


async def chunked(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]
        await asyncio.sleep(0)


@pytest.mark.parametrize("batch_size", [1, 10_000, 10_000_000])
async def test_the_pipeline(store: ObjectStore, threads: ThreadPoolExecutor, batch_size: int) -> None:
    header, body = pack([*SMALL, *LARGE])
    brought = await receive(chunked(header + body, 5_000), receiver(store, header), threads, batch_size=batch_size)
    assert brought.objects_added == len({*SMALL, *LARGE})


class Watched(PackReceiver):
    """A receiver that stops in its second call until it is let go, and sees how many run at once."""

    gate = threading.Event()
    entered = threading.Event()
    calls = 0
    inside = 0
    aborted = False

    def feed(self, chunks: object) -> None:
        self.calls += 1
        self.inside += 1
        assert self.inside == 1
        if self.calls == 2:
            self.entered.set()
            assert self.gate.wait(20)
        super().feed(chunks)  # type: ignore[arg-type]
        self.inside -= 1

    def abort(self) -> None:
        assert self.inside == 0
        self.aborted = True
        super().abort()


@pytest.fixture
def watched(store: ObjectStore) -> tuple[Watched, bytes]:
    header, body = pack(LARGE)
    taking = Watched(store, digest_of(header), len(header))
    taking.gate, taking.entered = threading.Event(), threading.Event()
    return taking, header + body


async def test_backpressure(watched: tuple[Watched, bytes], threads: ThreadPoolExecutor) -> None:
    taking, whole = watched
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        async for chunk in chunked(whole, 10_000):
            read += len(chunk)
            yield chunk

    upload = asyncio.create_task(receive(chunks(), taking, threads, batch_size=100_000))
    await asyncio.to_thread(taking.entered.wait, 20)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert read == 400_000  # one batch stored, one in the thread, two waiting
    taking.gate.set()
    assert (await upload).objects_added == 3


async def test_cancellation_waits_for_the_thread(
    watched: tuple[Watched, bytes], threads: ThreadPoolExecutor, store: ObjectStore
) -> None:
    taking, whole = watched
    upload = asyncio.create_task(receive(chunked(whole, 10_000), taking, threads, batch_size=1_000_000))
    await asyncio.to_thread(taking.entered.wait, 20)
    upload.cancel()
    for _ in range(100):
        await asyncio.sleep(0)
    assert not upload.done()
    taking.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert taking.aborted
    assert not staged(store)


async def test_a_body_that_breaks(store: ObjectStore, threads: ThreadPoolExecutor) -> None:
    header, body = pack(LARGE)

    async def breaking() -> AsyncIterator[bytes]:
        yield header + body[:2_500_000]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await receive(breaking(), receiver(store, header), threads, batch_size=1)
    assert not staged(store)
