"""Staged files of the local driver: files in ``data/txn`` that are renamed to their path when they are complete.

The name of one tells the process that made it, so that what a dead process has left behind can be removed while others
work on the same repository.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from types import TracebackType
from typing import Final

from cvmfs_objstore import posix
from cvmfs_objstore.storage import check_path

OWN_PREFIX: Final = "gw-"
"""The prefix of this driver's staged files."""

FOREIGN_AGE: Final = 3600.0
"""A staged file of another tool counts as left behind when it has not changed for this many seconds."""


def own_prefix() -> str:
    """A prefix for the names of one user of a staging directory, unique among threads, processes and restarts."""
    return f"{OWN_PREFIX}{os.getpid():x}-{secrets.token_hex(4)}-"


class StagedFile:
    """A staged file on disk; see :class:`cvmfs_objstore.storage.Staged`."""

    __slots__ = ("_fd", "_name", "_publish")

    def __init__(self, name: str, fd: int, publish: Callable[[str, str], None]) -> None:
        self._name = name
        self._fd = fd
        self._publish = publish

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        if self._fd < 0:
            raise ValueError("the staged file is closed")
        view = memoryview(data)
        posix.write_all(self._fd, view)
        return view.nbytes

    def publish(self, path: str) -> None:
        if self._fd < 0:
            raise ValueError("the staged file is closed")
        check_path(path)
        self._close()
        try:
            self._publish(self._name, path)
        except BaseException:
            unlink(self._name)
            raise

    def discard(self) -> None:
        if self._fd >= 0:
            self._close()
            unlink(self._name)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def __enter__(self) -> StagedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def remove_left_behind(folder: str, now: float) -> int:
    """Remove what earlier processes left in the staging directory *folder*; returns how many files and folders.

    Other tools and servers may be working on the same repository, and stage their files here too. So files of other
    tools, and those of running processes, are removed only when they have not changed for :data:`FOREIGN_AGE` seconds.
    *now* is by the clock of the file system, in seconds since the epoch.
    """
    oldest = now - FOREIGN_AGE
    removed = 0
    try:
        with os.scandir(folder) as scan:
            entries = [*scan]
    except FileNotFoundError:
        return 0
    for entry in entries:
        try:
            if not _is_left_behind(entry.name) and _newest(entry) > oldest:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        except FileNotFoundError:
            continue  # its owner removed it first
        removed += 1
    return removed


def unlink(path: str) -> None:
    """Remove a file; whatever goes wrong is ignored."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def _is_left_behind(name: str) -> bool:
    """Whether a staged file is one of this driver's and of a process that is no more, or of this one's number."""
    if not name.startswith(OWN_PREFIX):
        return False
    try:
        process = int(name[len(OWN_PREFIX) :].partition("-")[0], 16)
        if process != os.getpid():
            os.kill(process, 0)
            return False
    except PermissionError:
        return False  # it is there, and another user's
    except (ValueError, OverflowError, ProcessLookupError):
        pass
    return True


def _newest(entry: os.DirEntry[str]) -> float:
    """When the file, or anything directly in the folder, last changed."""
    newest = entry.stat(follow_symlinks=False).st_mtime
    if entry.is_dir(follow_symlinks=False):
        with os.scandir(entry.path) as inside:
            newest = max([newest, *(e.stat(follow_symlinks=False).st_mtime for e in inside)])
    return newest
