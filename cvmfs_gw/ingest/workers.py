"""A few threads that take work in order, with a bound on the bytes that wait for them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[], None]


class Workers:
    """*number* threads. What is handed over waits for room among *room* bytes; a single piece always has room.

    The first error ends all work and is raised where somebody waits or hands over next.
    """

    def __init__(self, number: int, room: int) -> None:
        self._room = room
        self._changed = threading.Condition()
        self._queue: deque[tuple[Work, int]] = deque()
        self._in_flight = 0
        self._unfinished = 0
        self._error: BaseException | None = None
        self._closed = False
        self._threads = [threading.Thread(target=self._run, name=f"ingest-{n}", daemon=True) for n in range(number)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work, size: int) -> None:
        """Have *work* done, which holds *size* bytes until then. Raises the first error of all work so far."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._closed or self._has_room(size))
            self._raise()
            self._queue.append((work, size))
            self._in_flight += size
            self._unfinished += 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until everything is done. Raises the first error."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._closed or not self._unfinished)
            self._raise()

    def close(self) -> None:
        """End the threads, each after the piece of work that it is at. Does nothing the second time."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _has_room(self, size: int) -> bool:
        return not self._in_flight or self._in_flight + size <= self._room

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise ValueError("the workers have ended")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed or self._error)
                if self._closed or self._error:
                    return
                work, size = self._queue.popleft()
            try:
                work()
            except BaseException as error:
                with self._changed:
                    self._error = self._error or error
                    self._queue.clear()
            del work
            with self._changed:
                self._in_flight -= size
                self._unfinished -= 1
                self._changed.notify_all()
