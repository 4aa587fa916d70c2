"""The storage protocol: what a repository's files and objects lie on.

A storage holds one repository. Its paths are relative, with slashes, never with ``..``::

    .cvmfspublished            the signed manifest: replaced atomically, the last write of every publish
    .cvmfswhitelist            the signed whitelist
    .cvmfsreflog               the reflog, a plain SQLite database
    .cvmfs_master_replica      empty; says that the repository may be replicated
    data/ab/cdef...[suffix]    objects, immutable, named by content
    data/txn/                  staged files, on the same file system (drivers that need none have none)

Guarantees that every driver gives, and that the one test suite for drivers demands:

* ``write`` and ``Staged.publish`` are atomic: a reader sees the old content, the new one, or (for a new
  path) nothing; never a part.
* What was written is seen at once by every later read of the same storage object.
* After ``sync`` returns, everything that was written before it was called survives a power cut, if the driver
  was made durable.
* Methods may be called from any thread.
* A path that is absolute, has empty, ``.`` or ``..`` parts or a NUL, or lies in ``data/txn``, raises
  :exc:`InvalidPath` and touches nothing.

What is old can be collected while others write. Who puts an object that is there makes it young (as old as
:data:`YOUNG_S` at most), and :meth:`Storage.collect` removes nothing that is young, however closely the two meet:
either it stays, or the put finds it gone and writes it.

Sizes matter after a power cut: an object that was published but not yet synced may come back shorter than it
was. So ``put`` takes a file of another length for one that is not there, which makes asking again heal it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from types import TracebackType
from typing import BinaryIO, Final, Protocol

from cvmfs_objstore.errors import InvalidPath

STAGING: Final = "data/txn"
"""The folder of staged files, which no path may name."""
YOUNG_S: Final = 60.0
"""An object that was written or put within so many seconds need not become younger by another put."""


def check_path(path: str) -> str:
    """Return *path* if it is one that a storage takes; raises :exc:`InvalidPath`."""
    # Object paths come in tens of thousands and hold none of these, so the cheap questions go first.
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
    """A file that is being written and that nobody sees yet. As a context manager it discards itself."""

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
    """One repository's files. Raises :exc:`ObjectNotFound` for missing paths and ``OSError`` for trouble below."""

    def open(self, path: str) -> BinaryIO:
        """The file's bytes as a seekable stream."""

    def read(self, path: str) -> bytes:
        """The whole file."""

    def exists(self, path: str) -> bool: ...

    def missing(self, paths: Iterable[str]) -> Set[str]:
        """Those of *paths*, which may be 100,000, that do not exist."""

    def size(self, path: str) -> int:
        """Length in bytes."""

    def modified(self, path: str) -> float:
        """When the file was last written, in seconds since the epoch."""

    def now(self) -> float:
        """What :meth:`modified` would say of a file written now: on a network file system, another host's clock."""

    def write(self, path: str, data: bytes) -> None:
        """Create or replace a mutable file, atomically, and durable at once (without :meth:`sync`)."""

    def put(self, path: str, data: bytes | bytearray | memoryview) -> bool:
        """Create an immutable file, atomically, unless one of the same length is there; durable after sync.

        Returns whether it was written. One that is there becomes young.
        """

    def copy(self, path: str, target: str) -> None:
        """Let *target* have what *path* has, atomically and without reading it; durable as :meth:`write` is."""

    def stage(self) -> Staged:
        """A new unseen file, for content whose path is known only at its end."""

    def delete(self, path: str) -> None:
        """Remove the file; no error if it is not there."""

    def touch(self, path: str) -> bool:
        """Make the file young, as :meth:`put` does; returns False if it is not there."""

    def names(self, folder: str) -> Sequence[str]:
        """The names of all that lies in *folder*, at once and in no order; none if there is no such folder."""

    def collect(
        self, folder: str, names: Iterable[str], before: float, *, pretend: bool = False, sizes: bool = True
    ) -> Sequence[int | None]:
        """Remove those files in *folder* that were last written or touched before that time (seconds since the epoch).

        Returns for each the length of what was removed, in bytes, or with *pretend* of what would be; None for what
        stays or is not there. Without *sizes* the lengths may be 0, as it takes longer to find them out than to look
        at the whole folder's age. Puts of objects in the folder may have to wait for that, so *names* should come to
        their end within moments.
        """

    def list(self, prefix: str = "") -> Iterator[str]:
        """Paths below the folder *prefix* (``"data"``), in no particular order, without staged files."""

    def sync(self) -> None:
        """Return when everything written so far is durable."""

    def clean(self) -> int:
        """Remove staged files that an earlier process left behind; returns how many. Only at start."""
