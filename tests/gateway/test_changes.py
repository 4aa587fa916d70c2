from __future__ import annotations

import asyncio
import threading

import pytest

from cvmfs_gw.gateway.changes import Changes


class Disk:
    """Counts flushes, each of which waits until it is let through."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.begun = asyncio.Event()
        self.flushes = 0
        self._loop = asyncio.get_running_loop()

    def flush(self) -> None:
        self.flushes += 1
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self.gate.acquire(timeout=20)


async def test_those_who_come_during_a_flush_share_the_next() -> None:
    disk, order = Disk(), list[int]()
    changes = Changes(disk.flush)
    first = asyncio.create_task(changes(order.append, 0))
    await disk.begun.wait()
    others = [asyncio.create_task(changes(order.append, number)) for number in range(1, 11)]
    await asyncio.sleep(0)
    assert (disk.flushes, order) == (1, [0])
    disk.gate.release()
    await first
    assert not any(other.done() for other in others)
    disk.gate.release()
    await asyncio.gather(*others)
    assert (disk.flushes, order) == (2, list(range(11)))
    changes.close()


async def test_those_of_one_turn_of_the_event_loop_share_a_flush() -> None:
    disk, order = Disk(), list[int]()
    disk.gate.release()
    changes = Changes(disk.flush)
    await asyncio.gather(*(changes(order.append, number) for number in range(10)))
    assert (disk.flushes, order) == (1, list(range(10)))
    changes.close()


async def test_what_was_begun_is_made_before_it_is_closed() -> None:
    order: list[int] = []
    changes = Changes(lambda: None)
    last = [asyncio.create_task(changes(order.append, number)) for number in range(3)]
    await asyncio.sleep(0)
    changes.close()
    assert order == [0, 1, 2]
    await asyncio.gather(*last)


async def test_nothing_is_flushed_for_who_only_looks() -> None:
    disk = Disk()
    changes = Changes(disk.flush)
    assert await changes.look(lambda: 5) == 5
    assert disk.flushes == 0
    changes.close()


async def test_what_a_change_raises_is_told_to_its_caller_alone() -> None:
    changes = Changes(lambda: None)
    answers = await asyncio.gather(
        changes(int, "1"), changes(int, "x"), changes.look(int, "y"), changes(int, "2"), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [int, ValueError, ValueError, int]
    changes.close()


async def test_a_flush_that_fails_is_told_to_those_who_wait_and_to_nobody_else() -> None:
    outcomes: list[Exception | None] = [OSError("full"), None]

    def flush() -> None:
        if error := outcomes.pop(0):
            raise error

    changes = Changes(flush)
    with pytest.raises(OSError, match="full"):
        await changes(int)
    assert await changes(int) == 0
    changes.close()


async def test_a_change_is_made_though_nobody_waits_for_it() -> None:
    disk, order = Disk(), list[int]()
    changes = Changes(disk.flush)
    first = asyncio.create_task(changes(order.append, 0))
    await disk.begun.wait()
    gone = asyncio.create_task(changes(order.append, 1))
    last = asyncio.create_task(changes(order.append, 2))
    await asyncio.sleep(0)
    gone.cancel()
    disk.gate.release(2)
    await asyncio.gather(first, last)
    assert order == [0, 1, 2]
    changes.close()


async def test_a_long_flush_holds_up_nobody_who_asks() -> None:
    """However many ask meanwhile, each at another turn of the event loop."""
    go_on, made, asked = threading.Event(), list[int](), []

    def flush() -> None:
        assert go_on.wait(20), "the event loop stands still"

    changes = Changes(flush)
    for number in range(2000):
        asked.append(asyncio.ensure_future(changes(made.append, number)))
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*asked)
    changes.close()
    assert made == list(range(2000))
