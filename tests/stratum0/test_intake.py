"""A body on its way to a thread: in order, in bounded memory, and whatever breaks, nobody waits for ever."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cvmfs_gw.stratum0.errors import ChecksumMismatch, TooLarge
from cvmfs_gw.stratum0.intake import BLOCKS, Body, BodyPipe, take_in

DATA = b"".join(b"%08d" % n for n in range(100_000))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


async def pieces(size: int, data: bytes = DATA) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def read_all(pipe: Body) -> bytes:
    found = []
    while data := pipe.read(777):
        found.append(data)
    return b"".join(found)


@pytest.mark.parametrize("size", [1000, 65_536, 10_000_000])
async def test_what_goes_in_comes_out(threads: ThreadPoolExecutor, size: int) -> None:
    pipe = BodyPipe(len(DATA), hashlib.sha256(DATA).hexdigest())
    assert await take_in(pieces(size), pipe, read_all, threads) == DATA
    assert pipe.size == len(DATA)


async def test_an_empty_body(threads: ThreadPoolExecutor) -> None:
    assert await take_in(pieces(1, b""), BodyPipe(0), read_all, threads) == b""


async def test_limit_and_checksum(threads: ThreadPoolExecutor) -> None:
    with pytest.raises(TooLarge):
        await take_in(pieces(1000), BodyPipe(len(DATA) - 1), read_all, threads)
    with pytest.raises(ChecksumMismatch):
        await take_in(pieces(1000), BodyPipe(len(DATA), "0" * 64), read_all, threads)


async def test_no_more_than_a_few_blocks_are_in_use(threads: ThreadPoolExecutor) -> None:
    go_on = threading.Event()
    asked = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal asked
        for _ in range(20):
            asked += 1
            yield b"x" * 1000

    def slow(pipe: Body) -> int:
        assert go_on.wait(20)
        return len(read_all(pipe))

    taking = asyncio.create_task(take_in(counted(), BodyPipe(1 << 20), slow, threads))
    for _ in range(100):
        await asyncio.sleep(0)
    assert asked == BLOCKS + 1
    go_on.set()
    assert await taking == 20_000


async def test_a_sender_that_breaks_off(threads: ThreadPoolExecutor) -> None:
    ended = threading.Event()

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise ConnectionResetError

    def reader(pipe: Body) -> bytes:
        try:
            return read_all(pipe)
        finally:
            ended.set()

    with pytest.raises(ConnectionResetError):
        await take_in(broken(), BodyPipe(1 << 20), reader, threads)
    assert ended.is_set()


async def test_a_reader_that_fails(threads: ThreadPoolExecutor) -> None:
    def reader(pipe: Body) -> bytes:
        pipe.read(1)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await take_in(pieces(1000), BodyPipe(len(DATA)), reader, threads)


async def test_one_that_is_cancelled(threads: ThreadPoolExecutor) -> None:
    reached = asyncio.Event()
    ended = threading.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        reached.set()
        await asyncio.Event().wait()

    def reader(pipe: Body) -> bytes:
        try:
            return read_all(pipe)
        finally:
            ended.set()

    taking = asyncio.create_task(take_in(endless(), BodyPipe(10), reader, threads))
    await reached.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert ended.is_set()
