"""Storing many objects one after the other, where on another host many puts go on at once.

What goes wrong with an object is raised to whoever stored it and to nobody else, at one of the next calls; when
:meth:`Puts.finish` returns, all are there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from cvmfs_objstore.hashes import ContentHash
from cvmfs_objstore.storage import Staged, Storage

MOST_BYTES: Final = 8 << 20
"""Bytes of objects that are held in memory at once for one caller."""
MOST_OBJECTS: Final = 64
"""Objects of one caller that are under way at once."""

Done = Callable[[ContentHash, int, bool], None]
"""Told of an object that is there: its name, its size in bytes, and whether it was written."""


class Puts:
    """Objects that one caller stores, to be used from one thread at a time; it is told there when one is *done*.

    Every method but :meth:`abort` raises ``OSError`` for what went wrong with any of them.
    """

    __slots__ = ("_bytes", "_done", "_pool", "_put", "_under_way")

    def __init__(self, storage: Storage, done: Done) -> None:
        self._put, self._pool, self._done = storage.put, storage.pool, done
        self._under_way: deque[tuple[ContentHash, int, int, Future[bool]]] = deque()
        self._bytes = 0

    def put(self, name: ContentHash, data: bytes | memoryview) -> None:
        """Store an object as :meth:`Storage.put` does."""
        if self._pool is None:
            self._done(name, len(data), self._put(name.path, data))
            return
        self._make_room(len(data))
        kept = bytes(data)  # the caller's memory may be used for what comes next
        self._bytes += len(kept)
        self._under_way.append((name, len(kept), len(kept), self._pool.submit(self._put, name.path, kept)))

    def publish(self, name: ContentHash, size: int, staged: Staged) -> None:
        """Publish the object *name*, of *size* bytes, which is staged."""
        if self._pool is None:
            staged.publish(name.path)
            self._done(name, size, True)
            return
        self._make_room(0)
        self._under_way.append((name, size, 0, self._pool.submit(_publish, staged, name.path)))

    def finish(self) -> None:
        """Wait until all are there."""
        while self._under_way:
            self._take()

    def abort(self) -> None:
        """Wait until nothing is under way any more, whatever becomes of it."""
        for _, _, _, future in self._under_way:
            if not future.cancel():
                future.exception()
        self._under_way.clear()

    def _make_room(self, size: int) -> None:
        while self._under_way and (
            self._under_way[0][3].done() or self._bytes + size > MOST_BYTES or len(self._under_way) >= MOST_OBJECTS
        ):
            self._take()

    def _take(self) -> None:
        """Wait for the one that is under way for longest."""
        name, size, held, future = self._under_way.popleft()
        self._bytes -= held
        self._done(name, size, future.result())


def _publish(staged: Staged, path: str) -> bool:
    with staged:
        staged.publish(path)
    return True
