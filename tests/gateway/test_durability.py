from __future__ import annotations

import asyncio
import threading

import pytest

from cvmfs_gw.gateway.durability import GroupCommit


async def test_those_who_come_during_a_flush_share_the_next() -> None:
    gate, begun, flushes = threading.Semaphore(0), asyncio.Event(), 0
    loop = asyncio.get_running_loop()

    def flush() -> None:
        nonlocal flushes
        flushes += 1
        loop.call_soon_threadsafe(begun.set)
        assert gate.acquire(timeout=20)

    group = GroupCommit(flush)
    first = asyncio.create_task(group.durable())
    await begun.wait()
    others = [asyncio.create_task(group.durable()) for _ in range(10)]
    await asyncio.sleep(0)
    assert flushes == 1
    gate.release()
    await first
    assert not any(other.done() for other in others)
    gate.release()
    await asyncio.gather(*others)
    assert flushes == 2
    group.close()


async def test_a_flush_that_fails_is_told_to_those_who_wait_and_to_nobody_else() -> None:
    outcomes: list[Exception | None] = [OSError("full"), None]

    def flush() -> None:
        if error := outcomes.pop(0):
            raise error

    group = GroupCommit(flush)
    with pytest.raises(OSError, match="full"):
        await group.durable()
    await group.durable()
    group.close()
