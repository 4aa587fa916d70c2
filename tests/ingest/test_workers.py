"""Workers: all work is done, within bounds, and an error ends it."""

from __future__ import annotations

import threading

import pytest

from cvmfs_gw.ingest.workers import Workers


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


def test_all_work_is_done() -> None:
    done: list[int] = []
    workers = Workers(3, 100)
    for number in range(500):
        workers.submit(lambda number=number: done.append(number), number % 300)  # type: ignore[misc]
    workers.wait()
    assert sorted(done) == [*range(500)]
    workers.close()


def test_work_waits_for_room(gate: threading.Event) -> None:
    workers = Workers(1, 10)
    workers.submit(gate.wait, 8)  # type: ignore[arg-type]
    handed = threading.Event()

    def hand_over() -> None:
        workers.submit(lambda: None, 3)
        handed.set()

    other = threading.Thread(target=hand_over)
    other.start()
    workers.submit(lambda: None, 2)  # for which there is room
    assert not handed.is_set()
    gate.set()
    other.join()
    workers.wait()
    workers.close()


def test_a_large_piece_has_room_when_it_is_alone() -> None:
    workers = Workers(2, 10)
    done: list[int] = []
    for number in range(5):
        workers.submit(lambda number=number: done.append(number), 1000)  # type: ignore[misc]
    workers.wait()
    assert len(done) == 5
    workers.close()


def test_the_first_error_ends_all_work() -> None:
    workers = Workers(1, 100)

    def fail() -> None:
        raise OSError(28, "no space")

    workers.submit(fail, 1)
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            workers.wait()
    with pytest.raises(OSError, match="no space"):
        workers.submit(lambda: None, 1)
    workers.close()


def test_closed_workers_take_no_work(gate: threading.Event) -> None:
    """And do not do what they have not begun."""
    workers = Workers(1, 100)
    begun = threading.Event()

    def first() -> None:
        begun.set()
        gate.wait()

    done: list[int] = []
    workers.submit(first, 1)
    workers.submit(lambda: done.append(1), 1)
    begun.wait()
    closing = threading.Thread(target=workers.close)
    closing.start()

    def hand_over_until_closed() -> None:
        while True:
            workers.submit(lambda: None, 0)

    for refused in (hand_over_until_closed, workers.wait):
        with pytest.raises(ValueError, match="have ended"):
            refused()
    gate.set()
    closing.join()
    assert done == []
    workers.close()
