from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from cvmfs_gw.engine.commit_api import UploadedObjects
from cvmfs_gw.gateway.blocks import BLOCK, BlockReader, Blocks
from cvmfs_gw.gateway.errors import BadPack, PackTooLarge, PayloadError, StoreFailure
from cvmfs_gw.gateway.storer import End, Order, Storer
from cvmfs_gw.gateway.storers import Storers, Upload
from cvmfs_gw.gateway.uploads import UNFINISHED
from cvmfs_objstore.hashes import ContentHash, Suffix
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.objects import ObjectStore
from tests.gateway.support import digest_of, pack, staged, until

SMALL = [random.Random(n).randbytes(n * 7 % 5000) for n in range(1000)]
LARGE = [random.Random(n).randbytes(1_500_000 + n) for n in range(5)]


@pytest.fixture
def blocks() -> Iterator[Blocks]:
    blocks = Blocks()
    yield blocks
    blocks.close()


@pytest.fixture
async def storers(blocks: Blocks) -> AsyncIterator[Storers]:
    storers = Storers(blocks, 2)
    storers.wake()
    await storers.started()
    yield storers
    await storers.close()


def begin(
    storers: Storers, store: ObjectStore, header: bytes, max_size: int = 1 << 30, most: int = 10_000
) -> tuple[Upload, UploadedObjects]:
    assert store.storage.opener is not None
    uploaded = UploadedObjects(most)
    upload = storers.begin(store.storage.opener, digest_of(header), len(header), max_size, uploaded)
    assert upload is not None
    return upload, uploaded


async def chunked(data: bytes, size: int = 300_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def in_blocks(blocks: Blocks, data: bytes) -> AsyncIterator[memoryview]:
    """As a body is read: into a few blocks that are used again and again."""
    mine = [blocks.take() for _ in range(UNFINISHED + 1)]
    for number, at in enumerate(range(0, len(data), BLOCK)):
        block, length = mine[number % len(mine)], min(BLOCK, len(data) - at)
        block[:length] = data[at : at + length]
        yield block[:length]
    for block in mine:
        blocks.give(block)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_pack_is_divided(store: ObjectStore, storers: Storers, blocks: Blocks, shared: bool) -> None:
    header, body = pack([*SMALL, *LARGE])
    upload, uploaded = begin(storers, store, header)
    assert len(upload.shares) == 2
    brought = await upload.receive(in_blocks(blocks, header + body) if shared else chunked(header + body))
    expected = {ContentHash.of(data) for data in [*SMALL, *LARGE]}
    assert set(store.list()) == expected
    for name in expected:
        store.verify(name)
    assert brought.objects_added == upload.objects == len(expected)
    assert brought.bytes_added == sum(len(data) for data in {*SMALL, *LARGE})
    assert upload.received == len(header) + len(body)
    assert all(share.objects > 100 for share in upload.shares)
    assert uploaded.digests(next(iter(expected)).algorithm) == {name.digest for name in expected}
    assert not staged(store)


async def test_catalogs_are_told(store: ObjectStore, storers: Storers) -> None:
    header, body = pack(SMALL[1:8], Suffix.CATALOG)
    upload, _ = begin(storers, store, header)
    brought = await upload.receive(chunked(header + body))
    assert set(upload.catalogs) == {ContentHash.of(data, suffix=Suffix.CATALOG) for data in SMALL[1:8]}
    assert brought.catalogs_added == 7


async def test_packs_side_by_side(store: ObjectStore, storers: Storers) -> None:
    packs = [pack(SMALL[at::3]) for at in range(3)]
    uploads = [begin(storers, store, header)[0] for header, _ in packs]
    assert sorted(len(upload.shares) for upload in uploads) == [1, 1, 2]
    await asyncio.gather(
        *(upload.receive(chunked(header + body)) for upload, (header, body) in zip(uploads, packs, strict=True))
    )
    assert set(store.list()) == {ContentHash.of(data) for data in SMALL}


async def test_only_so_many_names(store: ObjectStore, storers: Storers) -> None:
    header, body = pack(SMALL)
    upload, uploaded = begin(storers, store, header, most=10)
    await upload.receive(chunked(header + body))
    assert 10 <= len(uploaded) <= 40  # both report as many, and both begin at the same time


@pytest.mark.parametrize("what", ["object", "end", "more", "digest", "size"])
async def test_what_is_refused(store: ObjectStore, storers: Storers, what: str) -> None:
    header, body = pack([*SMALL, *LARGE])
    upload, _ = begin(storers, store, header, max_size=1000 if what == "size" else 1 << 30)
    data = bytearray(header + body)
    if what == "object":
        data[-4_000_000] ^= 1
    elif what == "end":
        del data[-1_000_000:]
    elif what == "more":
        data += b"x"
    elif what == "digest":
        data[10] ^= 1
    expected: type[PayloadError] = PackTooLarge if what == "size" else BadPack
    with pytest.raises(expected):
        await upload.receive(chunked(bytes(data)))
    assert all(share.over for share in upload.shares)
    assert not staged(store)
    for name in store.list():
        store.verify(name)
    # and the processes go on
    again, _ = begin(storers, store, header)
    await again.receive(chunked(header + body))
    assert set(store.list()) == {ContentHash.of(data) for data in [*SMALL, *LARGE]}


async def test_no_such_storage(store: ObjectStore, storers: Storers, tmp_path: Path) -> None:
    header, body = pack(SMALL)
    (tmp_path / "repo").rename(tmp_path / "gone")
    upload, _ = begin(storers, store, header)
    with pytest.raises(StoreFailure, match="No such file"):
        await upload.receive(chunked(header + body))


async def test_a_slow_process_slows_the_sender(store: ObjectStore, storers: Storers) -> None:
    header, body = pack(LARGE)
    upload, _ = begin(storers, store, header)
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        async for chunk in chunked(header + body, 500_000):
            read += 1
            yield chunk

    slow = upload.shares[0].storer.process
    os.kill(slow.pid, signal.SIGSTOP)
    task = asyncio.create_task(upload.receive(chunks()))
    await until(lambda: upload.shares[1].read == read == UNFINISHED + 1)
    assert not task.done()
    os.kill(slow.pid, signal.SIGCONT)
    assert (await task).objects_added == len(LARGE)


async def test_a_process_that_is_killed(store: ObjectStore, storers: Storers) -> None:
    header, body = pack(LARGE)
    upload, _ = begin(storers, store, header)
    killed = upload.shares[0].storer.process

    async def chunks() -> AsyncIterator[bytes]:
        yield header + body[:3_000_000]
        killed.kill()
        await until(lambda: upload.shares[0].over)
        yield body[3_000_000:]

    with pytest.raises(StoreFailure, match="has ended"):
        await upload.receive(chunks())
    # the other one alone, then two again
    for shares in (1, 2):
        again, _ = begin(storers, store, header)
        assert len(again.shares) == shares
        await again.receive(chunked(header + body))
        storers.wake()
        await storers.started()
    assert {ContentHash.of(data) for data in LARGE} == set(store.list())


async def test_a_body_that_breaks(store: ObjectStore, storers: Storers) -> None:
    header, body = pack(LARGE)
    upload, _ = begin(storers, store, header)

    async def breaking() -> AsyncIterator[bytes]:
        yield header + body[:2_000_000]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await upload.receive(breaking())
    assert all(share.over for share in upload.shares)
    assert not staged(store)


async def test_the_gateway_goes_away(store: ObjectStore, blocks: Blocks) -> None:
    header, body = pack(LARGE)
    storers = Storers(blocks, 1)
    storers.wake()
    await storers.started()
    upload, _ = begin(storers, store, header)
    hold = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield header + body[:2_000_000]
        await hold.wait()

    task = asyncio.create_task(upload.receive(chunks()))
    await until(lambda: bool(staged(store)))
    await storers.close()  # to the process the same as the gateway's end
    assert not staged(store)
    hold.set()
    with pytest.raises(StoreFailure):
        await task


async def test_where_no_process_can_be_started(blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent")
    storers = Storers(blocks, 2)
    storers.wake()
    await storers.started()
    assert storers.begin(partial(LocalStorage, "/"), "0" * 40, 1, 1, UploadedObjects()) is None
    await storers.close()


# --- blocks -----------------------------------------------------------------------------------------------------


def test_blocks_are_seen_by_others_and_used_again(blocks: Blocks) -> None:
    one, two = blocks.take(), blocks.take()
    one[:3], two[:3] = b"one", b"two"
    reader = BlockReader(blocks.fd)
    assert [blocks.number(one[:3]), blocks.number(two[:3])] == [0, 1]
    assert bytes(reader.view(1, 3)) == b"two"
    blocks.give(two)
    again = blocks.take()
    assert blocks.number(again) == 1
    again[:3] = b"new"
    assert bytes(reader.view(1, 3)) == b"new"
    assert len(again) == BLOCK


def test_what_is_no_shared_block(blocks: Blocks) -> None:
    assert blocks.number(b"x") is None
    assert blocks.number(memoryview(b"x")) is None
    own = Blocks(shared=False)
    block = own.take()
    assert len(block) == BLOCK
    assert own.number(block) is None
    own.give(block)
    assert own.take().obj is not block.obj
    own.close()


# --- the process's side -----------------------------------------------------------------------------------------


class Vanishing(dict[int, Any]):
    """Uploads of which one ends between any two looks at them, as its thread may do."""

    def __contains__(self, upload: object) -> bool:
        there = super().__contains__(upload)
        self.clear()
        return there


def test_an_upload_that_ends_while_it_is_told_something() -> None:
    ours, theirs = Pipe()
    with ours, theirs, tempfile.TemporaryFile() as blocks:
        storer = Storer(theirs, blocks.fileno())
        orders: SimpleQueue[Order] = SimpleQueue()
        storer._uploads = Vanishing({1: orders})
        storer._take(End(1))
        storer._take(End(2))
    assert orders.get_nowait() == End(1)
