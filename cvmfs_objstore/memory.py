"""A storage driver on a dictionary, for tests: the smallest complete implementation of the protocol."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Executor
from types import TracebackType
from typing import BinaryIO

from cvmfs_objstore.errors import InvalidPath, ObjectNotFound
from cvmfs_objstore.storage import YOUNG_S, check_path


class MemoryStorage:
    """The storage protocol in memory. *clock* gives the seconds since the epoch that ``modified`` reports."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.opener = None
        self.pool: Executor | None = None
        self._lock = threading.Lock()
        self._files: dict[str, tuple[bytes, float]] = {}

    def __repr__(self) -> str:
        return f"MemoryStorage({len(self._files)} files)"

    def open(self, path: str) -> BinaryIO:
        return io.BytesIO(self.read(path))

    def read(self, path: str) -> bytes:
        return self._get(path)[0]

    def exists(self, path: str) -> bool:
        return check_path(path) in self._files

    def missing(self, paths: Iterable[str]) -> Set[str]:
        return {path for path in paths if not self.exists(path)}

    def size(self, path: str) -> int:
        return len(self._get(path)[0])

    def modified(self, path: str) -> float:
        return self._get(path)[1]

    def now(self) -> float:
        return self._clock()

    def write(self, path: str, data: bytes) -> None:
        entry = (bytes(data), self._clock())
        with self._lock:
            self._files[check_path(path)] = entry

    def put(self, path: str, data: bytes | bytearray | memoryview) -> bool:
        entry = (bytes(data), self._clock())
        with self._lock:
            there = self._files.get(check_path(path))
            if there is not None and len(there[0]) == len(data):
                if there[1] < entry[1] - YOUNG_S:
                    self._files[path] = (there[0], entry[1])
                return False
            self._files[path] = entry
            return True

    def copy(self, path: str, target: str) -> None:
        with self._lock:
            self._files[check_path(target)] = self._get(path)

    def stage(self) -> StagedBytes:
        return StagedBytes(self.write)

    def delete(self, path: str) -> None:
        with self._lock:
            self._files.pop(check_path(path), None)

    def touch(self, path: str) -> bool:
        with self._lock:
            there = self._files.get(check_path(path))
            if there is not None:
                self._files[path] = (there[0], self._clock())
            return there is not None

    def names(self, folder: str) -> Sequence[str]:
        prefix = check_path(folder) + "/"
        with self._lock:
            return list({path[len(prefix) :].partition("/")[0] for path in self._files if path.startswith(prefix)})

    def collect(
        self, folder: str, names: Iterable[str], before: float, *, pretend: bool = False, sizes: bool = True
    ) -> Sequence[int | None]:
        check_path(folder)
        return [self._collect(folder, name, before, pretend) for name in names]

    def _collect(self, folder: str, name: str, before: float, pretend: bool) -> int | None:
        if "/" in name or "\0" in name:
            raise InvalidPath(f"not a name in a folder: {name[:200]!r}")
        path = f"{folder}/{name}"
        with self._lock:
            there = self._files.get(path)
            if there is None or there[1] >= before:
                return None
            if not pretend:
                del self._files[path]
            return len(there[0])

    def list(self, prefix: str = "") -> Iterator[str]:
        if prefix:
            prefix = check_path(prefix) + "/"
        with self._lock:
            paths = [path for path in self._files if path.startswith(prefix)]
        yield from paths

    def sync(self) -> None:
        pass

    def clean(self) -> int:
        return 0

    def _get(self, path: str) -> tuple[bytes, float]:
        try:
            return self._files[check_path(path)]
        except KeyError:
            raise ObjectNotFound(path) from None


class StagedBytes:
    """A staged file in memory; see :class:`cvmfs_objstore.storage.Staged`."""

    __slots__ = ("_data", "_publish")

    def __init__(self, publish: Callable[[str, bytes], None]) -> None:
        self._data: bytearray | None = bytearray()
        self._publish = publish

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        if self._data is None:
            raise ValueError("the staged file is closed")
        before = len(self._data)
        self._data += data
        return len(self._data) - before

    def publish(self, path: str) -> None:
        if self._data is None:
            raise ValueError("the staged file is closed")
        self._publish(check_path(path), bytes(self._data))
        self._data = None

    def discard(self) -> None:
        self._data = None

    def __enter__(self) -> StagedBytes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()
