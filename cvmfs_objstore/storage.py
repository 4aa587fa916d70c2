"""The storage protocol: the interface of the drivers that hold a repository's files and objects.

A storage holds one repository. Its paths are relative, with slashes, never with ``..``::

    .cvmfspublished            the signed manifest: replaced atomically, the last write of every publish
    .cvmfswhitelist            the signed whitelist
    .cvmfsreflog               the reflog, a plain SQLite database
    .cvmfs_master_replica      empty; says that the repository may be replicated
    data/ab/cdef...[suffix]    objects, immutable, named by content
    data/txn/                  staged files, on the same file system (only in drivers that need them)

Guarantees of every driver, checked by one test suite for all drivers:

* ``write`` and ``Staged.publish`` are atomic: a reader sees the old content, the new one, or (for a new
  path) nothing; never a part.
* What was written is seen at once by every later read of the same storage object.
* After ``sync`` returns, everything that was written before the call survives a power cut, if the driver was
  created as durable.
* Methods may be called from any thread.
* A path that is absolute, has empty, ``.`` or ``..`` parts or a NUL, or lies in ``data/txn``, raises
  :exc:`InvalidPath` and touches nothing.

Garbage can be collected while others write. Putting an object that exists refreshes its modification time (unless it
is less than :data:`YOUNG_S` old), and :meth:`Storage.collect` removes only objects older than a given time. A put and a
collection that race are safe: either the object stays, or the put finds it gone and writes it.

After a power cut, an object that was published but not yet synced may be shorter than it was. So ``put`` replaces a
file of another length, and sending an object again repairs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Executor
from types import TracebackType
from typing import BinaryIO, Final, Protocol

from cvmfs_objstore.errors import InvalidPath

STAGING: Final = "data/txn"
"""The staging directory, which no path may name."""
YOUNG_S: Final = 60.0
"""Putting an object that exists refreshes its modification time only if it is older than this, in seconds."""


def check_path(path: str) -> str:
    """Return *path* if it is valid; raises :exc:`InvalidPath`."""
    # Object paths come by the tens of thousands and contain none of these, so the cheap tests go first.
    if "\0" in path or path[:1] == "/" or path.startswith(STAGING) or "//" in path or "." in path:
        _check_parts(path)
    elif not path or path[-1] == "/":
        raise InvalidPath(f"not a storage path: {path!r}")
    return path


def _check_parts(path: str) -> None:
    parts = path.split("/")
    if "\0" in path or not {"", ".", ".."}.isdisjoint(parts) or parts[:2] == ["data", "txn"]:
        raise InvalidPath(f"not a storage path: {path[:200]!r}")


class Staged(Protocol):
    """A file that is being written and not visible yet. Leaving its context discards it unless it was published."""

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Append *data*; returns its length."""

    def publish(self, path: str) -> None:
        """Make the file visible as *path*, replacing what was there. Ends the staging."""

    def discard(self) -> None:
        """Drop the file. Does nothing after :meth:`publish` or a first ``discard``."""

    def __enter__(self) -> Staged: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Storage(Protocol):
    """One repository's files. Raises :exc:`ObjectNotFound` for missing paths and ``OSError`` for I/O errors."""

    @property
    def opener(self) -> Callable[[], Storage] | None:
        """Opens the same storage in another process, which it can be pickled for; None if there is no such way.

        What is stored there becomes durable by :meth:`sync` here.
        """

    @property
    def pool(self) -> Executor | None:
        """Threads for puts that go on side by side, as each waits for another host; None where that gains nothing."""

    def open(self, path: str) -> BinaryIO:
        """The file's bytes as a seekable stream."""

    def read(self, path: str) -> bytes:
        """The whole file."""

    def exists(self, path: str) -> bool: ...

    def missing(self, paths: Iterable[str]) -> Set[str]:
        """Those of *paths* that do not exist. Made for 100,000 paths at once."""

    def size(self, path: str) -> int:
        """Length in bytes."""

    def modified(self, path: str) -> float:
        """When the file was last written, in seconds since the epoch."""

    def now(self) -> float:
        """What :meth:`modified` would say of a file written now: on a network file system, another host's clock."""

    def write(self, path: str, data: bytes) -> None:
        """Create or replace a mutable file, atomically, and durable at once (without :meth:`sync`)."""

    def put(self, path: str, data: bytes | bytearray | memoryview) -> bool:
        """Create an immutable file, atomically, unless one of the same length exists; durable after sync.

        Returns whether it was written. If it existed, its modification time is refreshed.
        """

    def copy(self, path: str, target: str) -> None:
        """Make *target* a copy of *path*, atomically and without reading it; as durable as :meth:`write`."""

    def stage(self) -> Staged:
        """A new invisible file, for content whose path is known only when all of it is written."""

    def delete(self, path: str) -> None:
        """Remove the file; no error if it is not there."""

    def touch(self, path: str) -> bool:
        """Refresh the file's modification time, as :meth:`put` does; returns False if it does not exist."""

    def names(self, folder: str) -> Sequence[str]:
        """The names of everything in *folder*, as one list in no order; empty if there is no such folder."""

    def collect(
        self, folder: str, names: Iterable[str], before: float, *, pretend: bool = False, sizes: bool = True
    ) -> Sequence[int | None]:
        """Remove those of *names* in *folder* last written or touched *before* a time (seconds since the epoch).

        Returns for each name the length in bytes of the file that was removed (with *pretend*: would be removed), or
        None if it stays or does not exist. Without *sizes* the lengths may be 0, which is faster: no file need be
        looked at if the whole folder is old. Puts into the folder may have to wait meanwhile, so keep *names* short.
        """

    def list(self, prefix: str = "") -> Iterator[str]:
        """Paths below the folder *prefix* (``"data"``), in no particular order, without staged files."""

    def sync(self) -> None:
        """Return when everything written so far is durable."""

    def clean(self) -> int:
        """Remove staged files that an earlier process left behind; returns how many. Only at start."""
